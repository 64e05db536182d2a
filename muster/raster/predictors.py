"""Predictors as a model wants them: one row a pixel, one column a predictor, in the model's order.

Users keep predictors as one stack, as a file each, as a VRT, or on S3, packed or not, in any
order; a model knows names.  Bands are found by name, and a pixel that lacks any of them has no
value.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from muster import storage
from muster.errors import InvalidInput, MissingInput
from muster.raster.gdal import (
    GDAL_ERRORS,
    explain_read_error,
    gdal_environment,
    open_raster,
)
from muster.raster.grid import Grid, Window, check_same_grid
from muster.raster.nodata import find_valid, stored_nodata
from muster.raster.windows import MemoryPlan, WindowPlan, plan_memory, plan_windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FloatArray = np.ndarray[Any, np.dtype[np.float64]]
_BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
_IntArray = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True)
class SourceBand:
    """One predictor in one file.

    Attributes
    ----------
    column : int
        Position among the model's predictors.
    band : int
        Number of the band in its file, from 1.
    nodata : float, int or None
        As :func:`muster.raster.nodata.stored_nodata` gives it.
    masked : bool
        Whether the file has a mask of its own (or alpha) that must be read as well.
    scale, offset : float
        value = stored × scale + offset.
    """

    column: int
    band: int
    nodata: float | int | None
    masked: bool
    scale: float
    offset: float


@dataclass(frozen=True)
class Source:
    """An open file and the bands that are wanted of it.

    Attributes
    ----------
    uri : str
        As the user gave it.
    dataset : rasterio.DatasetReader
        Open.
    bands : tuple of SourceBand
        In the file's order.
    together : bool
        Whether the bands lie interleaved, so that reading one costs as much as reading all.
    """

    uri: str
    dataset: Any
    bands: tuple[SourceBand, ...]
    together: bool


@dataclass(frozen=True)
class PredictorStack:
    """Open predictors, matched to a model.

    Attributes
    ----------
    names : tuple of str
        The model's predictors; the order of the columns that :meth:`read` returns.
    grid : Grid
        The grid that all files share.
    sources : tuple of Source
        The files.
    block : tuple of int
        (height, width) of the files' blocks, in pixels.
    memory : MemoryPlan
        What windows and cache may take.
    """

    names: tuple[str, ...]
    grid: Grid
    sources: tuple[Source, ...]
    block: tuple[int, int]
    memory: MemoryPlan

    def windows(self, window_px: int | None = None, *, work_values: int = 0) -> WindowPlan:
        """Plan the windows that this stack is worked through in.

        Parameters
        ----------
        window_px : int, optional
            Longest side of a window, in pixels; by default as large as memory allows.
        work_values : int
            How many doubles a pixel the caller needs beside the predictors.
        """
        stored = max(
            sum(_itemsize(source) for _ in source.bands) if source.together else _itemsize(source)
            for source in self.sources
        )
        # The matrix, once more while its valid rows are picked out, what is stored, the masks.
        pixel_bytes = 16 * len(self.names) + stored + 8 * work_values + 4
        return plan_windows(self.grid, self.block, self.memory.pixels(pixel_bytes), window_px)

    def read(self, window: Window) -> tuple[_FloatArray, _BoolArray]:
        """Read all predictors of a window.

        Parameters
        ----------
        window : Window
            Inside the grid.

        Returns
        -------
        values : ndarray, (pixel, predictor), float64
            Pixels row by row; scale and offset are applied.  Rows that are not valid hold NaN.
        valid : ndarray, (pixel,), bool
            False where any predictor is nodata, NaN or infinite, or masked.

        Raises
        ------
        InvalidInput
            When a file is broken.
        MissingInput, Transient
            When a file on S3 is gone, or the network failed.
        """
        picked, valid = self.read_valid(window)
        values = np.full((window.pixels, len(self.names)), np.nan)
        values[valid] = picked
        return values, valid

    def read_valid(self, window: Window) -> tuple[_FloatArray, _BoolArray]:
        """Read the pixels of a window that have all predictors, and stop where none is left.

        Parameters
        ----------
        window : Window
            Inside the grid.

        Returns
        -------
        values : ndarray, (valid pixel, predictor), float64, C-contiguous
            Only the valid pixels, row by row; scale and offset are applied.
        valid : ndarray, (pixel,), bool
            As :meth:`read` gives it.

        Raises
        ------
        InvalidInput, MissingInput, Transient
            As :meth:`read`.
        """
        # Only what is still complete is carried on: a window that is mostly sea costs little more
        # than its land.
        kept: _IntArray | None = None
        values: _FloatArray | None = None
        for source in self.sources:
            for bands in _group(source):
                layers, masks = _read_bands(source, bands, window)
                for band, layer, mask in zip(bands, layers, masks, strict=True):
                    stored = layer if kept is None else layer[kept]
                    complete = find_valid(stored, band.nodata)
                    if mask is not None:
                        complete &= mask if kept is None else mask[kept]
                    if kept is None or values is None:
                        kept = np.flatnonzero(complete)
                        values = np.empty((len(kept), len(self.names)))
                        stored = stored[kept]
                    elif not complete.all():
                        kept, values, stored = kept[complete], values[complete], stored[complete]
                    column = values[:, band.column]
                    column[:] = stored
                    if (band.scale, band.offset) != (1.0, 0.0):
                        column *= band.scale
                        column += band.offset
                    if not len(kept):
                        return np.empty((0, len(self.names))), np.zeros(window.pixels, np.bool_)
        if kept is None or values is None:
            raise InvalidInput("no predictors to read", expected="at least one")
        valid = np.zeros(window.pixels, dtype=np.bool_)
        valid[kept] = True
        return values, valid


@contextlib.contextmanager
def open_predictors(
    uris: Sequence[str],
    names: Sequence[str],
    *,
    threads: int = 1,
    memory_mib: int | None = None,
    readers: int = 1,
) -> Iterator[PredictorStack]:
    """Open rasters and match their bands to a model's predictors.

    A band's name is its description; a file of one band without a description is named by its
    file's stem.

    Parameters
    ----------
    uris : sequence of str
        Paths, ``file://`` or ``s3://``: one stack, many files, VRTs, in any order.
    names : sequence of str
        The model's predictors, in its order.
    threads : int
        How many threads GDAL may use.
    memory_mib : int, optional
        The memory that the whole process may take, in MiB.
    readers : int
        How many windows are held at once, by as many threads; each opens the files for itself.

    Yields
    ------
    PredictorStack
        Open until the context ends.

    Raises
    ------
    InvalidInput
        When a band is absent or there twice, a file is no raster or has no CRS, or grids differ.
    MissingInput
        When a file is not there.
    Transient
        When the network failed.
    """
    if not uris or not names:
        raise InvalidInput(
            "no predictors given",
            got=f"{len(uris)} files, {len(names)} names",
            expected="at least one of each",
        )
    memory = plan_memory(memory_mib, windows=readers)
    with gdal_environment(threads, memory.cache_mib), contextlib.ExitStack() as files:
        opened = [(uri, files.enter_context(open_raster(uri))) for uri in dict.fromkeys(uris)]
        grid = _check_grids(opened)
        sources = _match_bands(opened, names)
        block = _find_block(sources)
        yield PredictorStack(tuple(names), grid, sources, block, memory)


def name_bands(uri: str, dataset: Any) -> list[str]:
    """List the names of a file's bands; empty for a band that has none."""
    descriptions = [(text or "").strip() for text in dataset.descriptions]
    if len(descriptions) == 1 and not descriptions[0]:
        path = storage.local_path(uri)
        return [PurePosixPath(uri).stem if path is None else path.stem]
    return descriptions


