"""Postgres: the only memory that Muster has."""
