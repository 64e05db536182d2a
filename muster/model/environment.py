"""Variables of a job that more than one side must know by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.model.batch import Batch

STORE_VARIABLE = "MUSTER_STORE_URL"
PARENT_VARIABLE = "MUSTER_PARENT_PID"
"""The process that a runner of this machine dies with."""
LOG_VARIABLE = "MUSTER_LOG"
"""The log that a runner's own output goes to, below its batch's folder."""
HOST_VARIABLE = "MUSTER_HOST"
"""The node that a job runs on, as its scheduler calls it."""
TIME_LIMIT_VARIABLE = "MUSTER_TIME_LIMIT_S"
"""The walltime that a job was asked for with, in seconds."""
JOB_END_VARIABLE = "SLURM_JOB_END_TIME"
"""When Slurm ends a job, in seconds since 1970."""


def store_variables(batch: Batch, store_url: str | None) -> dict[str, str]:
    """Say what a batch's jobs are told of the store: nothing, where they do not need it."""
    return {STORE_VARIABLE: store_url} if batch.needs_store and store_url is not None else {}


def find_job_end(variables: Mapping[str, str], now: float) -> float | None:
    """Say when a job's walltime ends, in seconds since 1970; None where nobody says.

    Parameters
    ----------
    variables : mapping
        The job's own.
    now : float
        When it has begun, in seconds since 1970.
    """
    end, limit_s = variables.get(JOB_END_VARIABLE, ""), variables.get(TIME_LIMIT_VARIABLE, "")
    if end.isdecimal() and float(end) > now:
        return float(end)
    return now + float(limit_s) if limit_s.isdecimal() else None
