"""Band rasters: what predict, cov and aoa leave for build, made window by window.

Each thread takes a window from its reading to its writing, so that with two threads or more
reading, computing and writing overlap, and never more than the step's own threads are at work.

The three steps differ in what they compute from a pixel's predictors and in nothing else, so the
reading of windows, the skipping of empty ones, the writing and the reporting are done once, here.
A band raster is a tiled GeoTIFF in float64 with NaN for nodata; blocks without any value are left
out of it.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import InvalidInput
from muster.raster.predictors import open_predictors
from muster.raster.write.cog import CogFormat, write_cog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from muster.model.step import StepContext
    from muster.raster.grid import Band, Window
    from muster.raster.predictors import PredictorStack
    from muster.raster.windows import WindowPlan
    from muster.raster.write.cog import CogWriter

FINGERPRINT_TAG = "MUSTER_FINGERPRINT"
RANGES_TAG = "MUSTER_RANGES"
"""Least and greatest value of each band, as JSON; null for a band without values."""

COV_DESCRIPTION = "coefficient of variation"
AOA_DESCRIPTION = "area of applicability"
"""By these names build finds the bands."""

_FORMAT = CogFormat(
    dtype="float64", nodata=math.nan, block_px=256, overviews=False, sparse=True, level=1
)

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class BandRaster:
    """What a band raster is to be.

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


def write_band_raster(
    stage: BandRaster,
    compute: Callable[[FloatArray], FloatArray],
    predictors: Sequence[str],
    names: Sequence[str],
    *,
    window_px: int | None = None,
    context: StepContext,
) -> dict[str, Any]:
    """Compute a band raster from predictors, each window read once.

    Parameters
    ----------
    stage : BandRaster
        What to write.
    compute : callable
        From predictor values, (pixel, predictor), float64, without gaps, to (band, pixel), float64;
        what is not finite becomes nodata.  Called only where there are pixels, by several threads
        at once.
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
    open_own = partial(
        open_predictors,
        predictors,
        names,
        threads=1,
        memory_mib=context.memory_mib,
        readers=context.threads,
    )
    with open_own() as stack:
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
            work = _Work(windows, compute, cog, context.progress)

            def help_out() -> None:
                with work.stopping_all_on_failure(), open_own() as own:
                    work.take_part(own)

            with (
                ThreadPoolExecutor(max(1, context.threads - 1)) as pool,
                work.stopping_all_on_failure(),
            ):
                helpers = [pool.submit(help_out) for _ in range(context.threads - 1)]
                work.take_part(stack)
            for helper in helpers:
                helper.result()
            if work.pixels_read == 0:
                raise InvalidInput(
                    "no pixel has all predictors",
                    where=", ".join(predictors),
                    got=f"{stack.grid.describe()}, all nodata in one predictor or another",
                    expected="predictors that overlap",
                    do="check the predictors' nodata and extents",
                )
            cog.tags[RANGES_TAG] = json.dumps(work.ranges())
        return {
            "pixels": stack.grid.whole.pixels,
            "pixels_with_predictors": work.pixels_read,
            "pixels_valid": work.pixels_valid,
            "windows": len(windows),
        }


def parse_ranges(text: str) -> dict[int, tuple[float, float]]:
    """Read the ranges of a band raster's bands, by their numbers; none where they are not whole."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    pairs = enumerate(found if isinstance(found, list) else [], start=1)
    return {number: (float(pair[0]), float(pair[1])) for number, pair in pairs if _is_range(pair)}


def _is_range(pair: Any) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(n, int | float) and abs(n) <= sys.float_info.max for n in pair)
        and bool(pair[0] <= pair[1])
    )


class _Work:
    """The windows of a band raster, and what threads have made of them."""

    def __init__(
        self,
        windows: WindowPlan,
        compute: Callable[[FloatArray], FloatArray],
        cog: CogWriter,
        progress: Callable[[float, str], None],
    ) -> None:
        self.pixels_read = 0
        self.pixels_valid = 0
        self._least: Any = math.inf
        self._greatest: Any = -math.inf
        self._compute = compute
        self._cog = cog
        self._progress = progress
        self._windows = iter(windows)
        self._count = len(windows)
        self._done = 0
        self._stopped = False
        self._taking = Lock()
        self._writing = Lock()

    def take_part(self, stack: PredictorStack) -> None:
        """Take window after window, until none is left."""
        while (window := self._next()) is not None:
            values, valid = stack.read_valid(window)
            layers = None
            finite_pixels = 0
            if len(values):
                results = self._compute(values)
                finite = np.isfinite(results)
                layers = np.full((len(results), window.pixels), np.nan)
                layers[:, valid] = np.where(finite, results, np.nan)
                least = np.where(finite, results, math.inf).min(axis=1)
                greatest = np.where(finite, results, -math.inf).max(axis=1)
                finite_pixels = int(np.count_nonzero(finite.all(axis=0)))
            with self._writing:
                if layers is not None:
                    self._least = np.minimum(self._least, least)
                    self._greatest = np.maximum(self._greatest, greatest)
                    self._cog.write(window, layers.reshape(-1, window.height, window.width))
                self.pixels_read += len(values)
                self.pixels_valid += finite_pixels
                self._done += 1
                self._progress(self._done / self._count, f"window {self._done} of {self._count}")

    def ranges(self) -> list[list[float] | None]:
        """Return (least, greatest) of each band; None for one without values."""
        pairs = zip(np.atleast_1d(self._least), np.atleast_1d(self._greatest), strict=True)
        return [[float(low), float(high)] if low <= high else None for low, high in pairs]

    @contextlib.contextmanager
    def stopping_all_on_failure(self) -> Iterator[None]:
        """Let a thread's error end the others as well, at their next window."""
        try:
            yield
        except BaseException:
            self._stopped = True
            raise

    def _next(self) -> Window | None:
        with self._taking:
            return None if self._stopped else next(self._windows, None)
