"""A work directory with its store, as old as a test wants it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from muster.jobs.retention.retention import Clearance, _Clearing, clean_work
from muster.model.batch import Batch, Element
from muster.model.outcome import Outcome
from muster.model.plan import Decision, Plan, PlannedElement
from muster.model.resources import Resources
from muster.site import Site
from muster.store import batches, claims, runs
from muster.store.records import AttemptEnd, RunState

if TYPE_CHECKING:
    from pathlib import Path

    from muster.store.database import Database

HEX = "0123456789abcdef"
LONG_AGO = 40
LATELY = 2


@dataclass
class Bench:
    """A work directory with its store."""

    db: Database
    work: Path
    kept: dict[str, str]

    @property
    def site(self) -> Site:
        placed = {f"traits.{name}": {"pool": "local"} for name in STEPS}
        return Site.model_validate(
            {
                "name": "bench",
                "work": str(self.work),
                "pools": {"local": {"backend": "local", "slots": 1}},
                "placement": placed,
                "retention": self.kept,
            }
        )

    def clean(self, **options: Any) -> Clearance:
        return clean_work(self.db, self.site, **options)

    def gone(self, **options: Any) -> set[str]:
        return {removal.found.name for removal in self.clean(**options).removals}

    def act_later(self, planned: Clearance) -> Clearance:
        """Do what was planned a while ago."""
        return _Clearing(self.db, self.site, datetime.now(UTC)).act(planned)

    def file(self, name: str, days: float = LONG_AGO, size: int = 10) -> Path:
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        age(path, days)
        return path

    def band(self, task: str, days: float = LONG_AGO, trait: str = "height") -> Path:
        return self.file(f"bands/default/static/{trait}/{task}-{HEX}.tif", days)

    def run(self, name: str, days: float = LONG_AGO, state: str = "failed") -> Path:
        """Record a run with a batch, and give it a folder."""
        folder = self.work / "runs" / name
        runs.open_run(self.db, name, workflow="trait_inference", params={}, work_uri=str(folder))
        runs.create_batches(self.db, [("height", self.batch(name))])
        if state not in ("open", "planned"):
            runs.end_run(self.db, name, RunState(state), "over")
        with self.db.transaction() as cursor:
            cursor.execute(
                "UPDATE run SET state = %s, created_at = now() - %s, ended_at = ended_at - %s"
                " WHERE id = %s",
                (state, timedelta(days=days), timedelta(days=days), name),
            )
        for part in ("plan.json", "batches/a/logs/0/1.log", "batches/a/fence/0"):
            self.file(f"runs/{name}/{part}")
        return folder

    def batch(self, run: str, *named: Path, looks: bool = False) -> Batch:
        folder = self.work / "runs" / run / "batches" / "a"
        return Batch(
            id=f"{run}.traits.build.height",
            run=run,
            step="traits.build",
            backend="local",
            pool="local",
            resources=Resources(),
            elements=(Element(index=0, name="height", inputs={"bands": [str(p) for p in named]}),),
            work_uri=str(folder),
            pool_uri=str(self.work / "pools" / "local"),
            looks=looks,
        )

    def attempt(self, run: str, outcome: str | None) -> None:
        """Let an element of the run have an attempt, ended where an outcome is given."""
        batch = self.batch(run)
        claim = claims.take_claim(self.db, batch.id)
        (element,) = batches.read_elements(self.db, batch.id)
        wave = {element.id: (1, Resources(), batch.log_uri(0, 1))}
        batches.intend_submission(self.db, claim, wave)
        if outcome is not None:
            (element,) = batches.read_elements(self.db, batch.id)
            batches.record_ends(
                self.db, claim, [AttemptEnd(element.attempts[0].id, Outcome(outcome))]
            )
        self.forget_signs_of_life(run)

    def forget_signs_of_life(self, run: str, days: float = LONG_AGO) -> None:
        with self.db.transaction() as cursor:
            cursor.execute(
                "UPDATE batch SET claimed_at = now() - %s, heartbeat_at = now() - %s"
                " WHERE run_id = %s",
                (timedelta(days=days), timedelta(days=days), run),
            )

    def events(self, run: str) -> list[str]:
        with self.db.transaction() as cursor:
            cursor.execute(
                "SELECT message FROM event WHERE run_id = %s AND kind = 'retention'", (run,)
            )
            return [row[0] for row in cursor.fetchall()]


STEPS = ("inspect", "predict", "cov", "aoa", "build")


def age(path: Path, days: float) -> None:
    at = time.time() - days * 86400
    os.utime(path, (at, at), follow_symlinks=False)


def plan_of(bench: Bench, decision: Decision, *bands: Path) -> Plan:
    """Make a plan that names bands: all reused, so that no batch does."""
    elements = [
        PlannedElement(
            step="traits.predict", name=f"t{i}", group=f"t{i}", decision=decision,
            reason="there", inputs={"a": 1}, outputs={"prediction": str(band)},
        )
        for i, band in enumerate(bands)
    ]  # fmt: skip
    return Plan(workflow="trait_inference", elements=tuple(elements))


PARAMS = {
    "traits": ["height"],
    "predictors": ["/data/stack.tif"],
    "models": "/data/models",
    "output": "/data/maps",
}
