"""Muster: scientific campaigns on Slurm, Kubernetes or one machine, remembered in Postgres."""

__version__ = "0.1.0"
