"""A whole run in this process: the same plan, batches and supervisors as in Airflow, without it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from muster.backends import Backends
from muster.errors import ClaimLost, MusterError
from muster.jobs.batch_end import read_end
from muster.jobs.outcome import Outcome
from muster.jobs.supervise import Supervisor
from muster.jobs.verdict import Verdict, give_verdict
from muster.jobs.workflow import Group, Workflow, freeze_plan, open_run
from muster.store import batches, claims, runs
from muster.store.records import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from muster.jobs.batch_end import BatchEnd
    from muster.site import Site
    from muster.store.database import Database

    Told = Callable[[str, str, str], None]

TAKEN_OVER_PATIENCE_S = 60.0
TAKEN_OVER_POLL_S = 0.5

log = logging.getLogger(__name__)


class LocalRun:
    """One run of a workflow, from its parameters to its verdict.

    Parameters
    ----------
    db, site, workflow
        Where it is recorded, where it runs, and what it is.
    run_id : str
        A new name.
    tell : callable
        ``tell(group, step, state)`` whenever a batch starts or ends.
    """

    def __init__(
        self, db: Database, site: Site, workflow: Workflow, run_id: str, tell: Told
    ) -> None:
        self.db = db
        self.site = site
        self.workflow = workflow
        self.run_id = run_id
        self.tell = tell
        self._backends = Backends(db)
        self._unbegun: list[str] = []

    async def run(
        self, params: Mapping[str, Any], interval: tuple[datetime, datetime] | None = None
    ) -> Verdict:
        """Inspect, plan, compute, and judge.

        Raises
        ------
        ConfigError
            When a parameter is wrong; nothing has run then.
        MusterError
            When the run could not go on; what was running is cancelled, and the record says why.
        """
        inspection = await asyncio.to_thread(
            open_run, self.db, self.site, self.workflow, self.run_id, params, interval
        )
        try:
            await self._run(inspection)
            await self._backends.close()
        except asyncio.CancelledError:
            await self._end_early(RunState.CANCELLED, "interrupted")
            raise
        except MusterError as error:
            await self._end_early(RunState.FAILED, str(error))
            raise
        return await asyncio.to_thread(give_verdict, self.db, self.run_id)

    async def _run(self, inspection: str) -> None:
        self._unbegun = [inspection]
        end = await self._supervise("inputs", self.workflow.inspect, inspection)
        if not end.succeeded:
            return
        groups: list[Group] = await asyncio.to_thread(freeze_plan, self.db, self.site, self.run_id)
        self._unbegun = [batch for group in groups for batch in group.batches.values()]
        try:
            async with asyncio.TaskGroup() as tasks:
                for group in groups:
                    tasks.create_task(self._run_group(group))
        except ExceptionGroup as errors:
            raise _first(errors) from errors

    async def _end_early(self, state: RunState, message: str) -> None:
        """Cancel what was never begun, and record that the run is over."""
        for batch_id in self._unbegun:
            claim = await asyncio.to_thread(claims.take_claim, self.db, batch_id)
            await asyncio.to_thread(claims.request_cancel, self.db, claim, "person")
            await asyncio.to_thread(
                batches.record_stopped, self.db, claim, Outcome.CANCELLED.value, message
            )
        await asyncio.to_thread(runs.end_run, self.db, self.run_id, state, message)

    async def _run_group(self, group: Group) -> None:
        """Run a group's stages; a later one runs whatever became of the earlier."""
        for stage in self.workflow.stages:
            async with asyncio.TaskGroup() as tasks:
                for step in stage:
                    if step in group.batches:
                        tasks.create_task(self._supervise(group.name, step, group.batches[step]))
                    elif step in group.skipped:
                        self.tell(group.name, step, group.skipped[step].partition(":")[0])

    async def _supervise(self, group: str, step: str, batch_id: str) -> BatchEnd:
        self.tell(group, step, "running")
        supervisor = await Supervisor.take_over(self.db, batch_id, self._backends)
        self._unbegun.remove(batch_id)
        try:
            end = await supervisor.run()
        except ClaimLost as error:
            log.warning("%s", error)
            end = await self._watch_other(batch_id)
        except asyncio.CancelledError:
            await supervisor.cancel("person")
            raise
        self.tell(group, step, "succeeded" if end.succeeded else end.failures[0].state)
        return end

    async def _watch_other(self, batch_id: str) -> BatchEnd:
        """Wait a while for whoever has taken a batch over to end it."""
        deadline = time.monotonic() + TAKEN_OVER_PATIENCE_S
        while True:
            end = await asyncio.to_thread(read_end, self.db, batch_id)
            if end.settled or time.monotonic() > deadline:
                return end
            await asyncio.sleep(TAKEN_OVER_POLL_S)


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """Return what made a task group fail first; the rest follows from it."""
    error: Exception = errors
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
