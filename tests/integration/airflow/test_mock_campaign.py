"""A campaign of mocks as its users run it: slices by backfill, and what failed by one command."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from muster.mocks.coordinates import Coordinate
from muster.mocks.params import SLICE_0
from muster.store import runs
from muster.store.campaign_state import read_campaign_elements
from muster.store.campaigns import find_campaign
from tests.command_line import invoke
from tests.mock_campaigns import write_campaign, write_haloes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.airflow.conftest import Muster

pytest.importorskip("h5py", reason="h5py is not installed: make mocks")
pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

DAG = "mock_campaign"
POPULATE = "mocks.populate"
SLICES = 2


@dataclass(frozen=True)
class Size:
    """How large a campaign is, and which of its slices run.

    Attributes
    ----------
    realizations : int
        In both slices together.
    redshifts : tuple of float
        Highest first.
    batch_size, pack : int
        Catalogues of a batch, and of a job.
    slices : tuple of int
        Those that run: the first days of the backfill, or the last.
    missing : int
        Realization that has no haloes at the last redshift.
    """

    realizations: int
    redshifts: tuple[float, ...]
    batch_size: int
    pack: int
    slices: tuple[int, ...]
    missing: int

    @property
    def failing(self) -> int:
        """Realization of slice 1 whose catalogues fail while the fault lasts."""
        return self.realizations - 1

    @property
    def slice_realizations(self) -> int:
        """Realizations of a slice."""
        return self.realizations // SLICES

    def coordinates(self, part: int) -> list[Coordinate]:
        """Return the coordinates of a slice."""
        each = self.slice_realizations
        numbers = range(part * each, (part + 1) * each)
        return [Coordinate(r, z) for r in numbers for z in self.redshifts]

    @property
    def asked(self) -> list[Coordinate]:
        """The coordinates of all slices that run."""
        return [coordinate for part in self.slices for coordinate in self.coordinates(part)]

    @property
    def without_input(self) -> Coordinate:
        """The one catalogue that lacks its input."""
        return Coordinate(self.missing, self.redshifts[-1])

    def made(self, part: int) -> int:
        """Return how many catalogues of a slice are to be made."""
        return len(self.coordinates(part)) - (self.without_input in self.coordinates(part))

    @property
    def pending(self) -> dict[str, int]:
        """What status tells of slices that never ran."""
        count = self.realizations * len(self.redshifts) - len(self.asked)
        return {"pending": count} if count else {}


SMALL = pytest.param(Size(4, (1.1, 0.5), 4, 4, slices=(1,), missing=2), id="8")
THIRTY = pytest.param(
    Size(10, (1.1, 0.8, 0.5), 6, 3, slices=(0, 1), missing=1), id="30", marks=pytest.mark.thorough
)


@dataclass
class Sliced:
    """A campaign as the backfill of its slices has left it, and the command line beside it.

    Attributes
    ----------
    size : Size
        How large it is.
    muster : Muster
        The Airflow.
    file, fault, ledger : Path
        Campaign file, the file that keeps the fault alive, and the folder where each box leaves
        its attempts.
    runs : dict of int to str
        Slice → run.
    """

    size: Size
    muster: Muster
    file: Path
    fault: Path
    ledger: Path
    runs: dict[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"Sliced {self.size.realizations}"

    @property
    def label(self) -> str:
        return f"1_sliced_{self.size.realizations}"

    @property
    def folder(self) -> Path:
        return self.file.parent / "campaigns" / self.label

    def command(self, *arguments: str) -> tuple[int, str, str]:
        """Run ``muster`` with the store and the Airflow named by its environment."""
        api = self.muster.api
        return invoke(
            arguments,
            self.file.parent,
            {
                **self.muster.live.environment,
                "MUSTER_AIRFLOW_URL": api.address,
                "MUSTER_AIRFLOW_USER": api.user,
                "MUSTER_AIRFLOW_PASSWORD": api.password,
            },
        )

    def status(self) -> dict[str, Any]:
        code, out, err = self.command("campaign", "status", self.name, "--json")
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def counts(self) -> dict[str, int]:
        return {state: count for state, count in self.status()["counts"].items() if count}

    def attempts(self) -> Counter[str]:
        """REALIZATION-REDSHIFT INDEX → attempts, by the ledger."""
        return Counter({p.name: len(p.read_text().split()) for p in self.ledger.iterdir()})

    def catalogues(self) -> set[str]:
        """Names of all catalogues on disk, as the manifest has them."""
        return {str(p.relative_to(self.folder)) for p in self.folder.glob("catalogs/*/*")}


def catalogue_name(coordinate: Coordinate) -> str:
    return f"catalogs/r{coordinate.realization:04d}/mock_z{coordinate.redshift:.3f}.hdf5"


@pytest.fixture(scope="module", params=[SMALL, THIRTY])
def sliced(
    muster: Muster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Sliced:
    """A campaign of two slices, of which one ran, or both side by side, as a backfill."""
    size: Size = request.param
    folder = tmp_path_factory.mktemp("campaign")
    fault, ledger = folder / "fault", folder / "ledger"
    fault.touch()
    ledger.mkdir()
    box = write_haloes(
        folder / "haloes", size.realizations, size.redshifts, missing=(size.missing,)
    )
    file = write_campaign(
        folder,
        name=f"Sliced {size.realizations}",
        realizations=size.realizations,
        redshifts=size.redshifts,
        suite="hdf5",
        box=box,
        model="faulty",
        parameters={
            "massless": [size.failing],
            "harm_while": str(fault),
            "ledger": str(ledger),
        },
        slice_realizations=size.slice_realizations,
        batch_size=size.batch_size,
        pack=size.pack,
        max_retries=0,
        quorum=0.9,
    )
    before = len(muster.api.runs(DAG))
    days = (SLICE_0 + timedelta(days=size.slices[0]), SLICE_0 + timedelta(days=size.slices[-1]))
    conf = {"config": str(file), "allow_dirty": True}
    started = muster.api.backfill(DAG, days, conf, max_active_runs=2, reprocess="completed")
    muster.wait(lambda: muster.api.backfill_ended(started), 700)
    made = Sliced(size, muster, file, fault, ledger)
    for run in muster.api.runs(DAG)[before:]:
        start = runs.read_run(muster.db, f"{DAG}.{run.run_id}").interval_start
        assert start is not None
        made.runs[(start - SLICE_0).days] = run.run_id
    return made


def test_a_day_of_the_backfill_is_a_slice(muster: Muster, sliced: Sliced) -> None:
    assert tuple(sorted(sliced.runs)) == sliced.size.slices
    campaign = find_campaign(muster.db, sliced.label)
    for part, run_id in sliced.runs.items():
        record = runs.read_run(muster.db, f"{DAG}.{run_id}")
        assert record.campaign_id == campaign.id
        elements = [e for e in runs.read_status(muster.db, record.id) if e.step == POPULATE]
        assert {e.name for e in elements} == {c.name for c in sliced.size.coordinates(part)}


def test_the_grid_shows_batches_and_the_quorum_decides_each_slice(
    muster: Muster, sliced: Sliced
) -> None:
    size = sliced.size
    for part, run_id in sliced.runs.items():
        tasks = muster.states(DAG, run_id)
        for task in ("open", "inspect", "plan", "qa", "manifest"):
            assert tasks[task, ""] == "success", tasks
        populated = {label: s for (task, label), s in tasks.items() if task.endswith("populate")}
        made = size.made(part)
        assert len(populated) == -(-made // size.batch_size), populated
        log = muster.api.task_log(DAG, run_id, ("verdict", -1))
        if size.failing not in {c.realization for c in size.coordinates(part)}:
            assert set(populated.values()) == {"success"}
            assert tasks["verdict", ""] == "success", log
            assert muster.api.run(DAG, run_id).state == "success"
            assert f"{made} of {made} succeeded" in log
        else:
            assert "failed" in populated.values()
            assert tasks["verdict", ""] == "failed"
            assert muster.api.run(DAG, run_id).state == "failed"
            good = made - len(size.redshifts)
            assert f"{good} of {made} succeeded" in log


def test_the_record_tells_each_catalogue_and_the_files_are_as_it_says(
    muster: Muster, sliced: Sliced
) -> None:
    size = sliced.size
    failing = {c for c in size.asked if c.realization == size.failing}
    report = sliced.status()
    assert {state: n for state, n in report["counts"].items() if n} == {
        "completed": len(size.asked) - len(failing) - 1,
        "failed": len(failing),
        "missing_input": 1,
        **size.pending,
    }
    campaign = find_campaign(muster.db, sliced.label)
    states = {
        Coordinate(e.realization, e.redshift): e.state
        for e in read_campaign_elements(muster.db, campaign.id, step=POPULATE)
    }
    expected = dict.fromkeys(size.asked, "completed") | dict.fromkeys(failing, "failed")
    assert states == expected | {size.without_input: "missing_input"}
    whole = {catalogue_name(c) for c, state in states.items() if state == "completed"}
    assert sliced.catalogues() == whole
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "metadata/manifest.sha256"],
        cwd=sliced.folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    # The slices end side by side: the one that ends last has listed everything.
    assert {line.partition(": ")[0] for line in checked.stdout.splitlines()} == whole
    assert set(sliced.attempts().values()) == {1}


def test_slices_side_by_side_share_no_name(sliced: Sliced) -> None:
    """Statistics and logs of a batch are named by its number in the campaign."""
    size = sliced.size
    batches = sum(-(-size.made(part) // size.batch_size) for part in size.slices)
    statistics = {p.name for p in (sliced.folder / "metadata" / "statistics").iterdir()}
    # A batch of which nothing succeeded leaves no statistics.
    assert batches - 1 <= len(statistics) <= batches, statistics
    summary = json.loads((sliced.folder / "qa" / "summary.json").read_text())
    assert summary["boxes"] == len(sliced.catalogues())


def test_retry_runs_what_failed_in_this_airflow_and_nothing_else(
    muster: Muster, sliced: Sliced
) -> None:
    size = sliced.size
    before = sliced.attempts()
    files = {name: (sliced.folder / name).stat().st_mtime_ns for name in sliced.catalogues()}
    code, shown, err = sliced.command("campaign", "retry", sliced.name)
    assert code == 0, err
    assert f"{len(size.redshifts)} would be tried again" in shown
    assert sliced.attempts() == before, "shown, and not run"

    sliced.fault.unlink()
    code, out, err = sliced.command("campaign", "retry", sliced.name, "--submit", "--json")
    assert code == 0, err
    triggered = json.loads(out)
    assert (triggered["by"], triggered["campaign"]) == ("airflow", sliced.label)
    run_id = triggered["run"].removeprefix(f"{DAG}.")
    assert muster.api.wait_for_run(DAG, run_id, 600).state == "success"
    decisions = runs.read_run(muster.db, triggered["run"]).facts["decisions"][POPULATE]
    assert decisions == {"run": len(size.redshifts)}
    tried = sliced.attempts() - before
    assert tried == {f"{size.failing}-{i}": 1 for i in range(len(size.redshifts))}
    total = len(size.asked)
    assert sliced.counts() == {"completed": total - 1, "missing_input": 1, **size.pending}
    assert {n: (sliced.folder / n).stat().st_mtime_ns for n in files} == files
    summary = json.loads((sliced.folder / "qa" / "summary.json").read_text())
    assert summary["boxes"] == total - 1
    code, shown, _ = sliced.command("campaign", "retry", sliced.name, "--submit")
    assert (code, shown) == (0, "nothing is to be tried again\n")
