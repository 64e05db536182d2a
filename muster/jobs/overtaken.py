"""A batch that has ended before what it comes after was mended: there is work for it again.

A cleared task keeps what has succeeded; that a map lacks a band, or a table a dataset, which has
been made since, only the order of the workflow's steps tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.jobs.planning.workflow import WORKFLOWS
from muster.store import claims, runs

if TYPE_CHECKING:
    from muster.model.batch import Batch
    from muster.store.database import Database


def renew_where_overtaken(db: Database, batch: Batch) -> bool:
    """Start a new generation of a batch where one that it comes after has done well since.

    Parameters
    ----------
    batch : Batch
        Of a run that is planned; nothing happens to one of a run of no workflow.
    """
    workflow = WORKFLOWS.get(runs.read_run(db, batch.run).workflow)
    if workflow is None:
        return False
    groups = runs.read_groups(db, batch.run)
    group = next((name for name, steps in groups.items() if batch.id in steps.values()), "")
    before, needed = workflow.batches_before(group, batch.step, groups)
    return bool(before) and claims.renew_overtaken(db, batch.id, before, needed)
