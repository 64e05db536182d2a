"""Resampling to another CRS, by GDAL, on pieces of the target that do not depend on the memory.

GDAL chooses a kernel's width and its view of the source anew for each piece that it is given, so
pieces that follow from a memory budget would show in the result.  Here they follow from the grids
alone (:mod:`muster.resampling.compute.warp_plan`); the transformation is exact for every cell, the
kernel's width is one for the whole target, and each piece sees all the source pixels around it, so
that no seam is left and any budget gives the same bytes.
"""

from __future__ import annotations

import copy
import math
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from muster.errors import ConfigError
from muster.raster.gdal import GDAL_ERRORS, explain_read_error, gdal_environment
from muster.raster.grid import Window
from muster.resampling.compute.fit import blank_of
from muster.resampling.compute.reader import StripReader, open_handles
from muster.resampling.compute.warp_plan import (
    LARGEST_VIEW_PX,
    MOST_VIEW_PX,
    SAMPLES,
    source_position,
    turn_of,
)
from muster.resampling.config.methods import AREA_METHODS, KERNEL_METHODS

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from muster.resampling.compute.axes import FloatArray
    from muster.resampling.compute.encode import Finish
    from muster.resampling.compute.fit import Fit
    from muster.resampling.compute.source import Source
    from muster.resampling.compute.warp_plan import Warp
    from muster.resampling.compute.windows import WorkPlan
    from muster.resampling.config.datasets import Dataset

_GDAL_METHODS = {
    "nearest": Resampling.nearest,
    "bilinear": Resampling.bilinear,
    "cubic": Resampling.cubic,
    "average": Resampling.average,
    "min": Resampling.min,
    "max": Resampling.max,
    "median": Resampling.med,
    "mode": Resampling.mode,
}

_EXACT_PX = 1e-9
"""How far, in source pixels, a cell's place may be off: GDAL's own 1/8 would show as seams, and
rasterio takes no 0."""

_HALF_TURN_DEG = 180.0

_SEAM_PX = 4
"""Pixels beyond the source's edges that GDAL is shown: none of them has a value."""

_ALL_ROUND = 0.75
"""Share of a turn from which on a view takes all longitudes."""

_WARP_MIB = 2048
"""More than a piece takes: GDAL must not divide it by itself."""


