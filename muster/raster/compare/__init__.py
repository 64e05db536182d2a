"""Comparing rasters pixel by pixel, and showing how they differ."""
