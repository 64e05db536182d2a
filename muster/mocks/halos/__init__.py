"""Halo catalogues and where they come from."""
