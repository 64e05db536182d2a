"""Bringing the batches of a planned run to their end: group by group, stage by stage.

The final steps come when all groups are over.

The command line's whole runs and those that were submitted to be left alone are followed alike.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from muster.errors import ClaimLost
from muster.jobs.planning.workflow import find_workflow
from muster.jobs.supervision.batch_end import read_end
from muster.jobs.supervision.supervisor import Supervisor
from muster.store import claims, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from muster.backends import Backends
    from muster.jobs.planning.freeze import Group
    from muster.jobs.planning.workflow import Workflow
    from muster.jobs.supervision.batch_end import BatchEnd
    from muster.model.batch import Batch
    from muster.store.database import Database

    Told = Callable[[str, str, str], None]

TAKEN_OVER_PATIENCE_S = 60.0
TAKEN_OVER_POLL_S = 0.5

log = logging.getLogger(__name__)


class RunFollower:
    """Supervises the batches of one run.

    Parameters
    ----------
    db : Database
        The store.
    backends : Backends
        What opens the batches' backends.
    workflow : Workflow
        With the order of its stages.
    tell : callable
        ``tell(group, step, state)`` whenever a batch starts or ends.
    leave_when_interrupted : bool
        Whether what runs goes on when this is interrupted; else it is cancelled.
    """

    def __init__(
        self,
        db: Database,
        backends: Backends,
        workflow: Workflow,
        tell: Told,
        *,
        leave_when_interrupted: bool = False,
    ) -> None:
        self.unbegun: set[str] = set()
        self._batches: dict[str, dict[str, str]] = {}
        self._db = db
        self._backends = backends
        self._workflow = workflow
        self._tell = tell
        self._leave = leave_when_interrupted

    async def follow(self, groups: Sequence[Group], *, fresh: bool = False) -> None:
        """Bring every batch of the groups to its end.

        Parameters
        ----------
        fresh : bool
            Give all that has not succeeded a new generation.

        Raises
        ------
        MusterError
            The first that kept a batch from being supervised.
        """
        self.unbegun = {batch for group in groups for batch in group.batches.values()}
        self._batches = {group.name: group.batches for group in groups}
        side_by_side, final = self._workflow.split_groups(groups)
        try:
            async with asyncio.TaskGroup() as tasks:
                for group in side_by_side:
                    tasks.create_task(self._follow_group(group, fresh=fresh))
            for group in final:
                await self._follow_group(group, fresh=fresh)
        except ExceptionGroup as errors:
            raise _first(errors) from errors

    async def supervise(
        self, group: str, step: str, batch_id: str, *, fresh: bool = False
    ) -> BatchEnd:
        """Bring one batch to its end, or wait a while for who has taken it over."""
        self._tell(group, step, "running")
        supervisor = await Supervisor.take_over(self._db, batch_id, self._backends, fresh=fresh)
        self.unbegun.discard(batch_id)
        try:
            end = await supervisor.run()
        except ClaimLost as error:
            log.warning("%s", error)
            end = await self._watch_other(batch_id)
        except asyncio.CancelledError:
            if self._leave:
                await asyncio.to_thread(claims.detach, self._db, supervisor.claim)
            else:
                await supervisor.cancel("person")
            raise
        self._tell(group, step, "succeeded" if end.succeeded else end.failures[0].state)
        return end

    async def _follow_group(self, group: Group, *, fresh: bool) -> None:
        """Follow a group's stages; a later one runs whatever became of the earlier."""
        for stage in (*self._workflow.stages, *((step,) for step in self._workflow.final_steps)):
            async with asyncio.TaskGroup() as tasks:
                for step in stage:
                    if step in group.batches:
                        batch_id = group.batches[step]
                        await self._make_stale(group, step, batch_id)
                        tasks.create_task(self.supervise(group.name, step, batch_id, fresh=fresh))
                    elif step in group.skipped:
                        self._tell(group.name, step, group.skipped[step].partition(":")[0])

    async def _make_stale(self, group: Group, step: str, batch_id: str) -> None:
        """Let a batch of a later stage run again where what it came from was mended since.

        A job that waited for others is cancelled by the scheduler when one of them fails, and one
        that did without a band has made less than there could be.  When those before it were
        tried again and did well, there is work for it after all.
        """
        before, needed = self._workflow.batches_before(group.name, step, self._batches)
        if before:
            await asyncio.to_thread(claims.renew_overtaken, self._db, batch_id, before, needed)

    async def _watch_other(self, batch_id: str) -> BatchEnd:
        """Wait a while for whoever has taken a batch over to end it."""
        deadline = time.monotonic() + TAKEN_OVER_PATIENCE_S
        while True:
            end = await asyncio.to_thread(read_end, self._db, batch_id)
            if end.over or time.monotonic() > deadline:
                return end
            await asyncio.sleep(TAKEN_OVER_POLL_S)


def renew_where_overtaken(db: Database, batch: Batch) -> bool:
    """Start a new generation of a batch where one that it comes after has done well since.

    A cleared task keeps what has succeeded; that a map lacks a band, or a table a dataset, which
    has been made since, only the order of the workflow's steps tells.

    Parameters
    ----------
    batch : Batch
        Of a run that is planned; nothing happens to one of a run of no workflow.
    """
    workflow = find_workflow(runs.read_run(db, batch.run).workflow)
    if workflow is None:
        return False
    groups = runs.read_groups(db, batch.run)
    group = next((name for name, steps in groups.items() if batch.id in steps.values()), "")
    before, needed = workflow.batches_before(group, batch.step, groups)
    return bool(before) and claims.renew_overtaken(db, batch.id, before, needed)


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """Return what made a task group fail first; the rest follows from it."""
    error: Exception = errors
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
