"""Rasters to read, here and on S3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.raster.grid import Grid
from tests.s3_server import empty_bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TRANSFORM = Affine(1000, 0, -7_000_000, 0, -500, 3_000_000)
"""Pixels twice as wide as high, so that x and y cannot be taken for each other unseen."""


@pytest.fixture
def make_grid() -> Callable[[int, int], Grid]:
    """Make a grid of (height, width)."""

    def make(height: int, width: int) -> Grid:
        return Grid(CRS.from_epsg(6933), TRANSFORM, height, width)

    return make


@pytest.fixture
def write_raster(tmp_path: Path) -> Callable[..., str]:
    """Write (band, row, col) as GeoTIFF and return its path."""

    def write(name: str, values: np.ndarray[Any, Any], **profile: Any) -> str:
        described = {
            key: profile.pop(key) for key in ("descriptions", "scales", "offsets") if key in profile
        }
        profile = {
            "driver": "GTiff",
            "dtype": values.dtype,
            "crs": "EPSG:6933",
            "transform": TRANSFORM,
            **profile,
        }
        count, height, width = values.shape
        path = tmp_path / name
        with rasterio.open(path, "w", count=count, height=height, width=width, **profile) as data:
            data.write(values)
            for key, value in described.items():
                setattr(data, key, value)
        return str(path)

    return write


@pytest.fixture
def ramp() -> Callable[[int, int, int], np.ndarray[Any, Any]]:
    """Make (band, row, col) in which every value names its band, row and column."""

    def make(bands: int, height: int, width: int) -> np.ndarray[Any, Any]:
        band, row, col = np.mgrid[0:bands, 0:height, 0:width]
        return (band * 10_000 + row * 100 + col).astype(np.float32)

    return make


@pytest.fixture
def bucket(s3_server: str) -> Iterator[Any]:
    """Make an empty bucket, and point boto3 and GDAL to it by the environment alone."""
    with empty_bucket(s3_server, "predictors"):
        yield boto3.resource("s3").Bucket("predictors")
