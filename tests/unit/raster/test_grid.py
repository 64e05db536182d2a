"""Grids: what makes two of them one, and which files have none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.errors import InvalidInput
from muster.raster.gdal import open_raster
from muster.raster.grid import Grid, Window, check_same_grid

if TYPE_CHECKING:
    from collections.abc import Callable


def test_window_ranges_are_rows_before_columns() -> None:
    window = Window(row=3, col=10, height=5, width=7)
    assert window.ranges == ((3, 8), (10, 17))
    assert window.pixels == 35


def test_grid_of_a_dataset(write_raster: Callable[..., str]) -> None:
    with rasterio.open(write_raster("a.tif", np.zeros((1, 4, 9), np.uint8))) as dataset:
        grid = Grid.from_dataset(dataset)
    assert (grid.height, grid.width) == (4, 9)
    assert grid.transform.e == -500
    assert grid.crs == CRS.from_epsg(6933)
    assert "4 rows × 9 columns of 1000 × -500" in grid.describe()
    assert "EPSG:6933" in grid.describe()


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        ({}, []),
        ({"crs": CRS.from_epsg(4326)}, ["CRS"]),
        ({"height": 11}, ["size"]),
        ({"transform": Affine(1000, 0, 500, 0, -500, 0)}, ["alignment"]),
        ({"transform": Affine(1000, 0, 0, 0, 500, 0)}, ["alignment"]),
        ({"transform": Affine(1000.001, 0, 0, 0, -500, 0)}, []),
        ({"transform": Affine(0, 0, 0, 0, 0, 0)}, ["alignment"]),
    ],
)
def test_differences(change: dict[str, Any], problems: list[str]) -> None:
    grid = Grid(CRS.from_epsg(6933), Affine(1000, 0, 0, 0, -500, 0), 10, 20)
    assert check_same_grid(grid, replace(grid, **change)) == problems


def test_a_small_error_of_pixel_size_adds_up_over_a_wide_raster() -> None:
    grid = Grid(CRS.from_epsg(6933), Affine(1000, 0, 0, 0, -500, 0), 10, 20_000)
    other = replace(grid, transform=Affine(1000.001, 0, 0, 0, -500, 0))
    assert check_same_grid(grid, other) == ["alignment"]


@pytest.mark.parametrize(
    ("profile", "message"),
    [({"crs": None}, "no coordinate reference system"), ({"transform": None}, "no geotransform")],
)
def test_files_without_georeference_are_refused(
    write_raster: Callable[..., str], profile: dict[str, Any], message: str
) -> None:
    if "transform" in profile:
        with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
            path = write_raster("a.tif", np.zeros((1, 4, 9), np.uint8), **profile)
    else:
        path = write_raster("a.tif", np.zeros((1, 4, 9), np.uint8), **profile)
    with open_raster(path) as dataset, pytest.raises(InvalidInput, match=message):
        Grid.from_dataset(dataset, path)
