"""A run of the DAG of bare batches on a cluster, and what must hold of it in the end."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from muster.errors import MissingInput
from muster.store import batches, runs
from tests.batches import make_batch

if TYPE_CHECKING:
    from pathlib import Path

    from muster.model.batch import Batch
    from tests.integration.airflow.slurm.conftest import OnSlurm


class ClusterRun:
    """One run with as many batches as there are lists of wishes, each element with its own text.

    Parameters
    ----------
    wishes : list of list of dict
        What each element of each batch is to do, as the inputs of ``step``.
    hold : bool
        Whether the tasks stay inside ``execute`` as long as the file ``hold`` is there.
    """

    dag_id = "slurm_batches"

    def __init__(
        self,
        muster: OnSlurm,
        folder: Path,
        wishes: list[list[dict[str, Any]]],
        *,
        hold: bool = False,
        **options: Any,
    ) -> None:
        self.muster = muster
        self.folder = folder
        self.ledger = folder / "ledger"
        self.hold = folder / "hold"
        self.name = re.sub("[^A-Za-z0-9]+", "-", "-".join(folder.parts[-2:]))
        self.task_id = "run_held" if hold else "run_batches"
        self.batches = [
            self._make_batch(number, elements, options) for number, elements in enumerate(wishes)
        ]
        runs.open_run(muster.db, self.name, workflow="test", params={}, work_uri=str(folder))
        runs.create_batches(muster.db, [(f"g{n}", batch) for n, batch in enumerate(self.batches)])

    def _make_batch(
        self, number: int, wishes: list[dict[str, Any]], options: dict[str, Any]
    ) -> Batch:
        name = f"{self.name}-{number}"
        batch = self._place_batch(wishes, {"name": name, **options})
        return batch.model_copy(update={"run": self.name, "id": f"{name}.b", "pool": "genoa"})

    def _place_batch(self, wishes: list[dict[str, Any]], options: dict[str, Any]) -> Batch:
        place = self.muster.site.pools["genoa"].target(self.muster.site)
        return make_batch(self.folder, wishes, slurm=place, **options)

    @property
    def batch(self) -> Batch:
        """The only batch."""
        (batch,) = self.batches
        return batch

    def start(self) -> None:
        told = [
            {
                "group": f"g{number}",
                "run": self.name,
                "batches": {"test.step": batch.id},
                "skipped": {},
                "hold": str(self.hold),
            }
            for number, batch in enumerate(self.batches)
        ]
        key = self.task_id.removeprefix("run_")
        self.run_id = self.muster.api.trigger(self.dag_id, {key: told})

    def end(self, patience_s: float = 300.0) -> str:
        return self.muster.api.wait_for_run(self.dag_id, self.run_id, patience_s).state

    def task_states(self) -> Counter[str]:
        tasks = self.muster.api.task_instances(self.dag_id, self.run_id)
        return Counter(task.state for task in tasks if task.task_id == self.task_id)

    def task_log(self, number: int = 0, try_number: int | None = None) -> str:
        """Return what the page shows; nothing as long as the task is not there."""
        address = (self.task_id, number)
        try:
            return self.muster.api.task_log(self.dag_id, self.run_id, address, try_number)
        except MissingInput:
            return ""

    def wait_deferred(self) -> None:
        wanted = Counter(deferred=len(self.batches))
        self.muster.wait(lambda: self.task_states() == wanted)

    def mark(self, state: Any) -> None:
        self.muster.api.set_task_state(self.dag_id, self.run_id, (self.task_id, 0), state)

    def clear(self) -> None:
        self.muster.api.clear(self.dag_id, self.run_id, [self.task_id])

    def queue(self) -> list[tuple[str, str]]:
        """Return the jobs of this run that wait or run: name and state."""
        return self.muster.queue(f"{self.name}-")

    def running(self) -> list[str]:
        return [name for name, state in self.queue() if state == "RUNNING"]

    def lines(self) -> list[str]:
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def outcomes(self) -> list[list[str | None]]:
        """Return each element's attempts by their outcome, None of those that are open."""
        return [
            [a.outcome.value if a.outcome else None for a in element.attempts]
            for batch in self.batches
            for element in batches.read_elements(self.muster.db, batch.id)
        ]

    def submissions(self) -> list[str]:
        """Return the keys of all that was ever submitted."""
        with self.muster.db.transaction() as cursor:
            cursor.execute(
                "SELECT key FROM submission WHERE batch_id = ANY(%s) ORDER BY id",
                ([batch.id for batch in self.batches],),
            )
            return [row[0] for row in cursor.fetchall()]

    def generations(self) -> list[int]:
        with self.muster.db.transaction() as cursor:
            cursor.execute(
                "SELECT generation FROM batch WHERE id = ANY(%s) ORDER BY id",
                ([batch.id for batch in self.batches],),
            )
            return [row[0] for row in cursor.fetchall()]

    def claims(self) -> int:
        """Count how often a batch of this run was taken over."""
        with self.muster.db.transaction() as cursor:
            cursor.execute(
                "SELECT count(*) FROM event WHERE kind = 'claimed' AND batch_id = ANY(%s)",
                ([batch.id for batch in self.batches],),
            )
            row = cursor.fetchone()
        assert row is not None
        return int(row[0])

    def heartbeat_age_s(self) -> float:
        """Return since when nobody has supervised the batch, in seconds."""
        with self.muster.db.transaction() as cursor:
            cursor.execute(
                "SELECT extract(epoch FROM now() - heartbeat_at) FROM batch WHERE id = %s",
                (self.batch.id,),
            )
            row = cursor.fetchone()
        assert row is not None
        return float(row[0])

    def degraded(self) -> str | None:
        """Return what the batch waits for because it does not answer."""
        with self.muster.db.transaction() as cursor:
            cursor.execute("SELECT degraded FROM batch WHERE id = %s", (self.batch.id,))
            row = cursor.fetchone()
        assert row is not None
        said: str | None = row[0]
        return said

    def check_whole(self) -> None:
        """Check what must hold however often something was killed."""
        elements = [element for batch in self.batches for element in batch.elements]
        assert [o.count("succeeded") for o in self.outcomes()] == [1] * len(elements)
        assert all(None not in attempts for attempts in self.outcomes()), "nothing is open"
        done = Counter(line for line in self.lines() if line.startswith("done "))
        assert done == Counter(f"done {e.inputs['text']}" for e in elements), "once, and no more"
        names = sorted(p.name for p in (self.folder / "products").iterdir())
        assert all(name.endswith(".txt") for name in names), names
        assert len(names) == len(elements)
        assert self.queue() == [], "nothing is left on the cluster"


def write(folder: Path, seconds: float, count: int = 2, batch: int = 0) -> list[dict[str, Any]]:
    """Wish for elements that take a while each and leave a line in the run's ledger."""
    ledger = str(folder / "ledger")
    return [{"text": f"t{batch}.{i}", "seconds": seconds, "ledger": ledger} for i in range(count)]
