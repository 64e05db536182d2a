"""A person maps traits: whole products, nothing twice, one task at a time, year by year."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.system.conftest import HOSTILE, TRAITS, make_predictors, write_stack
from tests.system.desk import (
    POLL_S,
    Desk,
    assert_says_once,
    files_of,
    read_bands,
    say_states,
    sha256,
)

pytestmark = pytest.mark.slow

AOA = "area of applicability"
COV = "coefficient of variation"


def test_each_trait_gets_a_whole_product_of_three_bands(mapped: Desk) -> None:
    _, land = make_predictors(5)
    assert mapped.products() == files_of(*TRAITS)
    for trait in TRAITS:
        bands = read_bands(mapped.maps / f"{trait}.tif")
        assert list(bands) == [f"{trait} prediction", COV, AOA]
        for band in bands.values():
            assert np.array_equal(np.ma.getmaskarray(band), ~land)
    mapped.assert_nothing_half_written()
    mapped.assert_quiet()
    assert not list(mapped.scratch.iterdir())


def test_what_the_bands_say_follows_the_predictors(mapped: Desk) -> None:
    predictors, land = make_predictors(5)
    bands = read_bands(mapped.maps / "leaf_area.tif")
    predicted = bands["leaf_area prediction"][land]
    assert np.corrcoef(predicted, predictors["warmth"][land])[0, 1] > 0.8
    assert set(np.unique(bands[AOA].compressed())) == {0, 1}
    assert 0 <= bands[COV].min() < bands[COV].max() < 1
    # No plot lies in the east.
    west, east = bands[AOA][:, :80].mean(), bands[AOA][:, 80:].mean()
    assert west > east


def test_a_name_is_never_taken_for_a_command_or_a_path(mapped: Desk) -> None:
    assert not [p for p in mapped.folder.rglob("x") if p.name == "x"]
    run = mapped.first_run()
    assert mapped.states(run)[HOSTILE] == say_states("succeeded")
    logs = mapped.invoke("logs", run, HOSTILE)
    assert logs.code == 0
    assert logs.stdout.count("attempt 1: succeeded") == 4


def test_a_second_run_computes_nothing_and_says_so(mapped: Desk) -> None:
    before = {p: p.stat().st_mtime_ns for p in mapped.maps.glob("*.*")} | mapped.stages()
    ran = mapped.invoke_infer("--json")
    assert ran.code == 0
    report = ran.json()
    assert report["good"] is True
    assert [t["trait"] for t in report["traits"]] == sorted(TRAITS)
    for trait in report["traits"]:
        assert trait["state"] == "succeeded"
        assert set(trait["steps"].values()) == {"reused"}
        assert trait["product"] == str(mapped.maps / f"{trait['trait']}.tif")
    assert {p: p.stat().st_mtime_ns for p in mapped.maps.glob("*.*")} | mapped.stages() == before
    assert mapped.states(report["run"])["leaf_area"] == say_states("reused")


@pytest.mark.thorough
def test_overwriting_makes_the_same_bytes_of_the_named_trait_alone(
    desk: Desk, mapped: Desk
) -> None:
    desk.borrow_bands(mapped, *TRAITS)
    desk.write_params(TRAITS)
    before = desk.stages()
    product, stages = sha256(mapped.maps / "leaf_area.tif"), {}
    for task in ("predict", "cov", "aoa"):
        stages[task] = sha256(desk.stage("leaf_area", task))

    running = desk.start_infer("--traits", "leaf_area", "--overwrite", "--max-parallel", "1")
    most_at_once = 0
    while running.process.poll() is None:
        most_at_once = max(most_at_once, len(desk.runners()))
        time.sleep(POLL_S)
    ran = running.wait()

    assert ran.code == 0
    assert desk.states(ran.run_id) == {
        "inputs": {"inspect": "succeeded"},
        "leaf_area": say_states("succeeded"),
    }
    assert desk.products() == files_of("leaf_area")
    after = desk.stages()
    assert {name for name in after if after[name] != before[name]} == {
        f"leaf_area/{task}" for task in stages
    }
    assert {task: sha256(desk.stage("leaf_area", task)) for task in stages} == stages
    assert sha256(desk.maps / "leaf_area.tif") == product
    assert most_at_once == 1


@pytest.mark.thorough
def test_one_task_at_a_time_ends_in_the_product_of_one_full_run(desk: Desk, mapped: Desk) -> None:
    desk.write_params(["leaf_area"])
    ran = desk.invoke_infer("--build-only")
    assert ran.code == 1
    assert "there is no prediction to build the product from" in ran.stdout
    assert desk.states(ran.run_id)["leaf_area"] == say_states("missing_input", bands="not_asked")

    # Without a prediction there is no product, and the band waits for one.
    ran = desk.invoke_infer("--cov-only")
    assert ran.code == 0, ran.stderr
    assert desk.states(ran.run_id)["leaf_area"] == say_states("not_asked") | {"cov": "succeeded"}
    assert ".tif" not in ran.stdout
    assert not desk.products()
    made = desk.stages()

    bands = []
    for task in ("predict", "aoa"):
        ran = desk.invoke_infer(f"--{task}-only")
        assert ran.code == 0, ran.stderr
        states = say_states("succeeded", bands="not_asked") | {task: "succeeded"}
        assert desk.states(ran.run_id)["leaf_area"] == states
        bands.append(len(read_bands(desk.maps / "leaf_area.tif")))
        assert desk.stages().items() >= made.items()
        # What the product holds needs no band raster any more.
        shutil.rmtree(desk.bands)
        made = {}
    assert bands == [2, 3]
    assert sha256(desk.maps / "leaf_area.tif") == sha256(mapped.maps / "leaf_area.tif")
    ran = desk.invoke_infer()
    assert desk.states(ran.run_id)["leaf_area"] == say_states("reused")
    desk.assert_nothing_half_written()


def test_one_task_only_means_one(desk: Desk) -> None:
    desk.write_params(["leaf_area"])
    ran = desk.invoke_infer("--predict-only", "--cov-only")
    assert ran.code == 64
    assert_says_once(ran, "choose one of --predict-only, --cov-only")


@pytest.mark.thorough
def test_each_year_gets_its_own_product(desk: Desk) -> None:
    for year, seed in ((2001, 5), (2002, 8), (2003, 9)):
        write_stack(desk.folder / f"stack-{year}.tif", seed)
    desk.write_params(["leaf_area"], predictors="stack-{year}.tif")
    years = (2001, 2002, 2003, 2004)
    with ThreadPoolExecutor(2) as people:
        runs = dict(
            zip(years, people.map(lambda y: desk.infer("--year", str(y)), years), strict=True)
        )
    assert [runs[year].code for year in years] == [0, 0, 0, 1]
    assert desk.products() == [
        name for year in years[:3] for name in files_of("leaf_area", folder=f"{year}/")
    ]
    first, second, _ = (
        read_bands(desk.maps / f"{year}" / "leaf_area.tif")["leaf_area prediction"]
        for year in years[:3]
    )
    assert not np.ma.allclose(first, second)

    ran = runs[2004]
    assert_says_once(ran, "stack-2004.tif", "no such")
    assert desk.states(ran.run_id) == {"inputs": {"inspect": "missing_input"}}
    assert desk.status(ran.run_id)["run"]["state"] == "failed"
    desk.assert_nothing_half_written()
