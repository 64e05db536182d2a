"""Rasters to bring to a target, and all that comes of one, put together from its windows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.raster.grid import Grid
from muster.resampling.compute.plan_stream import Demand, Prepared, prepare
from muster.resampling.compute.source import Source, look_at_source
from muster.resampling.config.datasets import Dataset
from tests.unit.raster.conftest import bucket  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAN = np.nan

PLANE = Affine(1000, 0, -7_000_000, 0, -500, 3_000_000)
"""Pixels twice as wide as high, so that rows and columns cannot be exchanged unseen."""

Array = np.ndarray[Any, Any]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "source.tif")


def write(path: str | Path, values: Array, *, mask: Array | None = None, **profile: Any) -> str:
    """Write (row, col), or (band, row, col), as GeoTIFF and return its path."""
    values = values if values.ndim == 3 else values[np.newaxis]
    said = {key: profile.pop(key) for key in ("scales", "offsets", "colorinterp") if key in profile}
    profile = {
        "driver": "GTiff",
        "dtype": values.dtype,
        "crs": "EPSG:6933",
        "transform": PLANE,
        **profile,
    }
    count, height, width = values.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", count=count, height=height, width=width, **profile) as dataset,
    ):
        dataset.write(values)
        for key, value in said.items():
            setattr(dataset, key, value)
        if mask is not None:
            dataset.write_mask(mask)
    return str(path)


def target_px(
    transform: Affine,
    row: tuple[float, float, int],
    col: tuple[float, float, int],
    crs: str = "EPSG:6933",
) -> Grid:
    """Make a target from the source pixels that it lies on.

    Parameters
    ----------
    transform : Affine
        The source's; rows running down.
    row, col : tuple
        Where the target begins, how high (wide) a cell is, both in source pixels, and how many
        cells there are.
    """
    t = transform
    place = Affine(t.a * col[1], 0, t.c + t.a * col[0], 0, t.e * row[1], t.f + t.e * row[0])
    return Grid(CRS.from_user_input(crs), place, row[2], col[2])


def ready(
    source: str | Sequence[str] | Source,
    target: Grid,
    method: str,
    demand: Demand = Demand(),  # noqa: B008 - frozen
    tolerance_px: float = 1e-3,
    **said: Any,
) -> Prepared:
    """Prepare a dataset as a plan and a step do."""
    if not isinstance(source, Source):
        source = look_at_source([source] if isinstance(source, str) else source)
    dataset = Dataset(name="a", path="/a.tif", method=method, **said)
    return prepare(source, target, dataset, demand, tolerance_px=tolerance_px)


def whole(prepared: Prepared, **work: Any) -> Array:
    """Put all windows together: every cell is given exactly once."""
    stream = prepared.stream.with_work(replace(prepared.stream.work, **work))
    grid = stream.work.grid
    result = np.empty((grid.height, grid.width), prepared.finish.dtype)
    times = np.zeros(result.shape, int)
    for window, values in stream.windows():
        place = tuple(slice(*one) for one in window.ranges)
        assert values.dtype == result.dtype
        assert values.shape == (window.height, window.width)
        result[place] = values
        times[place] += 1
    assert (times == 1).all()
    return result


def bring(source: str | Sequence[str] | Source, target: Grid, method: str, **said: Any) -> Array:
    """Bring a raster to a target: (row, col) as float64, NaN for nodata."""
    prepared = ready(source, target, method, **said)
    values = whole(prepared)
    result = values.astype(np.float64)
    if not np.isnan(prepared.finish.nodata):
        result[values == prepared.finish.nodata] = np.nan
    return result
