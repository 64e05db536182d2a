"""Airflow's side of a batch, thin: it claims, supervises or defers, and tells how it ended."""
