"""The trigger of a deferred batch: it supervises in the triggerer and emits one event.

Outcomes are recorded here, without waiting for a worker.  Whoever runs a trigger has a claim of
his own, so that a triggerer that was stalled and replaced can neither record nor cancel.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import BaseTrigger, TriggerEvent

from muster.backends import Backends
from muster.backends.kubernetes.connect import use_connections
from muster.errors import ClaimLost
from muster.jobs.supervision.batch_end import BatchEnd, read_end
from muster.jobs.supervision.retry_transient import retry_while_transient
from muster.jobs.supervision.supervisor import Supervisor
from muster.store.database import Database
from operators.cluster_connection import load_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WATCH_INTERVAL_S = 15.0
SHORTEST_S = 10.0
"""An event sooner than this after the deferral is lost to a race in the scheduler."""
LOG_DRAINS_S = 5.0
"""Airflow closes a trigger's log when the trigger ends: what is on its way there is lost to it."""
ASK_PATIENCE_S = 300.0
ASK_AGAIN_S = 5.0
"""Airflow takes ten seconds for the first question of a triggerer, a minute on a busy machine."""

ENDED_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""Airflow's states in which a task stays."""

_SHARED: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Database, Backends]] = (
    WeakKeyDictionary()
)
"""What all triggers of a triggerer share: a few connections, and one look at each cluster."""

_ASKING = asyncio.Lock()
"""One question at a time: each occupies a thread, and the store's calls need some."""

_ENDING: set[asyncio.Task[None]] = set()
"""What goes on when Airflow's patience with ``on_kill`` (30 s) is at its end."""


def _shared() -> tuple[Database, Backends]:
    loop = asyncio.get_running_loop()
    if loop not in _SHARED:
        db = Database.from_environment()
        use_connections(load_connection)
        _SHARED[loop] = db, Backends(db)
    return _SHARED[loop]


class BatchTrigger(BaseTrigger):
    """Supervises one batch.

    Parameters
    ----------
    batch_id : str
        The batch.
    shortest_s : float
        Seconds before which no event is sent.
    """

    def __init__(self, batch_id: str, shortest_s: float = SHORTEST_S) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch_id = batch_id
        self.shortest_s = shortest_s
        self._supervisor: Supervisor | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Say how this trigger is made again elsewhere."""
        arguments = {"batch_id": self.batch_id, "shortest_s": self.shortest_s}
        return "operators.trigger.BatchTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Supervise to the end, then send the one event."""
        started = asyncio.get_running_loop().time()
        db, backends = _shared()
        try:
            self._supervisor = await Supervisor.take_over(
                db, self.batch_id, backends, tell_logs=True
            )
            end = await self._supervisor.run()
        except ClaimLost:
            # Another triggerer supervises it now (Airflow then cancels this coroutine), or the
            # reconciler has ended it: a return without an event would fail the task either way.
            end = await self._watch(db)
        elapsed_s = asyncio.get_running_loop().time() - started
        await asyncio.sleep(max(LOG_DRAINS_S, self.shortest_s - elapsed_s))
        yield TriggerEvent({"batch": self.batch_id, "succeeded": end.succeeded})  # type: ignore[no-untyped-call]

    async def _watch(self, db: Database) -> BatchEnd:
        """Wait until whoever has taken the batch over has ended it."""
        while True:
            end = await retry_while_transient(
                lambda: asyncio.to_thread(read_end, db, self.batch_id)
            )
            if end.over:
                return end
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def on_kill(self) -> None:
        """End what the batch has open, if its task has ended and this trigger still has the say."""
        if self._supervisor is None:
            return
        ending = asyncio.create_task(self._end_open(self._supervisor))
        _ENDING.add(ending)
        ending.add_done_callback(_ENDING.discard)
        await asyncio.shield(ending)

    async def _end_open(self, supervisor: Supervisor) -> None:
        """Cancel; but what is to run again goes on, and whoever runs it takes it over.

        Airflow tells a trigger of a task that was cleared, or given to another triggerer, no other
        thing than that of one that was marked failed.
        """
        told = False
        try:
            while await self._will_run_again():
                if not told:
                    self.log.info("%s goes on: its task is to run again", self.batch_id)
                    told = True
                await retry_while_transient(supervisor.look)
                await asyncio.sleep(WATCH_INTERVAL_S)
            await supervisor.cancel("kill")
        except ClaimLost:
            self.log.info("%s was taken over: nothing is cancelled", self.batch_id)

    async def _will_run_again(self) -> bool:
        """Ask Airflow whether the task has not ended; what is not known is asked again."""
        task = self.task_instance
        if task is None:
            return False
        told = False
        try:
            async with asyncio.timeout(ASK_PATIENCE_S), _ASKING:
                while True:
                    try:
                        states = await asyncio.to_thread(
                            RuntimeTaskInstance.get_task_states,
                            dag_id=task.dag_id,
                            task_ids=[task.task_id],
                            run_ids=[task.run_id],
                            map_index=task.map_index,
                        )
                        break
                    except Exception as error:  # whatever it is, the next answer may be one
                        if not told:
                            self.log.warning("Airflow does not say how the task is: %r", error)
                            told = True
                        await asyncio.sleep(ASK_AGAIN_S)
        except TimeoutError:
            self.log.warning("Airflow has not said how the task is: it is taken to have ended")
            return False
        found = [state for tasks in states.values() for state in tasks.values()]
        return any(state not in ENDED_STATES for state in found)
