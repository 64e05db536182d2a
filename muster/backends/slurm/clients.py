"""Slurm's client programs, on this machine or a login node: sbatch, squeue, sacct, scontrol."""

from __future__ import annotations

from muster.backends.remote.transport import SchedulerClients

SLURM_FOLDER = "slurm"
"""Folder of a batch for its scripts and what its jobs print; a name in work directories."""

SLURM_CLIENTS = SchedulerClients(
    kept=("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"),
    prefixes=(
        "SACCT", "SALLOC", "SBATCH", "SCANCEL", "SINFO", "SLURM", "SPRIO", "SQUEUE", "SRUN",
    ),
    settings={"SLURM_TIME_FORMAT": "%s"},  # times are asked for as numbers
    folder=SLURM_FOLDER,
    install="install Slurm's clients (Debian: slurm-client), put them on PATH, or reach the cluster"
    " with transport = 'ssh'",
    install_there="put Slurm's programs on the PATH of shells that are not interactive there",
)  # fmt: skip
