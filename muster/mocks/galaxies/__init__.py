"""Galaxies in haloes, by one of several models."""
