"""Campaigns of mocks on a real Slurm: every fault is found, told by its class, and counted."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from muster.mocks.coordinates import Coordinate
from muster.store.campaign_state import read_campaign_elements
from muster.store.campaigns import find_campaign
from muster.store.database import Database
from tests.batches import STEPS_FOLDER, add_steps_to_path
from tests.conftest import fresh_database
from tests.integration.slurm.campaign import start_bare
from tests.mock_campaigns import write_campaign, write_haloes
from tests.system.desk import Desk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from minislurm.cluster import SlurmCluster

pytest.importorskip("h5py", reason="h5py is not installed: make mocks")
pytestmark = [pytest.mark.slurm, pytest.mark.slow]

POPULATE = "mocks.populate"
PATIENT = {"SlurmdTimeout": "300", "SlurmctldTimeout": "300", "MessageTimeout": "60"}
TRIED_AGAIN = 1
"""max_retries of the campaigns."""

SITE = """
[clusters.mini]
poll_every = "00:00:01"
result_grace = "00:00:05"
submissions_per_s = 20
environment = {{ PYTHONPATH = "{pythonpath}" }}

[pools]
look = {{ backend = "local", slots = 2 }}
genoa = {{ backend = "slurm", partition = "genoa", slots = {slots}, account = "pool", max_memory = "3GiB" }}

[job_types]
small = {{ pool = "genoa", cpus = 1, memory = "2GiB", time = "00:20:00" }}