def _check_grids(opened: Sequence[tuple[str, Any]]) -> Grid:
    first_uri, first = opened[0]
    grid = Grid.from_dataset(first, first_uri)
    for uri, dataset in opened[1:]:
        other = Grid.from_dataset(dataset, uri)
        problems = check_same_grid(grid, other)
        if problems:
            raise InvalidInput(
                f"predictors lie on different grids ({', '.join(problems)})",
                where=uri,
                got=other.describe(),
                expected=f"{grid.describe()}, as {first_uri}",
                do="bring all predictors to one grid, for example with gdalwarp",
            )
    return grid


def _match_bands(opened: Sequence[tuple[str, Any]], names: Sequence[str]) -> tuple[Source, ...]:
    present = [
        (name, uri, number)
        for uri, dataset in opened
        for number, name in enumerate(name_bands(uri, dataset), start=1)
    ]
    counts = Counter(name for name, _, _ in present)
    absent = [name for name in names if counts[name] == 0]
    if absent:
        nameless = counts.pop("", 0)
        found = sorted(counts) + ([f"{nameless} without a description"] if nameless else [])
        raise InvalidInput(
            "predictors lack bands that the model needs",
            where=", ".join(uri for uri, _ in opened),
            got=f"absent {', '.join(absent)}; present {', '.join(found)}",
            expected="a band for each predictor, named by its description",
            do="add the bands, or set the descriptions of those that are there",
        )
    twice = [name for name in names if counts[name] > 1]
    if twice:
        files = ", ".join(uri for name, uri, _ in present if name == twice[0])
        raise InvalidInput(
            "predictor is there more than once",
            where=files,
            got=f"{counts[twice[0]]} bands named {twice[0]}",
            expected="one",
            do="leave one of them out, or rename it",
        )
    columns = {name: column for column, name in enumerate(names)}
    sources = []
    for uri, dataset in opened:
        bands = tuple(
            _describe_band(uri, dataset, number, columns[name])
            for number, name in enumerate(name_bands(uri, dataset), start=1)
            if name in columns
        )
        if bands:
            together = dataset.interleaving is None or dataset.interleaving.name != "band"
            sources.append(Source(uri, dataset, bands, together))
    return tuple(sources)


