"""The workflow as its users meet it: triggered over REST in a live Airflow, on real plots."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio

from muster.store import runs
from muster.traits.training.plot_predictors import PredictorSource
from muster.traits.training.train import TrainSettings, train_traits

if TYPE_CHECKING:
    from tests.integration.airflow.conftest import Muster

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(400)]

SPLOT = Path(__file__).resolve().parents[4] / "shared" / "reference" / "splot_chile"
TRAIT = "species_richness"


@pytest.fixture(scope="module")
def splot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of species richness, and the predictors of Chile."""
    if not SPLOT.exists():
        pytest.skip(f"no reference data at {SPLOT}")
    folder = tmp_path_factory.mktemp("splot")
    shutil.copy(SPLOT / "predictors.tif", folder / "predictors.tif")
    train_traits(
        SPLOT / "plots.csv",
        [TRAIT],
        str(folder / "models"),
        source=PredictorSource(rasters=(str(SPLOT / "predictors.tif"),), from_csv=True),
        settings=TrainSettings(units={TRAIT: "species"}, lightgbm={"num_iterations": 60}),
    )
    return folder


def conf(splot: Path, output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "traits": [TRAIT],
        "predictors": [str(splot / "predictors.tif")],
        "models": str(splot / "models"),
        "output": str(output),
        **changes,
    }


def run(muster: Muster, told: dict[str, Any]) -> tuple[str, str]:
    run_id = muster.api.trigger("trait_inference", told)
    return run_id, muster.api.wait_for_run("trait_inference", run_id, 300).state


def verdict_log(muster: Muster, run_id: str) -> str:
    return muster.api.task_log("trait_inference", run_id, ("verdict", -1))


def test_real_plots_become_a_map(muster: Muster, splot: Path, tmp_path: Path) -> None:
    run_id, state = run(muster, conf(splot, tmp_path))
    assert state == "success", verdict_log(muster, run_id)
    with rasterio.open(tmp_path / f"{TRAIT}.tif") as product:
        assert product.descriptions == (
            f"{TRAIT} prediction",
            "coefficient of variation",
            "area of applicability",
        )
        assert product.dtypes == ("int16",) * 3
        bands = [
            np.ma.filled(product.read(i + 1, masked=True).astype(float), np.nan) * product.scales[i]
            + product.offsets[i]
            for i in range(3)
        ]
        shape = product.shape
    with rasterio.open(splot / "predictors.tif") as predictors:
        assert predictors.shape == shape
        on_land = (predictors.read_masks() > 0).all(axis=0)
    richness, variation, inside = bands
    assert np.array_equal(np.isfinite(richness), on_land), "a map where all predictors are known"
    assert 0 < np.nanmin(richness) < np.nanmedian(richness) < np.nanmax(richness) < 150
    assert 0 <= np.nanmin(variation) < np.nanmedian(variation) < 1
    assert set(np.unique(inside[on_land])) == {0.0, 1.0}, "some of Chile is like the plots"
    record = runs.read_run(muster.db, f"trait_inference.{run_id}")
    assert record.state == "succeeded"
    report = Path(record.facts["report"])
    assert report.parent == tmp_path / "reports"
    assert TRAIT in report.read_text(encoding="utf-8")
    assert str(report) in verdict_log(muster, run_id)
    assert set(muster.states("trait_inference", run_id).values()) == {"success"}
    operators = {
        task["task_id"]: task["operator_name"]
        for task in muster.api.call("GET", "dags/trait_inference/tasks")["tasks"]
    }
    on_slurm = muster.slurm is not None
    assert operators["trait.predict"] == (
        "SlurmBatchOperator" if on_slurm else "LocalBatchOperator"
    )
    assert operators["trait.aoa"] == "LocalBatchOperator"
    hosts = {row.step: row.host for row in runs.read_status(muster.db, record.id)}
    assert (str(hosts["traits.predict"])[:3] == "cpu") == on_slurm, "a node of the cluster"
    labels = {t for task, t in muster.states("trait_inference", run_id) if task == "trait.build"}
    assert labels == {TRAIT}


BANDS = ("predict", "cov", "aoa", "build")


@pytest.fixture(scope="module")
def isolated(
    muster: Muster, splot: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], str]:
    """Conf and id of a run of two traits: one without a model, one whose aoa fails as it runs."""
    told = conf(
        splot,
        tmp_path_factory.mktemp("isolated"),
        traits=[TRAIT, "wood_density"],
        trait_set="isolation",
        # the site's cap on memory, so that a retry cannot grow: less than importing NumPy takes
        resources={"traits.aoa": {"memory": "60MiB"}},
    )
    run_id, state = run(muster, told)
    assert state == "failed"
    return told, run_id


