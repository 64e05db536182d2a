"""Stage rasters: what predict, cov and aoa leave for build, made window by window.

The three steps differ in what they compute from a pixel's predictors and in nothing else, so the
reading of windows, the skipping of empty ones, the writing and the reporting are done once, here.
A stage raster is a tiled GeoTIFF in float64 with NaN for nodata; blocks without any value are left
out of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import InvalidInput
from muster.raster.cog import CogFormat, write_cog
from muster.raster.predictors import open_predictors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from muster.jobs.step import StepContext
    from muster.raster.grid import Band

FINGERPRINT_TAG = "MUSTER_FINGERPRINT"

COV_DESCRIPTION = "coefficient of variation"
AOA_DESCRIPTION = "area of applicability"
"""By these names build finds the bands."""

_FORMAT = CogFormat(
    dtype="float64", nodata=math.nan, block_px=256, overviews=False, sparse=True, level=1
)

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class StageRaster:
    """What a stage raster is to be.

    Attributes
    ----------
    path : Path
        Where it is written.
    bands : tuple of Band
        In order.
    fingerprint : str
        Of everything that it is made from; empty where none is recorded.
    work_values : int
        How many doubles a pixel the computation needs beside predictors and bands.
    """

    path: Path
    bands: tuple[Band, ...]
    fingerprint: str = ""
    work_values: int = 0


def write_stage(
    stage: StageRaster,
    compute: Callable[[FloatArray], FloatArray],
    predictors: Sequence[str],
    names: Sequence[str],
    *,
    window_px: int | None = None,
    context: StepContext,
) -> dict[str, Any]:
    """Compute a stage raster from predictors, each window read once.

    Parameters
    ----------
    stage : StageRaster
        What to write.
    compute : callable
        From predictor values, (pixel, predictor), float64, without gaps, to (band, pixel), float64;
        what is not finite becomes nodata.  Called only where there are pixels.
    predictors : sequence of str
        URIs of the predictors.
    names : sequence of str
        The model's predictors, in its order.
    window_px : int, optional
        Longest side of a window, in pixels; the file does not depend on it.
    context : StepContext
        Threads, memory, scratch folder, progress.

    Returns
    -------
    dict
        ``pixels``, ``pixels_with_predictors``, ``pixels_valid`` (that have all bands) and
        ``windows``.

    Raises
    ------
    InvalidInput
        When the predictors do not fit the model or each other, no pixel has all predictors, or
        the output cannot be written.
    MissingInput
        When a predictor is not there.
    Transient
        When there is no space, or the network failed.
    """
    read = valid_pixels = 0
    with open_predictors(
        predictors, names, threads=context.threads, memory_mib=context.memory_mib
    ) as stack:
        work_values = stage.work_values + 2 * len(stage.bands)
        windows = stack.windows(window_px, work_values=work_values)
        with write_cog(
            stage.path,
            stack.grid,
            stage.bands,
            _FORMAT,
            tags={FINGERPRINT_TAG: stage.fingerprint} if stage.fingerprint else {},
            scratch=context.scratch,
            threads=context.threads,
            memory_mib=context.memory_mib,
        ) as cog:
            count = len(windows)
            for number, window in enumerate(windows, start=1):
                values, valid = stack.read_valid(window)
                if len(values):
                    results = compute(values)
                    finite = np.isfinite(results)
                    layers = np.full((len(stage.bands), window.pixels), np.nan)
                    layers[:, valid] = np.where(finite, results, np.nan)
                    cog.write(window, layers.reshape(-1, window.height, window.width))
                    read += len(values)
                    valid_pixels += int(np.count_nonzero(finite.all(axis=0)))
                context.progress(number / count, f"window {number} of {count}")
            if read == 0:
                raise InvalidInput(
                    "no pixel has all predictors",
                    where=", ".join(predictors),
                    got=f"{stack.grid.describe()}, all nodata in one predictor or another",
                    expected="predictors that overlap",
                    do="check the predictors' nodata and extents",
                )
        return {
            "pixels": stack.grid.whole.pixels,
            "pixels_with_predictors": read,
            "pixels_valid": valid_pixels,
            "windows": count,
        }
