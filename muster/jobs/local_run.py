"""A whole run in this process: the same plan, batches and supervisors as in Airflow, without it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from muster.backends import open_backend
from muster.jobs.supervise import BatchEnd, Supervisor
from muster.jobs.verdict import Verdict, give_verdict
from muster.jobs.workflow import Group, Workflow, freeze_plan, open_run
from muster.store import batches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from muster.backends.contract import Backend
    from muster.site import Site
    from muster.store.database import Database

    Told = Callable[[str, str, str], None]

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
        self._backends: dict[str, Backend] = {}

    async def run(
        self, params: Mapping[str, Any], interval: tuple[datetime, datetime] | None = None
    ) -> Verdict:
        """Inspect, plan, compute, and judge.

        Raises
        ------
        ConfigError
            When a parameter is wrong; nothing has run then.
        """
        inspection = await asyncio.to_thread(
            open_run, self.db, self.site, self.workflow, self.run_id, params, interval
        )
        end = await self._supervise("inputs", self.workflow.inspect, inspection)
        if not end.succeeded:
            log.error("%s", end.describe())
            return await asyncio.to_thread(give_verdict, self.db, self.run_id)
        groups: list[Group] = await asyncio.to_thread(freeze_plan, self.db, self.site, self.run_id)
        async with asyncio.TaskGroup() as tasks:
            for group in groups:
                tasks.create_task(self._run_group(group))
        return await asyncio.to_thread(give_verdict, self.db, self.run_id)

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
        claim = await asyncio.to_thread(batches.take_claim, self.db, batch_id)
        batch = await asyncio.to_thread(batches.read_spec, self.db, batch_id)
        backend = self._backends.setdefault(batch.backend, open_backend(batch.backend))
        supervisor = Supervisor(self.db, backend, claim)
        try:
            end = await supervisor.run()
        except asyncio.CancelledError:
            await supervisor.cancel()
            raise
        self.tell(group, step, "succeeded" if end.succeeded else end.failures[0].state)
        return end