def test_each_trait_by_itself(muster: Muster, isolated: tuple[dict[str, Any], str]) -> None:
    """What one trait lacks leaves the other whole, and the verdict tells."""
    told, run_id = isolated
    output = Path(told["output"])
    states = muster.states("trait_inference", run_id)
    assert [states[f"trait.{step}", TRAIT] for step in BANDS] == [
        "success",
        "success",
        "failed",
        "success",
    ]
    assert {s for (task, label), s in states.items() if label == "wood_density"} == {"skipped"}
    with rasterio.open(output / f"{TRAIT}.tif") as product:
        assert product.descriptions == (f"{TRAIT} prediction", "coefficient of variation")
    assert not (output / "wood_density.tif").exists()
    log = verdict_log(muster, run_id)
    assert f"{TRAIT}: failed: predict succeeded, cov succeeded, aoa out_of_memory" in log
    assert "limit: 60 MiB" in log
    assert "wood_density: missing_input" in log
    assert "1 without their input" in log


@pytest.mark.thorough
def test_the_next_run_computes_what_is_missing_and_nothing_else(
    muster: Muster, isolated: tuple[dict[str, Any], str]
) -> None:
    told, _ = isolated
    run_id, state = run(muster, {**told, "traits": [TRAIT], "resources": {}})
    assert state == "success"
    states = muster.states("trait_inference", run_id)
    assert [states[f"trait.{step}", TRAIT] for step in BANDS] == [
        "skipped",
        "skipped",
        "success",
        "success",
    ]
    with rasterio.open(Path(told["output"]) / f"{TRAIT}.tif") as product:
        assert product.count == 3


@pytest.mark.thorough
def test_a_run_that_could_not_be_planned_fails(muster: Muster, splot: Path, tmp_path: Path) -> None:
    told = conf(splot, tmp_path, predictors=[str(tmp_path / "nowhere.tif")])
    run_id, state = run(muster, told)
    assert state == "failed"
    states = {task: state for (task, _), state in muster.states("trait_inference", run_id).items()}
    assert states["inspect"] in {"failed", "skipped"}
    assert states["verdict"] == "failed"
    assert "no completed plan" in verdict_log(muster, run_id)
    assert "nowhere.tif" in muster.api.task_log("trait_inference", run_id, ("inspect", -1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
def test_a_param_that_means_nothing_fails_the_run_at_once(
    muster: Muster, splot: Path, tmp_path: Path
) -> None:
    """In ``open``; tests/integration/test_refused_params.py has what else is refused there."""
    run_id, state = run(muster, conf(splot, tmp_path, trait=["x"]))
    assert state == "failed"
    tasks = {t.task_id: t for t in muster.api.task_instances("trait_inference", run_id)}
    assert tasks["open"].state == "failed"
    assert tasks["open"].try_number == 1, "no retry can mend a parameter"
    says = muster.api.task_log("trait_inference", run_id, ("open", -1))
    assert "unknown params; got: trait" in says
    assert tasks["verdict"].state == "failed"


@pytest.mark.parametrize(
    "years", [range(2019, 2021), pytest.param(range(2001, 2006), marks=pytest.mark.thorough)]
)
def test_a_backfill_makes_a_product_a_year(
    muster: Muster, splot: Path, tmp_path: Path, years: range
) -> None:
    """Of other years than any other test: a year has one run in an Airflow."""
    for year in years:
        shutil.copy(splot / "predictors.tif", tmp_path / f"predictors-{year}.tif")
    before = len(muster.api.runs("trait_inference"))
    told = conf(splot, tmp_path / "maps", predictors=[str(tmp_path / "predictors-{year}.tif")])
    told["tasks"] = ["predict", "build"]
    interval = (datetime(years[0], 1, 1, tzinfo=UTC), datetime(years[-1], 12, 31, tzinfo=UTC))
    backfill = muster.api.backfill("trait_inference", interval, told, max_active_runs=3)
    muster.wait(lambda: muster.api.backfill_ended(backfill), 300)
    made = muster.api.runs("trait_inference")[before:]
    assert [r.state for r in made] == ["success"] * len(years)
    products = sorted(p.relative_to(tmp_path / "maps") for p in (tmp_path / "maps").rglob("*.tif"))
    assert products == [Path(str(year)) / f"{TRAIT}.tif" for year in years]


def test_it_never_starts_by_itself(muster: Muster) -> None:
    started = {r.run_type for r in muster.api.runs("trait_inference")}
    assert started <= {"manual", "backfill"}


@pytest.mark.thorough
def test_a_cleared_inspection_looks_again(muster: Muster, splot: Path, tmp_path: Path) -> None:
    """Somebody deleted the product and its bands: a clear from `inspect` on makes them again."""
    told = conf(splot, tmp_path, trait_set="cleared", tasks=["predict", "build"])
    run_id, state = run(muster, told)
    assert state == "success"
    (tmp_path / f"{TRAIT}.tif").unlink()
    shutil.rmtree(muster.live.home / "work" / "bands" / "cleared")
    muster.api.clear("trait_inference", run_id, ["inspect"], include_downstream=True)
    muster.wait(lambda: muster.api.run("trait_inference", run_id).state != "success", 30)
    assert muster.api.wait_for_run("trait_inference", run_id, 300).state == "success"
    with rasterio.open(tmp_path / f"{TRAIT}.tif") as product:
        assert product.count == 1