def _describe_band(uri: str, dataset: Any, number: int, column: int) -> SourceBand:
    dtype = dataset.dtypes[number - 1]
    if np.dtype(dtype).kind not in "iuf":
        raise InvalidInput(
            "predictor does not hold real numbers",
            where=f"{uri}, band {number}",
            got=dtype,
            expected="integers or floats",
        )
    flags = {flag.name for flag in dataset.mask_flag_enums[number - 1]}
    return SourceBand(
        column=column,
        band=number,
        nodata=stored_nodata(dataset.nodatavals[number - 1], dtype),
        masked=not flags & {"all_valid", "nodata"},
        scale=float(dataset.scales[number - 1]),
        offset=float(dataset.offsets[number - 1]),
    )


def _find_block(sources: Sequence[Source]) -> tuple[int, int]:
    """Take the blocks of the first file, and of the first file behind it if it is a VRT."""
    source = sources[0]
    if source.dataset.driver == "VRT":
        # A VRT claims blocks of its own; what is decoded are those of its files.
        behind = [path for path in source.dataset.files if path != source.dataset.name]
        with contextlib.suppress(InvalidInput, MissingInput, *GDAL_ERRORS):
            for path in behind[:1]:
                if not path.startswith("/vsi"):
                    with open_raster(path) as dataset:
                        return _block_of(dataset)
    return _block_of(source.dataset)


def _block_of(dataset: Any) -> tuple[int, int]:
    height, width = dataset.block_shapes[0]
    return int(height), int(width)


def _itemsize(source: Source) -> int:
    return max(int(np.dtype(dtype).itemsize) for dtype in source.dataset.dtypes)


def _group(source: Source) -> list[tuple[SourceBand, ...]]:
    """Say which bands are read in one go.

    One alone at first, which tells whether the others need to be read: most windows of a globe
    are sea.  Where bands are interleaved the rest comes together, out of GDAL's cache, for no
    more than all would have cost.
    """
    alike = len(set(source.dataset.dtypes)) == 1  # GDAL reads bands of one type together
    if source.together and alike:
        return [group for group in (source.bands[:1], source.bands[1:]) if group]
    return [(band,) for band in source.bands]


def _read_bands(
    source: Source, bands: Sequence[SourceBand], window: Window
) -> tuple[list[np.ndarray[Any, Any]], list[_BoolArray | None]]:
    indexes = [band.band for band in bands]
    try:
        layers = source.dataset.read(indexes, window=window.ranges)
        masks = [
            source.dataset.read_masks(band.band, window=window.ranges).reshape(-1) > 0
            if band.masked
            else None
            for band in bands
        ]
    except GDAL_ERRORS as error:
        raise explain_read_error(error, source.uri, "raster cannot be read") from error
    return [layer.reshape(-1) for layer in layers], masks
