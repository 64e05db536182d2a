"""Trying a site before it is trusted."""