class WarpStream:
    """The windows of a target in another CRS than the source's.

    Parameters
    ----------
    source, dataset, fit, warp, work
        As planned.
    finish : Finish
        Type and nodata of the result.
    """

    def __init__(
        self,
        source: Source,
        dataset: Dataset,
        fit: Fit,
        warp: Warp,
        work: WorkPlan,
        *,
        finish: Finish,
    ) -> None:
        self.work = work
        self._source = source
        self._dataset = dataset
        self._fit = fit
        self.warp = warp
        self._finish = finish

    def with_work(self, work: WorkPlan) -> WarpStream:
        """Return the same stream with other windows."""
        other = copy.copy(self)
        other.work = work
        return other

    def windows(
        self, wanted: Container[Window] | None = None
    ) -> Iterator[tuple[Window, np.ndarray[Any, Any]]]:
        """Yield windows with their values, as ``SeparableStream`` does."""
        threads = self.work.threads
        with (
            gdal_environment(1, self.work.cache_mib),
            open_handles(self._source, threads, blank_of(self._source, self._dataset)) as (
                handles,
                pool,
            ),
        ):
            for window in self.work:
                if wanted is None or window in wanted:
                    yield window, self._compute(window, handles, pool)

    def _compute(
        self, window: Window, handles: Sequence[Any], pool: ThreadPoolExecutor
    ) -> np.ndarray[Any, Any]:
        result = np.empty((window.height, window.width), dtype=self._finish.dtype)
        pieces = list(self._pieces(window))

        def work(number: int) -> None:
            with gdal_environment(1, self.work.cache_mib), ThreadPoolExecutor(1) as own:
                for piece in pieces[number :: len(handles)]:
                    values = self._warp_piece(piece, handles[number], own)
                    row, col = piece.row - window.row, piece.col - window.col
                    into = result[row : row + piece.height, col : col + piece.width]
                    self._finish.put(values, into)

        for done in [pool.submit(work, number) for number in range(len(handles))]:
            done.result()
        return result

    def _pieces(self, window: Window) -> Iterator[Window]:
        side = self.warp.piece
        for row in range(window.row, window.row + window.height, side):
            for col in range(window.col, window.col + window.width, side):
                yield Window(
                    row,
                    col,
                    min(side, window.row + window.height - row),
                    min(side, window.col + window.width - col),
                )

    def _warp_piece(self, piece: Window, handle: Any, pool: ThreadPoolExecutor) -> FloatArray:
        view = self._find_view(piece)
        result: FloatArray = np.full((piece.height, piece.width), np.nan)
        if view is None:
            return result
        turn = turn_of(self._source.grid)
        # Round a pole, only the cell that it lies in needs all longitudes; for any other GDAL would
        # take the way round the globe for the cell's width where the source's edges meet.
        round_pole = turn is not None and view.width >= _ALL_ROUND * turn
        if (view.pixels > MOST_VIEW_PX or round_pole) and piece.pixels > 1:
            for part in _halves(piece):
                row, col = part.row - piece.row, part.col - piece.col
                into = result[row : row + part.height, col : col + part.width]
                into[:] = self._warp_piece(part, handle, pool)
            return result
        if view.pixels > LARGEST_VIEW_PX:
            raise ConfigError(
                "a cell of the target spans more source pixels than can be warped at once",
                where=f"{self._source.name}, cell {piece.row}, {piece.col}",
                got=f"{view.height} × {view.width} pixels",
                expected=f"at most {LARGEST_VIEW_PX:,}",
                do="average it to coarser pixels in its own CRS first",
            )
        values = self._read(view, handle, pool)
        if values is None:
            return result
        result = self._reproject(values, view, piece, self._dataset.method)
        least = self._dataset.min_valid_fraction
        if least > 0 and self._dataset.method != "nearest":
            how = "average" if self._dataset.method in AREA_METHODS else "bilinear"
            there = np.where(np.isnan(values), 0.0, 1.0)
            share = self._reproject(there, view, piece, how)
            result[~(share >= least - 1e-9)] = np.nan
        return result

    def _find_view(self, piece: Window) -> Window | None:
        """Find the source pixels that a piece looks at; None where there are none.

        Columns may lie beyond the source's edges, where it goes round the globe.
        """
        grid = self._source.grid
        rows = np.linspace(piece.row, piece.row + piece.height, SAMPLES)
        cols = np.linspace(piece.col, piece.col + piece.width, SAMPLES)
        row, col = (a.ravel() for a in np.meshgrid(rows, cols, indexing="ij"))
        r, c = source_position(grid, self.work.grid, row, col)
        good = np.isfinite(r) & np.isfinite(c)
        if not good.any():
            return None
        r, c = r[good], c[good]
        turn = turn_of(grid)
        if turn is not None:
            # Round the globe, pixels are looked for where most of them are.
            start = _widest_gap(c, turn)
            c = start + np.mod(c - start, turn)
        down, across = (3 + 3 * math.ceil(max(1.0, ratio)) for ratio in self.warp.ratio)
        spare = 0.05 * (r.max() - r.min()), 0.05 * (c.max() - c.min())
        top = math.floor(r.min() - spare[0]) - down
        bottom = math.ceil(r.max() + spare[0]) + down
        left = math.floor(c.min() - spare[1]) - across
        right = math.ceil(c.max() + spare[1]) + across
        if turn is not None and right - left >= _ALL_ROUND * turn:
            # A pole lies inside: all longitudes, and rows up to it.
            edge = across if self._wraps and self._dataset.method in KERNEL_METHODS else 0
            left, right = -edge, grid.width + edge
            top = min(top, 0) if top < grid.height / 2 else top
            bottom = max(bottom, grid.height) if bottom > grid.height / 2 else bottom
        elif turn is not None:
            turns = round((grid.width / 2 - (left + right) / 2) / turn)
            left, right = left + round(turns * turn), right + round(turns * turn)
        # What lies outside the source matters where shares of a cell do; else a seam is enough.
        if self._dataset.min_valid_fraction == 0:
            down, across = min(down, _SEAM_PX), min(across, _SEAM_PX)
        if self._fit.period is None:
            left, right = max(left, -across), min(right, grid.width + across)
        top, bottom = max(top, -down), min(bottom, grid.height + down)
        if bottom <= top or right <= left:
            return None
        return Window(top, left, bottom - top, right - left)

    @property
    def _wraps(self) -> bool:
        """Whether the source goes all round the globe."""
        return self._fit.period == self._source.grid.width

    def _read(self, view: Window, handle: Any, pool: ThreadPoolExecutor) -> FloatArray | None:
        """Read a view as float64, NaN where there is no value; None where there is none at all."""
        blank = blank_of(self._source, self._dataset)
        strip = StripReader(
            self._source,
            (view.col, view.col + view.width),
            view.height,
            period=self._fit.period,
            handles=[handle],
            pool=pool,
            blank=blank,
            categories=self._dataset.categories,
        )
        strip.need(view.row, view.row + view.height)
        rows = strip.rows[: max(0, view.row + view.height - strip.first)]
        if not rows.size or not strip.there.any():
            return None
        stored = rows.astype(np.float64)
        values = stored * self._source.scale + self._source.offset
        least, greatest = self._dataset.range or (-np.finfo(float).max, np.finfo(float).max)
        with np.errstate(invalid="ignore"):
            bad = ~((values >= least) & (values <= greatest))
        if blank is not None:
            bad |= stored == blank
        values[bad] = np.nan
        values[:, ~strip.there] = np.nan
        result = np.full((view.height, view.width), np.nan)
        first = strip.first - view.row
        result[first : first + len(values)] = values
        return result

    def _reproject(
        self, values: FloatArray, view: Window, piece: Window, method: str
    ) -> FloatArray:
        """Warp a view of the source to a piece of the target."""
        s, t = self._source.grid.transform, self.work.grid.transform
        top = s.f if s.e < 0 else s.f + s.e * self._source.grid.height
        down, across = self.warp.ratio
        place = Affine(s.a, 0, s.c + view.col * s.a, 0, -abs(s.e), top - view.row * abs(s.e))
        profile = {
            "driver": "GTiff",
            "height": view.height,
            "width": view.width,
            "count": 1,
            "dtype": "float64",
            "crs": self._source.grid.crs,
            "transform": place,
            "nodata": np.nan,
        }
        try:
            with MemoryFile() as memory:
                with memory.open(**profile) as dataset:
                    dataset.write(values, 1)
                with (
                    memory.open() as dataset,
                    WarpedVRT(
                        dataset,
                        src_crs=_centred(self._source.grid.crs, place.c, view.width * s.a),
                        crs=self.work.grid.crs,
                        transform=t @ Affine.translation(piece.col, piece.row),
                        height=piece.height,
                        width=piece.width,
                        src_nodata=np.nan,
                        nodata=np.nan,
                        resampling=_GDAL_METHODS[method],
                        tolerance=_EXACT_PX,
                        warp_mem_limit=_WARP_MIB,
                        # One width of the kernel for all pieces.
                        XSCALE=repr(1 / max(1.0, across)),
                        YSCALE=repr(1 / max(1.0, down)),
                        SAMPLE_GRID="YES",
                        SOURCE_EXTRA="8",
                    ) as warped,
                ):
                    result: FloatArray = warped.read(1)
        except GDAL_ERRORS as error:
            raise explain_read_error(error, self._source.name, "raster cannot be warped") from error
        return result


