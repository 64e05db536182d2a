"""Runs as a person follows, cancels and judges them."""
