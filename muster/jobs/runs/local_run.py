"""A whole run in this process: the same plan, batches and supervisors as in Airflow, without it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from muster.backends import Backends
from muster.errors import MusterError
from muster.jobs.planning.plan_run import freeze_plan, open_run
from muster.jobs.runs.detached import check_detachable, submit_detached
from muster.jobs.runs.follow_run import RunFollower
from muster.jobs.runs.verdict import Verdict, give_verdict
from muster.model.outcome import Outcome
from muster.store import batches, claims, runs
from muster.store.records import RunState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime

    from muster.jobs.planning.freeze import Group
    from muster.jobs.planning.workflow import Workflow
    from muster.jobs.runs.detached import Submitted
    from muster.jobs.runs.follow_run import Told
    from muster.site import Site
    from muster.store.database import Database

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
        self._follower = RunFollower(db, self._backends, workflow, tell)

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
        try:
            async with self._opened(params, interval) as inspection:
                await self._follower.follow(await self._plan(inspection))
        finally:
            await self._backends.close()
        return await asyncio.to_thread(give_verdict, self.db, self.run_id, leave_cancelled=True)

    async def submit(
        self, params: Mapping[str, Any], interval: tuple[datetime, datetime] | None = None
    ) -> list[Submitted] | Verdict:
        """Inspect and plan, then submit everything at once, to be left alone.

        Returns
        -------
        list of Submitted, or Verdict
            What was submitted; the verdict where there was nothing to submit.

        Raises
        ------
        ConfigError
            When a parameter is wrong, or a step is placed where nothing outlives this process.
        """
        try:
            async with self._opened(params, interval) as inspection:
                groups = await self._plan(inspection)
                await check_detachable(self.db, groups)
            # From here on nothing is taken back: what was submitted goes on.
            done = await submit_detached(self.db, self._backends, self.workflow, groups)
        finally:
            await self._backends.close()
        if done:
            return done
        return await asyncio.to_thread(give_verdict, self.db, self.run_id)

    @asynccontextmanager
    async def _opened(
        self, params: Mapping[str, Any], interval: tuple[datetime, datetime] | None
    ) -> AsyncIterator[str]:
        """Open the run, and end it early where it cannot go on."""
        inspection = await asyncio.to_thread(
            open_run, self.db, self.site, self.workflow, self.run_id, params, interval
        )
        log.info("run %s", self.run_id)  # so that what was interrupted can be found again
        try:
            yield inspection
        except asyncio.CancelledError:
            await self._end_early(RunState.CANCELLED, "interrupted")
            raise
        except MusterError as error:
            await self._end_early(RunState.FAILED, str(error))
            raise

    async def _plan(self, inspection: str) -> list[Group]:
        """Look at the inputs and freeze what is to be done; nothing where that failed."""
        self._follower.unbegun = {inspection}
        end = await self._follower.supervise("inputs", self.workflow.inspect, inspection)
        if not end.succeeded:
            return []
        groups = await asyncio.to_thread(freeze_plan, self.db, self.site, self.run_id)
        self._follower.unbegun = {batch for group in groups for batch in group.batches.values()}
        return groups

    async def _end_early(self, state: RunState, message: str) -> None:
        """Cancel what was never begun, and record that the run is over."""
        for batch_id in self._follower.unbegun:
            claim = await asyncio.to_thread(claims.take_claim, self.db, batch_id)
            await asyncio.to_thread(claims.request_cancel, self.db, claim, "person")
            await asyncio.to_thread(
                batches.record_stopped, self.db, claim, Outcome.CANCELLED.value, message
            )
        await asyncio.to_thread(runs.end_run, self.db, self.run_id, state, message)
