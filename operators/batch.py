"""The operator of a batch: it claims, supervises here or defers, and says how the batch ended.

A retry of Airflow's, or a cleared task, calls ``execute`` afresh: it takes the batch over with what
runs and what has ended, and only what is missing is submitted.  Airflow's own retries are for
faults of Airflow; when a batch has ended badly there is nothing left to retry, and the task fails
for good.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from muster.backends import Backends
from muster.backends.registry import BACKENDS
from muster.jobs.runs.follow_run import renew_where_overtaken
from muster.jobs.supervision.batch_end import BatchEnd, read_end
from muster.jobs.supervision.supervisor import Supervisor
from muster.model.logs import log_of
from muster.model.outcome import Outcome
from muster.store import batches, claims
from muster.store.database import Database
from operators.trigger import BatchTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from muster.model.batch import Batch
    from muster.store.records import Claim

LOG_LINES = 100
LOG_BYTES = 65536
LINE_CHARACTERS = 1000
LOGS = 5


class BatchOperator(BaseOperator):
    """Runs one batch of a step.

    Parameters
    ----------
    step : str
        Dotted name of the step.
    batch : dict
        What the plan made of the group: ``group``, ``run``, ``batches`` (step → batch id) and
        ``skipped`` (step → reason).  None where there is no plan.
    """

    template_fields: Sequence[str] = ("batch",)
    ui_color = "#e8f0e4"

    def __init__(self, *, step: str, batch: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step = step
        self.batch = batch
        self._loop: asyncio.AbstractEventLoop | None = None
        self._supervision: asyncio.Task[BatchEnd] | None = None

    def execute(self, context: Context) -> Any:
        """Take the batch over and bring it to its end, here or deferred."""
        if self.batch is None:  # it runs whatever became of the plan
            raise self._skipped("the run has no plan")
        batch_id = self.batch["batches"].get(self.step)
        if batch_id is None:
            raise self._skipped(self.batch["skipped"].get(self.step, "not planned"))
        db = Database.from_environment()
        batch = batches.read_spec(db, batch_id)
        if renew_where_overtaken(db, batch):
            self.log.info("%s: what it comes after was made anew, so it runs again", batch.id)
        if BACKENDS[batch.backend].outlives_supervisor:
            self._take_claim(context, db, batch)
            self.log.info(
                "%s: %d elements for pool %s, from now on supervised by the triggerer",
                *(batch.id, len(batch.elements), batch.pool),
            )
            self.defer(trigger=BatchTrigger(batch_id), method_name="resume")
        end = asyncio.run(self._supervise(db, batch_id, context["ti"].max_tries))
        return self._conclude(batch, end)

    def resume(self, context: Context, event: dict[str, Any]) -> Any:
        """Say how a deferred batch ended; the trigger has recorded it."""
        db = Database.from_environment()
        batch = batches.read_spec(db, event["batch"])
        return self._conclude(batch, read_end(db, batch.id))

    def on_kill(self) -> None:
        """End what the batch has open, where this task still has the say."""
        if self._loop is not None and self._supervision is not None:
            self._loop.call_soon_threadsafe(self._supervision.cancel)

    def _take_claim(self, context: Context, db: Database, batch: Batch) -> Claim:
        """Take the claim of a batch that the triggerer is to supervise."""
        return claims.take_claim(db, batch.id, max_tries=context["ti"].max_tries)

    async def _supervise(self, db: Database, batch_id: str, max_tries: int) -> BatchEnd:
        supervisor = await Supervisor.take_over(
            db, batch_id, Backends(db), max_tries=max_tries, tell_logs=True
        )
        self._loop = asyncio.get_running_loop()
        self._supervision = asyncio.create_task(supervisor.run())
        try:
            return await self._supervision
        except asyncio.CancelledError:
            self.log.info("killed: cancelling %s", batch_id)
            end = await supervisor.cancel("kill")
            if end.succeeded:
                return end
            # Where a person marked the task, Airflow asks for no other try; where it only took the
            # task for an orphan, or the worker was stopped, it does.
            raise AirflowException(f"killed: {end.describe()}") from None

    def _conclude(self, batch: Batch, end: BatchEnd) -> dict[str, Any]:
        self._log_attempts(batch, end)
        if end.succeeded:
            self.log.info("%s: %s", batch.id, end.describe())
            return {"batch": batch.id, "elements": len(end.elements)}
        if not batch.looks and all(e.state == Outcome.MISSING_INPUT for e in end.failures):
            raise self._skipped(end.describe())
        raise AirflowFailException(end.describe())

    def _skipped(self, reason: str) -> AirflowSkipException:
        """Make what skips the task; the log says why, as Airflow's own line does not."""
        self.log.info("skipped: %s", reason)
        return AirflowSkipException(reason)

    def _log_attempts(self, batch: Batch, end: BatchEnd) -> None:
        """Write what is left to tell of the elements' logs, and where they are; failures first."""
        order = sorted(range(len(end.elements)), key=lambda i: end.elements[i] not in end.failures)
        for index in order[:LOGS]:
            element = end.elements[index]
            if not element.attempts:
                continue
            part = log_of(batch, index, element.attempts)
            self.log.info("log of %s, attempt %d: %s", element.name, element.attempts, part.uri)
            size = part.size()
            untold = size - element.log_told
            if untold > 0:
                text = part.read(size - min(untold, LOG_BYTES)).decode("utf-8", "replace")
                lines = text.splitlines()
                if untold > LOG_BYTES or len(lines) > LOG_LINES:
                    self.log.info("| … the end of it:")
                for line in lines[-LOG_LINES:]:
                    self.log.info("| %s", line[:LINE_CHARACTERS])


class LocalBatchOperator(BatchOperator):
    """Runs batches on this machine, in the task itself: never deferred."""

    ui_color = BACKENDS["local"].colour


class SlurmBatchOperator(BatchOperator):
    """Runs batches on a Slurm cluster: deferred, and supervised by the triggerer."""

    ui_color = BACKENDS["slurm"].colour