[placement]
"mocks.inspect"  = {{ pool = "look" }}
"mocks.populate" = {{ pool = "look" }}
"mocks.collect"  = {{ pool = "look" }}
"mocks.qa"       = {{ pool = "look" }}
"mocks.manifest" = {{ pool = "look" }}
"""  # noqa: E501


@dataclass(frozen=True)
class End:
    """How a catalogue is to end.

    Attributes
    ----------
    state, outcome, error_class
        As the record has them.
    attempts : int
        By the record.
    begun : int
        Attempts that came as far as the galaxy model, by the ledger.
    """

    state: str = "completed"
    outcome: str = "succeeded"
    error_class: str | None = None
    attempts: int = 1
    begun: int = 1


FINE = End()
MISSING = End("missing_input", "missing_input", None, 0, 0)
CORRUPT = End("failed", "invalid_input", "ValidationError", 1, 0)
MASSLESS = End("failed", "software_error", "InvalidCatalogue", 1 + TRIED_AGAIN, 1 + TRIED_AGAIN)
CRASH = End("failed", "software_error", "SIGABRT", 1 + TRIED_AGAIN, 1 + TRIED_AGAIN)
ONCE = End(attempts=2, begun=2)


@dataclass(frozen=True)
class Plan:
    """Realizations with faults: MISSING and CORRUPT at the last redshift, the others at all."""

    realizations: int
    redshifts: tuple[float, ...]
    missing: tuple[int, ...] = ()
    corrupt: tuple[int, ...] = ()
    massless: tuple[int, ...] = ()
    crash: tuple[int, ...] = ()
    once: tuple[int, ...] = ()

    def ends(self) -> dict[Coordinate, End]:
        """Return how each catalogue is to end."""
        ends = {Coordinate(r, z): FINE for r in range(self.realizations) for z in self.redshifts}
        for harmed, end in ((self.massless, MASSLESS), (self.crash, CRASH), (self.once, ONCE)):
            ends |= {Coordinate(r, z): end for r in harmed for z in self.redshifts}
        for harmed, end in ((self.missing, MISSING), (self.corrupt, CORRUPT)):
            ends |= {Coordinate(r, self.redshifts[-1]): end for r in harmed}
        return ends

    def write(self, folder: Path, **said: Any) -> Path:
        """Write the haloes, an empty ledger, and the campaign file."""
        box = write_haloes(
            folder / "haloes",
            self.realizations,
            self.redshifts,
            missing=self.missing,
            corrupt=self.corrupt,
        )
        (folder / "ledger").mkdir()
        return write_campaign(
            folder,
            realizations=self.realizations,
            redshifts=self.redshifts,
            suite="hdf5",
            box=box,
            model="faulty",
            parameters={
                "massless": list(self.massless),
                "crash": list(self.crash),
                "once": list(self.once),
                "ledger": str(folder / "ledger"),
            },
            max_retries=TRIED_AGAIN,
            retry_backoff="none",
            **said,
        )


@pytest.fixture
def make_desk(
    tmp_path: Path, store_url: str, migrated_template: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Desk]]:
    """Make a desk from which jobs are submitted to a cluster."""
    add_steps_to_path(monkeypatch)
    with fresh_database(store_url, migrated_template) as url:

        def make(slurm: SlurmCluster, slots: int = 4) -> Desk:
            desk = Desk(tmp_path / "at", url, tmp_path)
            site = desk.folder / "site.toml"
            pythonpath = os.pathsep.join([str(STEPS_FOLDER)])
            site.write_text(SITE.format(pythonpath=pythonpath, slots=slots))
            desk.environment |= {**slurm.environment, "MUSTER_SITE": str(site)}
            return desk

        yield make


def assert_ended_as_planned(desk: Desk, plan: Plan) -> None:
    """Each coordinate: the record, the attempts that were begun, and the file."""
    db = Database(desk.store_url)
    try:
        elements = read_campaign_elements(db, find_campaign(db, "1_small").id, step=POPULATE)
    finally:
        db.close()
    ledger = {p.name: len(p.read_text().split()) for p in (desk.folder / "ledger").iterdir()}
    found = {}
    for element in elements:
        assert element.redshift is not None
        at = Coordinate(element.realization, element.redshift)
        found[at] = End(
            element.state,
            element.outcome,
            element.error_class,
            element.attempts,
            ledger.get(f"{at.realization}-{plan.redshifts.index(at.redshift)}", 0),
        )
    planned = plan.ends()
    assert found == planned, {at: end for at, end in found.items() if planned.get(at) != end}
    catalogs = desk.folder / "campaigns" / "1_small" / "catalogs"
    files = {str(p.relative_to(catalogs)) for p in catalogs.rglob("*") if p.is_file()}
    assert files == {
        f"{at.folder}/mock_z{at.redshift:.3f}.hdf5"
        for at, end in planned.items()
        if end.state == "completed"
    }


def assert_reported(desk: Desk, plan: Plan) -> None:
    """Status tells every class with its number, and nothing else."""
    ends = Counter(plan.ends().values())
    report = desk.invoke("campaign", "status", "Small", "--json").json()
    states: Counter[str] = Counter()
    classes: Counter[tuple[str, str]] = Counter()
    for end, count in ends.items():
        states[end.state] += count
        if end.state != "completed":
            classes[end.outcome, end.error_class or ""] += count
    assert {state: n for state, n in report["counts"].items() if n} == states
    told = {(f["outcome"], f["error_class"]): f["count"] for f in report["failures"]}
    assert told == classes
    done, failed = states["completed"], states["failed"]
    assert report["success_rate"] == pytest.approx(done / (done + failed))


def scripts_of(desk: Desk) -> list[str]:
    """Return what each array of mocks.populate was submitted with."""
    runs = (desk.home / "work" / "runs").iterdir()
    return [
        path.read_text()
        for run in runs
        for batch in (run / "batches").glob(f"{POPULATE}.*")
        for path in sorted(batch.rglob("job.sh"))
    ]


def options_of(script: str) -> dict[str, str]:
    """Return the options of a script's ``#SBATCH`` lines."""
    lines = [x.split(" ", 1)[1] for x in script.splitlines() if x.startswith("#SBATCH ")]
    return {name.lstrip("-"): value for name, _, value in (line.partition("=") for line in lines)}


@pytest.mark.timeout(600)
def test_a_campaign_asks_slurm_for_what_it_says_and_ends_at_its_quorum(
    make_desk: Callable[..., Desk], slurm_cluster: SlurmCluster
) -> None:
    desk = make_desk(slurm_cluster)
    plan = Plan(3, (1.1, 0.5), corrupt=(1,))
    file = plan.write(
        desk.folder,
        batch_size=3,
        pack=2,
        quorum=0.8,
        timeout_hours=0.25,
        resources={"job_type": "small", "memory_requirement": "high", "account": "cosmology"},
    )
    ran = desk.invoke("campaign", "submit", file.name, "--here", "--allow-dirty", "--json")
    assert ran.code == 0, ran.stderr
    assert ran.json()["good"]
    assert_ended_as_planned(desk, plan)
    assert_reported(desk, plan)

    scripts = scripts_of(desk)
    assert len(scripts) == 2, "an array of three, twice"
    for script in scripts:
        options = options_of(script)
        assert options["account"] == "cosmology", "in the place of the pool's"
        assert options["partition"] == "genoa"
        assert options["mem"] == f"{3 * 1024}M", "twice the job type's, up to the pool's cap"
        assert options["array"] == "0-1", "three elements, two of them in one job"
    logs = desk.folder / "campaigns" / "1_small" / "logs"
    assert {p.name for p in logs.glob("batch_*.sh")} >= {"batch_0000.sh", "batch_0001.sh"}


