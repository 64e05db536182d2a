"""Variables of a job that more than one side must know by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muster.model.batch import Batch

STORE_VARIABLE = "MUSTER_STORE_URL"
PARENT_VARIABLE = "MUSTER_PARENT_PID"
"""The process that a runner of this machine dies with."""


def store_variables(batch: Batch, store_url: str | None) -> dict[str, str]:
    """Say what a batch's jobs are told of the store: nothing, where they do not need it."""
    return {STORE_VARIABLE: store_url} if batch.needs_store and store_url is not None else {}
