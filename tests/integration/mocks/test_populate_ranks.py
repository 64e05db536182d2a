"""Catalogues that ranks make are those of one process, and a run takes them as such."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from muster.config import parse_config
from muster.jobs.planning.workflow import load_workflow
from muster.jobs.runs.local_run import LocalRun
from muster.mocks.catalogue.compare import compare_catalogues
from muster.mocks.coordinates import Coordinate
from muster.site import Site
from muster.store import history
from muster.store.database import Database
from tests.batches import add_steps_to_path
from tests.conftest import fresh_database
from tests.mock_campaigns import write_campaign
from tests.ranks import MPIRUN, NTASKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from muster.jobs.runs.verdict import Verdict

pytest.importorskip("h5py", reason="h5py is not installed: make mocks")
pytestmark = [pytest.mark.slow, pytest.mark.mpi]
if shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None:
    pytestmark.append(pytest.mark.skip("needs mpirun (openmpi-bin) and mpi4py: make mpi"))

BOX = {"box_size_mpch": 50, "lowest_mass_msunh": 1e12}
SLABS = 5
CATALOGS = Path("campaigns/1_small/catalogs")


@pytest.fixture(autouse=True)
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    add_steps_to_path(monkeypatch)


def run_campaign(db: Database, file: Path, *, ntasks: int, cpus: int = 1) -> Verdict:
    """Run a campaign here, its catalogues on so many ranks."""
    ranks = {"ntasks": ntasks, "launcher": list(MPIRUN)} if ntasks > 1 else {}
    steps = load_workflow("mock_campaign").steps
    site = parse_config(
        Site,
        {
            "name": "here",
            "work": str(file.parent / "work"),
            "pools": {
                "local": {"backend": "local", "slots": 1},
                "ranks": {"backend": "local", "slots": 1, **ranks},
            },
            "placement": {
                **{step: {"pool": "local"} for step in steps},
                "mocks.populate": {"pool": "ranks", "cpus": cpus},
            },
        },
        "site of a test",
    )
    run_id = f"m.{file.parent.name}"
    run = LocalRun(db, site, load_workflow("mock_campaign"), run_id, lambda *_: None)
    return asyncio.run(run.run({"config": str(file), "allow_dirty": True}))


def populated(db: Database, folder: Path) -> list[history.TriedAttempt]:
    tried = history.read_tried(db, f"m.{folder.name}")
    return [attempt for attempt in tried if attempt.step == "mocks.populate"]


def catalogues(folder: Path) -> dict[str, Path]:
    """Return all that lies below the folder of catalogues."""
    found = folder / CATALOGS
    return {str(p.relative_to(found)): p for p in found.rglob("*") if p.is_file()}


@dataclass(frozen=True)
class Made:
    """What a campaign has made, and the attempts at it."""

    files: dict[str, Path]
    tried: list[history.TriedAttempt]


@pytest.fixture
def make_twice(
    tmp_path: Path, store_url: str, migrated_template: str
) -> Callable[..., tuple[Made, Made]]:
    """Make the catalogues of a campaign by one process each, and on ranks, each with a store."""

    def make(ntasks: int, cpus: int, campaign: dict[str, Any]) -> Made:
        folder = tmp_path / f"on-{ntasks}"
        folder.mkdir()
        file = write_campaign(folder, box=BOX, slabs=SLABS, **campaign)
        with fresh_database(store_url, migrated_template) as url:
            db = Database(url)
            verdict = run_campaign(db, file, ntasks=ntasks, cpus=cpus)
            assert verdict.good, verdict
            made = Made(catalogues(folder), populated(db, folder))
            db.close()
        return made

    def make_both(*, cpus: int = 1, **campaign: Any) -> tuple[Made, Made]:
        serial, on_ranks = (make(ntasks, cpus, campaign) for ntasks in (1, NTASKS))
        assert serial.files.keys() == on_ranks.files.keys()
        for name, path in serial.files.items():
            difference = compare_catalogues(path, on_ranks.files[name])
            assert difference.is_equal, difference.describe()
            assert path.read_bytes() == on_ranks.files[name].read_bytes()
        return serial, on_ranks

    return make_both


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_a_campaign_on_ranks_makes_the_bytes_of_one_process(
    make_twice: Callable[..., tuple[Made, Made]],
) -> None:
    alone, shared = make_twice(realizations=1)
    assert len(alone.files) == 2
    assert [a.outcome for a in shared.tried] == ["succeeded"] * 2
    names = ("galaxies", "halos", "satellites", "fingerprint")
    told = [{a.element: [a.facts[n] for n in names] for a in m.tried} for m in (alone, shared)]
    assert told[0] == told[1]
    assert min(a.facts["satellites"] for a in shared.tried) > 0
    most_alone = max(a.max_rss_mib or 0 for a in alone.tried)
    assert min(a.max_rss_mib or 0 for a in shared.tried) > 1.5 * most_alone, "of all ranks"


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("layout", ["lean", "full"])
def test_processes_of_ranks_and_catalogues_of_diffsky_are_equal_too(
    make_twice: Callable[..., tuple[Made, Made]], layout: str
) -> None:
    pytest.importorskip("diffsky", reason="diffsky is not installed: make mocks")
    make_twice(cpus=2, realizations=1, redshifts=(1.1,), model="diffsky", layout=layout)


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("harm", "error_class"), [("massless", "InvalidCatalogue"), ("crash", "SIGABRT")]
)
def test_what_fails_on_ranks_is_charged_once_and_lies_under_no_name(
    db: Database, tmp_path: Path, harm: str, error_class: str
) -> None:
    file = write_campaign(
        tmp_path,
        box=BOX,
        slabs=SLABS,
        realizations=2,
        redshifts=(1.1,),
        model="faulty",
        parameters={harm: [1]},
        max_retries=0,
    )
    assert not run_campaign(db, file, ntasks=NTASKS).good
    good, bad = sorted(populated(db, tmp_path), key=lambda attempt: attempt.element)
    assert good.outcome == "succeeded"
    assert (bad.outcome, bad.error_class) == ("software_error", error_class)
    assert set(catalogues(tmp_path)) == {f"{Coordinate(0, 1.1).folder}/mock_z1.100.hdf5"}
