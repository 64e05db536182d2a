"""Months brought to one grid with the real command, and a table of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.conftest import fresh_database
from tests.months import assert_month_is_right, expected_cover, read, write_config, write_month
from tests.system.desk import Desk, assert_says_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST = ("--params", "resampling.yaml", "--year", "2019", "--month", "1")


@pytest.fixture
def desk(tmp_path: Path, store_url: str, migrated_template: str) -> Iterator[Desk]:
    """A desk with the first month and a resampling.yaml; nothing here is of traits."""
    with fresh_database(store_url, migrated_template) as url:
        made = Desk(tmp_path / "at", url, tmp_path)
        write_month(made.folder, 1)
        write_config(made.folder)
        yield made


@pytest.mark.slow
def test_a_month_is_made_dataset_by_dataset_and_found_again(desk: Desk) -> None:
    table = desk.folder / "out" / "all-2019-01.parquet"
    part = desk.muster("resampling", "run", *FIRST, "--dataset", "cover")
    assert part.code == 0, part.stderr
    assert not table.exists(), "no table of a part"
    ran = desk.invoke("resampling", "merge", *FIRST)
    assert ran.code == os.EX_NOINPUT
    assert_says_once(ran, "a dataset of the merge is not there", "wind@2019-01")
    assert not table.exists()

    told = desk.invoke("resampling", "run", *FIRST, "--json").json()
    assert steps_of(told) == {"wind": "succeeded", "cover": "reused"}
    assert told["merge"]["product"] == str(table)
    assert_month_is_right(desk.folder, 1)

    before = (desk.folder / "out" / "2019" / "01" / "wind.tif").stat().st_mtime_ns
    told = desk.invoke("resampling", "run", *FIRST, "--json").json()
    assert steps_of(told) == {"wind": "reused", "cover": "reused"}
    assert (desk.folder / "out" / "2019" / "01" / "wind.tif").stat().st_mtime_ns == before
    assert told["merge"]["product"] == str(table)

    table.unlink()
    ran = desk.invoke("resampling", "merge", *FIRST)
    assert ran.code == 0, ran.stderr
    assert_month_is_right(desk.folder, 1)
    desk.assert_quiet()


def steps_of(told: dict[str, Any]) -> dict[str, str]:
    return {d["dataset"]: d["steps"]["resampling.resample"] for d in told["datasets"]}


def test_a_month_without_input_is_no_success_and_says_why(desk: Desk) -> None:
    ran = desk.invoke("resampling", "run", *FIRST[:-1], "2")
    assert ran.code == 1
    assert "0 of 0 succeeded (quorum 100.0%), 0 failed, 3 without their input" in ran.stdout
    assert "wind: missing_input: resample missing_input (no such file; where: " in ran.stdout
    assert not (desk.folder / "out").exists()


@pytest.mark.thorough
def test_a_dataset_that_fails_is_mended_by_a_retry_and_the_merge_with_it(desk: Desk) -> None:
    wind = desk.folder / "out" / "2019" / "01" / "wind.tif"
    wind.mkdir(parents=True)  # where the file is to go, so that it cannot
    (wind / "somebody").write_text("else")
    ran = desk.invoke("resampling", "run", *FIRST)
    assert ran.code == 1, ran.stdout
    np.testing.assert_array_equal(read(wind.with_name("cover.tif")), expected_cover(1))
    assert "cover: succeeded" in ran.stdout
    assert "wind: failed" in ran.stdout
    assert "merge: succeeded" not in ran.stdout
    assert not (desk.folder / "out" / "all-2019-01.parquet").exists(), "no table of a part"
    (wind / "somebody").unlink()
    wind.rmdir()
    again = desk.invoke("retry", ran.run_id)
    assert again.code == 0, again.stdout + again.stderr
    assert "3 of 3 succeeded" in again.stdout
    assert_month_is_right(desk.folder, 1)


def test_a_plan_reads_no_store_and_leaves_nothing(desk: Desk) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    told = desk.invoke("resampling", "plan", *FIRST, "--json", MUSTER_STORE_URL=nowhere).json()
    rows = {row["dataset"]: row for row in told["datasets"]}
    assert list(rows) == ["wind", "cover", "merge"]
    for name in ("wind", "cover"):
        row = rows[name]
        assert (row["decision"], row["kind"], row["windows"]) == ("run", "block", 1)
        assert row["window"] == [3, 5]
        assert 0 < row["memory_mib"] <= 512
        assert row["seconds"] > 0
    assert {path.name for path in desk.folder.iterdir()} >= {"resampling.yaml", "wind-2019-01.tif"}
    assert not (desk.folder / "out").exists()
