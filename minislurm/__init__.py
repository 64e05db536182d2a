"""A real Slurm cluster on one machine, in a folder of its own, for tests and for trying out."""
