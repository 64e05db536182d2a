"""Comparing trait maps."""
