"""Grids: what makes two of them one, and which files have none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.enums import WktVersion
from rasterio.transform import Affine

from muster.errors import InvalidInput
from muster.raster.gdal import open_raster
from muster.raster.grid import Grid, Window, check_same_grid, same_crs

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


def esri(code: int) -> CRS:
    """Take a CRS as it comes out of an ESRI .prj."""
    return CRS.from_wkt(CRS.from_epsg(code).to_wkt(version=WktVersion.WKT1_ESRI))


WGS84 = "+proj=longlat +datum=WGS84 +no_defs"


@pytest.mark.parametrize(
    ("code", "other"),
    [
        (4326, CRS.from_string("OGC:CRS84")),
        (4326, CRS.from_string(WGS84)),
        (4326, esri(4326)),
        (4269, esri(4269)),
        (32632, esri(32632)),
        (32632, CRS.from_string("+proj=utm +zone=32 +datum=WGS84 +units=m +no_defs")),
        (6933, esri(6933)),
        # Northing before easting.
        (3035, esri(3035)),
        (3035, CRS.from_wkt(CRS.from_epsg(3035).to_wkt(version=WktVersion.WKT1_GDAL))),
        (31467, esri(31467)),
        (32661, esri(32661)),
    ],
)
def test_neither_names_nor_the_order_of_axes_make_another_crs(code: int, other: CRS) -> None:
    crs = CRS.from_epsg(code)
    assert same_crs(crs, other)
    assert same_crs(other, crs)
    grid = Grid(crs, Affine(1, 0, 0, 0, -1, 0), 10, 20)
    assert check_same_grid(grid, replace(grid, crs=other)) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("EPSG:4326", "EPSG:4258"),
        ("EPSG:4326", "EPSG:4269"),
        ("EPSG:4326", "EPSG:4979"),
        ("EPSG:4326", "EPSG:4326+5773"),
        ("EPSG:32632", "EPSG:32633"),
        ("EPSG:32632", "EPSG:25832"),
        ("EPSG:3857", "EPSG:3395"),
        ("EPSG:4326", "+proj=longlat +datum=WGS84 +pm=paris"),
        ("EPSG:32632", "+proj=utm +zone=32 +datum=WGS84 +units=km"),
        ("EPSG:32632", "+proj=utm +zone=32 +datum=WGS84 +axis=wsu"),
        # Nobody says which datum.
        ("EPSG:3035", "+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210000 +ellps=GRS80"),
        ("EPSG:4326", 'LOCAL_CS["local",UNIT["metre",1]]'),
    ],
)
def test_another_datum_projection_unit_or_direction_is_another_crs(one: str, other: str) -> None:
    first, second = CRS.from_user_input(one), CRS.from_user_input(other)
    assert not same_crs(first, second)
    assert not same_crs(second, first)
    assert not same_crs(esri(4326), second)
    assert same_crs(second, second)


def test_a_crs_that_proj_does_not_take_is_another() -> None:
    assert not same_crs(CRS.from_epsg(4326), CRS())


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
