"""What resampling.yaml may say, and what is said of what it may not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from muster.errors import ConfigError
from muster.resampling.config.params import parse_params, read_resampling_file

if TYPE_CHECKING:
    from pathlib import Path

TARGET = {"crs": 4326, "resolution": 0.5, "extent": [-180, -90, 180, 90]}
YEAR = {"interval_start": "2024-01-01T00:00:00Z", "interval_end": "2025-01-01T00:00:00Z"}
MARCH = {"interval_start": "2024-03-01T00:00:00Z", "interval_end": "2024-04-01T00:00:00Z"}


def params(*datasets: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = [{"name": "a", "path": "/a.tif", "method": "average", **said} for said in datasets]
    return {"target": TARGET, "datasets": given, "output": "/out", **more}


def test_a_number_is_an_epsg_code() -> None:
    assert parse_params(params({})).target.crs == "EPSG:4326"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"window_size": 512}, "window_px"),
        ({"window_overlap": 8}, "never overlap"),
        ({"needs_resampling": True}, "the plan decides"),
        ({"skip_data_loading_for_passthrough": True}, "store: register"),
    ],
)
def test_a_setting_of_the_original_is_answered_with_a_sentence(
    said: dict[str, Any], told: str
) -> None:
    for data in (params({}, **said), params(said)):
        with pytest.raises(ConfigError, match=told) as caught:
            parse_params(data)
        assert "'path'" not in str(caught.value)


def test_a_year_has_no_month() -> None:
    path = "/in/{year}_{month}.tif"
    checked = parse_params(params({"path": path}, **YEAR))
    with pytest.raises(ConfigError, match=r"no value for the placeholder \{month\}"):
        checked.fill(path)
    assert checked.fill("/in/{year}.tif") == "/in/2024.tif"
    assert parse_params(params({"path": path}, **MARCH)).fill(path) == "/in/2024_03.tif"


def test_a_month_is_in_every_name() -> None:
    checked = parse_params(
        params({"store": ["rows", "cog"]}, merge={"output": "/m/all.parquet"}, **MARCH)
    )
    (dataset,) = checked.datasets
    assert checked.dataset_key(dataset) == "a@2024-03"
    assert checked.cog_uri(dataset) == "/out/2024-03/a.tif"
    assert checked.table_name(dataset) == "a_2024_03"
    assert checked.merge_uri() == "/m/all-2024-03.parquet"


def test_a_month_that_is_named_is_not_named_twice() -> None:
    checked = parse_params(
        params(
            {"store": "rows", "table": "t_{year}_{month}"},
            **(MARCH | {"output": "/out/{year}/{month}"}),
        )
    )
    (dataset,) = checked.datasets
    assert checked.output_uri() == "/out/2024/03"
    assert checked.table_name(dataset) == "t_2024_03"


@pytest.mark.parametrize("name", ["x", "Row_Idx"])
def test_a_dataset_that_is_merged_is_not_called_as_what_tables_have_anyway(name: str) -> None:
    data = params({"name": name}, merge={"output": "/m.parquet"})
    with pytest.raises(ConfigError, match="rename the dataset"):
        parse_params(data)


def test_two_tables_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two tables would be called a_b"):
        parse_params(params({"name": "a b", "store": "rows"}, {"name": "A-b", "store": "rows"}))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"nodata": float("nan")}, "never are values"),
        ({"nodata": float("inf")}, "never are values"),
        ({"method": "sum", "categories": [1]}, "makes no sense"),
        ({"method": "nearest", "weights": "spherical"}, "goes with"),
        ({"store": ["register", "cog"]}, "nothing else"),
        ({"table": 'a"; DROP'}, "a table's name"),
        ({"store": "cog", "table": "t"}, "for store: rows"),
        ({"range": [3, 1]}, "least, greatest"),
        ({"name": "merge"}, "may not be called"),
        ({"min_valid_fraction": 1.5}, "less than or equal to 1"),
        ({"band": 0}, "greater than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(said: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_params(params(said))


def test_paths_are_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "target: {like: grid.tif}\n"
        "datasets:\n  - {name: a, path: 'in/*.tif', method: mode}\n"
        "output: out\nmerge: {output: m.parquet}\n"
    )
    data = read_resampling_file(tmp_path / "r.yaml")
    assert data["target"]["like"] == str(tmp_path / "grid.tif")
    assert data["datasets"][0]["path"] == str(tmp_path / "in/*.tif")
    assert data["output"] == str(tmp_path / "out")
    assert data["merge"]["output"] == str(tmp_path / "m.parquet")


def test_a_key_that_is_unknown_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("targets: {}\n")
    with pytest.raises(ConfigError, match=r"unknown key.*targets.*target"):
        read_resampling_file(tmp_path / "r.yaml")
