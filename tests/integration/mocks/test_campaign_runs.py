"""Runs of a campaign on this machine: what is made, what is not made again, what failed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from muster.config import parse_config
from muster.jobs.planning.workflow import load_workflow
from muster.jobs.runs.local_run import LocalRun
from muster.mocks.catalogue.validate import Expected, validate_catalogue
from muster.mocks.coordinates import Coordinate
from muster.mocks.find import find_campaign_by
from muster.mocks.params import MockParams
from muster.mocks.progress import read_progress
from muster.site import Site
from muster.store import runs
from tests.batches import add_steps_to_path
from tests.mock_campaigns import write_campaign, write_haloes

if TYPE_CHECKING:
    from muster.jobs.runs.verdict import Verdict
    from muster.store.database import Database

pytest.importorskip("h5py", reason="h5py is not installed: make mocks")
pytestmark = pytest.mark.slow

ABACUS_MINI = Path(__file__).resolve().parents[4] / "shared" / "reference" / "abacus_mini"


class Runs:
    """Runs of campaigns, one after the other."""

    def __init__(self, db: Database, site: Site) -> None:
        self.db = db
        self.site = site
        self.ids: list[str] = []

    def run(self, file: Path, **chosen: Any) -> Verdict:
        run_id = f"mock_campaign.{len(self.ids)}"
        self.ids.append(run_id)
        params = {"config": str(file), "allow_dirty": True, **chosen}
        run = LocalRun(self.db, self.site, load_workflow("mock_campaign"), run_id, lambda *_: None)
        return asyncio.run(run.run(params))

    def decisions(self) -> dict[str, int]:
        counts: dict[str, int] = runs.read_run(self.db, self.ids[-1]).facts["decisions"][
            "mocks.populate"
        ]
        return counts

    def counts(self, named: str) -> dict[str, int]:
        report = read_progress(self.db, find_campaign_by(self.db, named))
        return {state: count for state, count in report.counts.items() if count}


@pytest.fixture
def campaign(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    add_steps_to_path(monkeypatch)
    return Runs(db, make_site(tmp_path / "work"))


def make_site(work: Path) -> Site:
    steps = load_workflow("mock_campaign").steps
    return parse_config(
        Site,
        {
            "name": "here",
            "work": str(work),
            "pools": {"local": {"backend": "local", "slots": 2}},
            "placement": {step: {"pool": "local"} for step in steps},
        },
        "site of a test",
    )


def test_a_campaign_is_made_joined_by_others_and_never_made_twice(
    campaign: Runs, tmp_path: Path
) -> None:
    file = write_campaign(tmp_path, realizations=2)
    verdict = campaign.run(file)
    assert verdict.good, verdict.describe()
    assert campaign.decisions() == {"run": 4}
    folder = tmp_path / "campaigns" / "1_small"
    names = sorted(str(p.relative_to(folder)) for p in (folder / "catalogs").rglob("*.hdf5"))
    assert names == [f"catalogs/r{r:04d}/mock_z{z:.3f}.hdf5" for r in (0, 1) for z in (0.5, 1.1)]
    checked = subprocess.run(
        ["sha256sum", "--check", "--quiet", "metadata/manifest.sha256"], cwd=folder, check=False
    )
    assert checked.returncode == 0
    with sqlite3.connect(folder / "metadata" / "campaign.db") as database:
        states = database.execute("SELECT state, count(*) FROM jobs WHERE step = 'mocks.populate'")
        assert states.fetchall() == [("completed", 4)]
    assert sorted(p.name for p in (folder / "metadata" / "statistics").iterdir()) == [
        "batch_0000.parquet"
    ]
    assert (folder / "logs" / "batch_0000.sh").exists()
    assert json.loads((folder / "qa" / "summary.json").read_text())["boxes"] == 4
    before = {name: (folder / name).stat().st_mtime_ns for name in names}

    more = write_campaign(tmp_path, realizations=3)  # a further realization joins the campaign
    assert campaign.run(more).good
    assert campaign.decisions() == {"reused": 4, "run": 2}
    assert {name: (folder / name).stat().st_mtime_ns for name in names} == before
    assert campaign.counts("Small") == {"completed": 6}
    assert json.loads((folder / "qa" / "summary.json").read_text())["boxes"] == 6


@pytest.mark.thorough
def test_a_catalogue_that_is_lost_is_missed_where_the_files_are_looked_at(
    campaign: Runs, tmp_path: Path
) -> None:
    file = write_campaign(tmp_path, realizations=1)
    assert campaign.run(file).good
    lost = tmp_path / "campaigns" / "1_small" / "catalogs" / "r0000" / "mock_z0.500.hdf5"
    lost.unlink()
    assert campaign.run(file).good, "by the record alone everything is there"
    assert not lost.exists()
    assert campaign.run(file, verify=True).good
    assert campaign.decisions() == {"reused": 1, "run": 1}
    assert lost.exists()


@pytest.mark.thorough
def test_the_same_seed_gives_the_same_bytes_and_another_realization_other_galaxies(
    campaign: Runs, tmp_path: Path
) -> None:
    import h5py
    import numpy as np

    content = []
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        file = write_campaign(tmp_path / version, version=version, name=f"Twin {version}")
        assert campaign.run(file).good
        folder = tmp_path / version / "campaigns" / f"{version}_twin_{version}" / "catalogs"
        content.append({p.name: p.read_bytes() for p in (folder / "r0000").iterdir()})
        with h5py.File(folder / "r0000" / "mock_z1.100.hdf5") as one:
            first = one["galaxies/pos"][...]
        with h5py.File(folder / "r0001" / "mock_z1.100.hdf5") as other:
            second = other["galaxies/pos"][...]
        assert first.shape != second.shape or not np.array_equal(first, second)
    assert content[0] == content[1]


@pytest.mark.thorough
def test_what_fails_is_told_by_class_and_tried_again_alone(campaign: Runs, tmp_path: Path) -> None:
    redshifts = (1.1, 0.5)
    box = write_haloes(tmp_path / "halos", 8, redshifts, missing=(1,), corrupt=(2,))
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    file = write_campaign(
        tmp_path,
        realizations=8,
        redshifts=redshifts,
        suite="hdf5",
        box=box,
        model="faulty",
        parameters={"massless": [3], "crash": [4], "once": [5], "ledger": str(ledger)},
        quorum=0.6,
        max_retries=1,
        retry_backoff="none",
    )
    verdict = campaign.run(file)
    assert verdict.good, verdict.describe()
    assert campaign.counts("Small") == {"completed": 10, "failed": 5, "missing_input": 1}
    report = read_progress(campaign.db, find_campaign_by(campaign.db, "Small"))
    failures = {(f.outcome, f.error_class): f.count for f in report.failures}
    assert failures == {
        ("software_error", "InvalidCatalogue"): 2,
        ("software_error", "SIGABRT"): 2,
        ("invalid_input", "ValidationError"): 1,
        ("missing_input", ""): 1,
    }
    folder = tmp_path / "campaigns" / "1_small"
    there = {p.parent.name for p in (folder / "catalogs").rglob("*.hdf5")}
    assert {"r0003", "r0004"}.isdisjoint(there), "what is not whole never has its name"
    reports = folder / "qa" / "validation_reports"
    aside = sorted(p.name for p in reports.iterdir())
    assert [n for n in aside if n.endswith(".json")] == [
        f"{Coordinate(3, z).name}.json" for z in sorted(redshifts)
    ]
    attempts = {p.name: p.read_text().split() for p in ledger.iterdir()}
    assert attempts["0-0"] == ["1"]
    assert attempts["4-0"] == attempts["4-1"] == ["1", "2"], "once more, as the campaign says"
    assert attempts["5-0"] == ["1", "2"]

    for path in ledger.iterdir():
        path.unlink()
    again = campaign.run(file, failed_only=True)
    assert campaign.decisions() == {"run": 5}
    tried = {p.name.partition("-")[0] for p in ledger.iterdir()}
    assert tried == {"3", "4"}, "the corrupt input fails before the model is asked"
    assert not again.good, "nothing succeeded in it"
    assert campaign.counts("Small") == {"completed": 10, "failed": 5, "missing_input": 1}

    for path in (tmp_path / "halos").iterdir():  # as on scratch, after production
        path.unlink()
    campaign.run(file)
    assert campaign.decisions() == {"reused": 10, "missing_input": 6}
    assert campaign.counts("Small") == {"completed": 10, "missing_input": 6}


@pytest.mark.thorough
def test_slices_and_selections_choose_a_part(campaign: Runs, tmp_path: Path) -> None:
    file = write_campaign(tmp_path, realizations=4, slice_realizations=2, batch_size=2)
    params = MockParams.model_validate(MockParams.complete({"config": str(file), "slice": 1}))
    assert params.campaign.label == "1_small"
    assert campaign.run(file, slice=1, redshifts=[0.5]).good
    assert campaign.decisions() == {"run": 2}
    assert campaign.counts("Small") == {"completed": 2, "pending": 6}
    assert campaign.run(file, first=1, order="breadth_first").good
    found = find_campaign_by(campaign.db, str(file))
    done = read_progress(campaign.db, found)
    assert done.by_redshift == {0.5: {"completed": 2}, 1.1: {"completed": 1}}
    dry = campaign.run(file, dry_run=True)
    assert dry.good, dry.describe()
    assert campaign.counts("Small") == {"completed": 3, "pending": 5}, "a dry run makes nothing"


@pytest.mark.parametrize("model", ["hod", pytest.param("diffsky", marks=pytest.mark.thorough)])
def test_real_haloes_are_populated_validated_and_judged(
    campaign: Runs, tmp_path: Path, model: str
) -> None:
    pytest.importorskip("abacusnbody", reason="abacusutils is not installed: make abacus")
    pytest.importorskip(
        model.replace("hod", "numpy"), reason="diffsky is not installed: make mocks"
    )
    if not ABACUS_MINI.is_dir():
        pytest.skip(f"no reference data in {ABACUS_MINI}")
    file = write_campaign(
        tmp_path,
        realizations=1,
        redshifts=(0.0,),
        suite="abacus_box",
        box={"root": str(ABACUS_MINI), "cleaned": False},
        model=model,
        name=f"Mini {model}",
        min_mass_msunh=1e10,
    )
    verdict = campaign.run(file)
    assert verdict.good, verdict.describe()
    folder = tmp_path / "campaigns" / f"1_mini_{model}"
    (catalogue,) = (folder / "catalogs").rglob("*.hdf5")
    assert validate_catalogue(catalogue, expected=Expected(n_halos=381, box_size_mpch=32.0)) == []
    summary = json.loads((folder / "qa" / "summary.json").read_text())
    assert summary["boxes"] == 1
    assert any("N" in w or "boxes" in w for w in summary["warnings"]), "one box has no covariance"


@pytest.mark.thorough
def test_statistics_that_were_lost_are_collected_again(campaign: Runs, tmp_path: Path) -> None:
    """A follower that is killed leaves catalogues that no file of statistics knows."""
    file = write_campaign(tmp_path, realizations=2, redshifts=(0.5,))
    assert campaign.run(file).good
    folder = tmp_path / "campaigns" / "1_small"
    (statistics,) = (folder / "metadata" / "statistics").iterdir()
    statistics.write_bytes(b"garbage")
    assert campaign.run(file).good
    assert campaign.decisions() == {"reused": 2}
    summary = json.loads((folder / "qa" / "summary.json").read_text())
    assert (summary["boxes"], summary["missing_count"]) == (2, 0)
    assert statistics.name in str(summary["problems"])