def _centred(crs: CRS, west: float, width: float) -> CRS:
    """Have longitudes counted round the middle of a view that lies beyond 180°."""
    if not crs.is_geographic or (west >= -_HALF_TURN_DEG and west + width <= _HALF_TURN_DEG):
        return crs
    centre = repr(west + width / 2)
    text = re.sub(r',AUTHORITY\["[^"]*","[^"]*"\]\]$', "]", crs.to_wkt(version="WKT1_GDAL"))
    # A name and no code of its own: GDAL keeps transformations by these, whatever the centre.
    text = re.sub(r'^GEOGCS\["[^"]*"', f'GEOGCS["around {centre}"', text)
    return CRS.from_wkt(f'{text[:-1]},EXTENSION["CENTER_LONG","{centre}"]]')


def _halves(piece: Window) -> tuple[Window, Window]:
    if piece.height >= piece.width:
        half = piece.height // 2
        return (
            Window(piece.row, piece.col, half, piece.width),
            Window(piece.row + half, piece.col, piece.height - half, piece.width),
        )
    half = piece.width // 2
    return (
        Window(piece.row, piece.col, piece.height, half),
        Window(piece.row, piece.col + half, piece.height, piece.width - half),
    )


def _widest_gap(positions: FloatArray, turn: float) -> float:
    """Return where to begin on a circle so that positions lie in one run."""
    around = np.unique(np.mod(positions, turn))
    gaps = np.diff(np.append(around, around[0] + turn))
    return float(around[(int(np.argmax(gaps)) + 1) % len(around)])
