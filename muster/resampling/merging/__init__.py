"""Datasets on one grid, merged into one table."""
