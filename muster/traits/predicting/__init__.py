"""Predicting a trait and its variation over an ensemble, by several engines."""
