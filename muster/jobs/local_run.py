"""A whole run in this process: the same plan, batches and supervisors as in Airflow, without it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from muster.backends import Backends
from muster.errors import MusterError
from muster.jobs.follow_run import RunFollower
from muster.jobs.outcome import Outcome
from muster.jobs.verdict import Verdict, give_verdict
from muster.jobs.workflow import Group, Workflow, freeze_plan, open_run
from muster.store import batches, claims, runs
from muster.store.records import RunState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from muster.jobs.follow_run import Told
    from muster.site import Site
    from muster.store.database import Database


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
        inspection = await asyncio.to_thread(
            open_run, self.db, self.site, self.workflow, self.run_id, params, interval
        )
        try:
            await self._run(inspection)
        except asyncio.CancelledError:
            await self._end_early(RunState.CANCELLED, "interrupted")
            raise
        except MusterError as error:
            await self._end_early(RunState.FAILED, str(error))
            raise
        finally:
            await self._backends.close()
        return await asyncio.to_thread(give_verdict, self.db, self.run_id)

    async def _run(self, inspection: str) -> None:
        self._follower.unbegun = {inspection}
        end = await self._follower.supervise("inputs", self.workflow.inspect, inspection)
        if not end.succeeded:
            return
        groups: list[Group] = await asyncio.to_thread(freeze_plan, self.db, self.site, self.run_id)
        await self._follower.follow(groups)

    async def _end_early(self, state: RunState, message: str) -> None:
        """Cancel what was never begun, and record that the run is over."""
        for batch_id in self._follower.unbegun:
            claim = await asyncio.to_thread(claims.take_claim, self.db, batch_id)
            await asyncio.to_thread(claims.request_cancel, self.db, claim, "person")
            await asyncio.to_thread(
                batches.record_stopped, self.db, claim, Outcome.CANCELLED.value, message
            )
        await asyncio.to_thread(runs.end_run, self.db, self.run_id, state, message)
