"""What a comparison of two rasters says: frozen types that JSON and texts are made from.

What reads a comparison needs no raster library: it is imported where one is concluded only.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muster.raster.compare.difference import Greatest, ValueDifference
    from muster.raster.grid import Grid


@dataclass(frozen=True)
class Place:
    """Where the greatest difference is.

    Attributes
    ----------
    difference : float
        B − A.
    row, col : int
        The pixel, from 0.
    x, y : float
        Its centre, in the CRS's units.
    lon, lat : float or None
        Its centre in degrees (WGS 84); None where the CRS cannot be brought to it.
    """

    difference: float
    row: int
    col: int
    x: float
    y: float
    lon: float | None
    lat: float | None


@dataclass(frozen=True)
class CoverageFacts:
    """Where two rasters have values.

    Attributes
    ----------
    valid_in_both, only_a, only_b : int
        Pixels with a value.
    identical_pixels : int
        Of those valid in both, pixels of the same value.
    """

    valid_in_both: int
    only_a: int
    only_b: int
    identical_pixels: int


@dataclass(frozen=True)
class ValueFacts(CoverageFacts):
    """How two rasters of values differ; differences are B − A, over the pixels valid in both.

    Attributes
    ----------
    unit : str
        Of all differences.
    mean_difference, rmsd, mae : float or None
        Bias, root mean square difference, mean absolute difference; None without common pixels.
    quantiles : dict of str to (float or None)
        "0.05", "0.5", "0.95" → quantile of the difference.
    correlation : float or None
        Pearson's; None where either raster does not vary.
    greatest : Place or None
        The greatest absolute difference; None where there is none but zero.
    """

    unit: str
    mean_difference: float | None
    rmsd: float | None
    mae: float | None
    quantiles: dict[str, float | None]
    correlation: float | None
    greatest: Place | None


def conclude_values(difference: ValueDifference, grid: Grid, unit: str) -> ValueFacts:
    """Conclude from the differences of all windows, after the second pass."""
    from muster.raster.compare.difference import PROBABILITIES

    coverage = difference.coverage
    quantiles = zip(PROBABILITIES, difference.quantiles(), strict=True)
    return ValueFacts(
        valid_in_both=coverage.valid_in_both,
        only_a=coverage.only_a,
        only_b=coverage.only_b,
        identical_pixels=difference.identical_pixels,
        unit=unit,
        mean_difference=_finite(difference.mean),
        rmsd=_finite(difference.root_mean_square),
        mae=_finite(difference.mean_absolute),
        quantiles={f"{p:g}": _finite(value) for p, value in quantiles},
        correlation=_finite(difference.correlation),
        greatest=_locate(difference.greatest, grid),
    )


def share_of(part: int, whole: int) -> float | None:
    """Return a share; None of nothing."""
    return part / whole if whole else None


def _locate(found: Greatest | None, grid: Grid) -> Place | None:
    from rasterio import warp
    from rasterio.crs import CRS

    from muster.raster.gdal import GDAL_ERRORS

    if found is None or found.difference == 0:
        return None
    x, y = grid.transform @ (found.col + 0.5, found.row + 0.5)
    lon: float | None = None
    lat: float | None = None
    with contextlib.suppress(*GDAL_ERRORS):
        (lon,), (lat,) = warp.transform(grid.crs, CRS.from_epsg(4326), [x], [y])
    return Place(
        found.difference, found.row, found.col, float(x), float(y), _finite(lon), _finite(lat)
    )


def _finite(value: float | None) -> float | None:
    """JSON knows no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None
