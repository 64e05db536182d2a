"""A campaign of many elements on a scripted cluster, planned and supervised as a real one.

Realizations by redshifts, as a cosmologist makes them; nothing of them is computed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster import storage
from muster.backends import Backends
from muster.backends.remote.transport import SharedFiles, Transport
from muster.backends.slurm.backend import SlurmBackend
from muster.backends.slurm.client import CommandClient
from muster.config import parse_config, render_time
from muster.jobs.supervision.retry import BackOff
from muster.jobs.supervision.supervisor import Supervisor
from muster.model.plan import Decision, Plan, PlannedElement, PlannedPlacement
from muster.model.slurm_target import SlurmTarget
from muster.site import Site
from muster.store import batches, claims, runs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from muster.backends.contract import Backend
    from muster.jobs.supervision.batch_end import BatchEnd
    from muster.model.batch import Batch
    from muster.store.database import Database

STEP = "traits.predict"
"""A step that every installation has: nothing here runs it."""
REDSHIFTS = 20
RUN = "campaign"


@dataclass(frozen=True)
class Pace:
    """How the supervisors' times are scaled with those of the cluster.

    Attributes
    ----------
    speed : float
        Seconds of the cluster in a second on the wall.
    poll_every_s, result_grace_s : int
        As in the site file, in seconds of the cluster.
    submissions_per_s : float
        In a second of the cluster.
    """

    speed: float
    poll_every_s: int = 30
    result_grace_s: int = 60
    submissions_per_s: float = 1.0

    @property
    def poll_wall_s(self) -> int:
        """Between two looks, on the wall."""
        return max(1, round(self.poll_every_s / self.speed))

    @property
    def back_off(self) -> BackOff:
        """That of the supervisor, scaled."""
        usual = BackOff()
        return BackOff(usual.first_s / self.speed, usual.longest_s / self.speed)


def make_site(folder: Path, pace: Pace, slots: int) -> Site:
    """Make a site whose one pool is on the scripted cluster."""
    cluster = {
        "poll_every": render_time(pace.poll_wall_s),
        "result_grace": render_time(max(1, round(pace.result_grace_s / pace.speed))),
        "submissions_per_s": pace.submissions_per_s * pace.speed,
    }
    pool = {"backend": "slurm", "partition": "genoa", "slots": slots,
            "max_memory": "64GiB", "max_time": "1-00:00:00"}  # fmt: skip
    placement = {"pool": "cpu", "cpus": 4, "memory": "4GiB", "time": "02:00:00"}
    return parse_config(
        Site,
        {
            "name": "scripted",
            "work": str(folder / "work"),
            "pools": {"cpu": pool},
            "clusters": {"slurm": cluster},
            "placement": {STEP: placement},
        },
        "scripted.toml",
    )


def plan_elements(folder: Path, count: int, batch_size: int) -> list[PlannedElement]:
    """List elements, in groups of a batch each."""
    elements = []
    for number in range(count):
        realization, redshift = divmod(number, REDSHIFTS)
        z = 0.1 * redshift
        name = f"r{realization:04}_z{z:.2f}"
        elements.append(
            PlannedElement(
                step=STEP,
                name=name,
                group=f"part-{number // batch_size:03}",
                decision=Decision.RUN,
                reason="never made",
                inputs={
                    "campaign": str(folder / "campaigns" / "bright-v3.yaml"),
                    "halos": str(folder / "halos" / f"r{realization:04}" / f"z{z:.2f}.hdf5"),
                    "realization": realization,
                    "redshift": z,
                    "seed": 7_000_000 + number,
                },
                outputs={
                    "catalogue": str(folder / "mocks" / f"r{realization:04}" / f"{name}.hdf5")
                },
            )
        )
    return elements


def write_plan(
    db: Database,
    site: Site,
    elements: Sequence[PlannedElement],
    placements: Sequence[PlannedPlacement] = (),
) -> None:
    """Open the run and leave its plan, as an inspection would."""
    work_uri = storage.join(site.work_uri, "runs", RUN)
    runs.open_run(db, RUN, workflow="mock_campaign", params={}, work_uri=work_uri)
    plan = Plan(
        workflow="mock_campaign",
        elements=tuple(elements),
        facts={"redshifts": REDSHIFTS},
        placements=tuple(placements),
    )
    storage.write_text(storage.join(work_uri, "plan.json"), plan.model_dump_json())


class ScriptedBackends(Backends):
    """Opens every batch on one scripted cluster."""

    def __init__(self, db: Database, transport: Transport) -> None:
        super().__init__(db)
        self._transport = transport

    def open(self, batch: Batch) -> Backend:
        """Open the one backend, as :func:`muster.backends.slurm.backend.open_slurm` does."""
        if "scripted" not in self._open:
            assert isinstance(batch.target, SlurmTarget)
            cluster = batch.target.cluster
            client = CommandClient(self._transport, self._db, cluster.name)
            backend = SlurmBackend(self._db, cluster, client, SharedFiles(), self._transport)
            self._open["scripted"] = backend
        return self._open["scripted"]


async def supervise(
    db: Database, ids: Sequence[str], backends: Backends, pace: Pace
) -> list[BatchEnd]:
    """Supervise batches to their ends, each in a task of its own, as a triggerer does."""

    async def one(batch_id: str) -> BatchEnd:
        claim = await asyncio.to_thread(claims.take_claim, db, batch_id)
        batch = await asyncio.to_thread(batches.read_spec, db, batch_id)
        supervisor = Supervisor(
            db, backends.open(batch), claim, back_off=pace.back_off, tell_logs=True
        )
        return await supervisor.run()

    return await asyncio.gather(*(one(batch_id) for batch_id in ids))
