"""How tests start ranks on this machine."""

from __future__ import annotations

NTASKS = 3
MPIRUN = (
    *("mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"),
    *("--mca", "btl", "self,vader", "-n", "{ntasks}"),
)
"""As root, on fewer cores than ranks, without a network."""