PERIOD = 15
"""One realization in so many has each of the faults."""

REALIZATIONS = 10 * PERIOD
BATCH_SIZE = 150
PACK = 10
LONGEST_ARRAY = 4
"""Jobs of an array that the cluster takes: a batch of 150 in packs of 10 has several."""


@pytest.mark.thorough
@pytest.mark.timeout(3600)
def test_a_large_campaign_with_every_fault_ends_at_its_quorum_as_planted(
    make_desk: Callable[..., Desk],
    make_slurm_cluster: Callable[..., SlurmCluster],
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    slurm = start_bare(
        make_slurm_cluster,
        tmp_path_factory.mktemp("home"),
        {"MaxArraySize": str(LONGEST_ARRAY + 1), **PATIENT},
    )
    desk = make_desk(slurm, slots=2)
    numbers = range(REALIZATIONS)
    plan = Plan(
        REALIZATIONS,
        (1.1, 0.9, 0.7, 0.5),
        **{
            name: tuple(r for r in numbers if r % PERIOD == place)
            for name, place in (
                ("missing", 1), ("corrupt", 4), ("massless", 7), ("crash", 10), ("once", 12),
            )
        },
    )  # fmt: skip
    file = plan.write(
        desk.folder, batch_size=BATCH_SIZE, pack=PACK, quorum=0.8, resources={"job_type": "small"}
    )
    started_s = time.monotonic()
    ran = desk.start("campaign", "submit", file.name, "--here", "--allow-dirty", "--json").wait(
        3000
    )
    with capsys.disabled():
        print(f"\n{len(plan.ends())} catalogues on Slurm: {time.monotonic() - started_s:.0f} s")
    assert ran.code == 0, ran.stderr
    answer = ran.json()
    assert answer["good"]
    assert_ended_as_planned(desk, plan)
    assert_reported(desk, plan)
    good = sum(end.state == "completed" for end in plan.ends().values())
    asked = sum(end is not MISSING for end in plan.ends().values())
    assert f"{good} of {asked} succeeded" in answer["summary"]
    assert_arrays_were_open_together(desk)
    assert slurm.run("squeue", "-h").stdout == ""
    summary = json.loads((desk.folder / "campaigns/1_small/qa/summary.json").read_text())
    assert summary["boxes"] == good

    # To show what would be tried again computes nothing.
    before = {p.name: p.read_text() for p in (desk.folder / "ledger").iterdir()}
    listed = desk.invoke("campaign", "retry", "Small", "--json").json()
    assert len(listed["elements"]) == asked - good
    assert {p.name: p.read_text() for p in (desk.folder / "ledger").iterdir()} == before


def assert_arrays_were_open_together(desk: Desk) -> None:
    """Of each batch of mocks.populate several arrays were in the queue at once."""
    db = Database(desk.store_url)
    try:
        with db.transaction() as cursor:
            cursor.execute(
                "SELECT b.id, count(*) FROM batch b JOIN submission s ON s.batch_id = b.id"
                " JOIN submission t ON t.batch_id = b.id AND t.id > s.id"
                "   AND t.submitted_at < s.ended_at"
                " WHERE b.step = %s GROUP BY b.id",
                (POPULATE,),
            )
            overlapping = dict(cursor.fetchall())
            cursor.execute("SELECT count(*) FROM batch WHERE step = %s", (POPULATE,))
            (batches,) = cursor.fetchone()
    finally:
        db.close()
    assert batches == -(-(4 * REALIZATIONS - REALIZATIONS // PERIOD) // BATCH_SIZE)
    assert len(overlapping) == batches
