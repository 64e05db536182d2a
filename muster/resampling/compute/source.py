"""What a source raster is, and how it is opened: one file, or several that lie on one grid.

Several files are shown by GDAL as one (a VRT, made in memory from their heads alone).  Facts are
taken once, when a run is planned; a step looks again, since files change.
"""

from __future__ import annotations

import contextlib
import fnmatch
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import rasterio

from muster import storage
from muster.errors import InvalidInput, MissingInput
from muster.raster.gdal import (
    GDAL_ERRORS,
    explain_read_error,
    gdal_environment,
    gdal_path,
    open_raster,
    uris_of,
)
from muster.raster.grid import ALIGNMENT_TOLERANCE_PX, Grid, same_crs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_GLOB = frozenset("*?[")
_MOST_FILES = 20_000
_CACHE_MIB = 32
_NUMBERS = "iuf"
_NO_PIXELS = (".aux.xml", ".ovr")


@dataclass(frozen=True)
class Source:
    """One band of a raster, as it is stored.

    Attributes
    ----------
    uris : tuple of str
        Its files, sorted.
    band : int
        From 1.
    grid : Grid
        As stored: rows may run upwards.
    dtype : str
        Of the stored values, or a wider one that they are read as.
    nodata : float or None
        As the file declares it.
    scale, offset : float
        value = stored × scale + offset.
    block : tuple of int
        (height, width) of what is decoded at a time, in pixels.
    overviews : tuple of int
        Decimation factors of its overviews, which nothing here reads.
    masked : bool
        Whether a mask beside the values says which pixels have one.
    mosaic : str or None
        The VRT that shows several files as one.
    gaps : float
        Share of its pixels that none of the files covers.
    behind : tuple of str
        URIs of other files that its pixels come from: what a VRT shows, masks, headers.
    """

    uris: tuple[str, ...]
    band: int
    grid: Grid
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    block: tuple[int, int]
    overviews: tuple[int, ...]
    masked: bool
    mosaic: str | None = None
    gaps: float = 0.0
    behind: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How the source is called in messages."""
        more = f" and {len(self.uris) - 1} more" if len(self.uris) > 1 else ""
        return f"{self.uris[0]}{more}"

    @property
    def files(self) -> tuple[str, ...]:
        """All files that its pixels come from."""
        return self.uris + self.behind

    @property
    def itemsize(self) -> int:
        """Bytes of a stored value."""
        return np.dtype(self.dtype).itemsize


def find_files(location: str) -> tuple[str, ...]:
    """List the files that a location means: itself, or what its glob matches, sorted.

    Raises
    ------
    MissingInput
        When there is none.
    InvalidInput
        When a folder's name is a glob, or the glob matches far too many.
    """
    folder, slash, pattern = location.rpartition("/")
    if not _GLOB & set(pattern):
        if _GLOB & set(folder) and not storage.exists(location):
            raise InvalidInput(
                "only the last part of a path may be a glob", where=location, got=folder
            )
        return (location,)
    if slash and storage.local_path(location) is not None and storage.exists(location):
        return (location,)  # a file may have any name
    names = fnmatch.filter(storage.list(folder or "."), pattern)
    if not names:
        raise MissingInput("no file matches", where=location, do="check the folder and the pattern")
    if len(names) > _MOST_FILES:
        raise InvalidInput(
            "too many files match", where=location, got=len(names), expected=f"≤ {_MOST_FILES}"
        )
    return tuple(storage.join(folder, name) for name in names)


def read_versions(source: Source) -> tuple[str, ...]:
    """Say which version of each of its files is there, and last what their pixels mean.

    A text is another one when the file's content has changed.  What pixels mean may stand in a file
    that is not listed, since viewers write statistics into it as well.
    """
    stats = [storage.stat(uri) for uri in source.files]
    grid = source.grid
    meaning = (
        f"{source.dtype}, nodata {source.nodata}, × {source.scale!r} + {source.offset!r},"
        f" {'masked' if source.masked else 'no mask'}, {grid.height} × {grid.width} pixels by"
        f" {grid.transform.to_gdal()} in {grid.crs.to_string()}"
    )
    return (*(f"{stat.bytes} {stat.version}" for stat in stats), meaning)


def look_at_source(uris: Sequence[str], band: int = 1) -> Source:
    """Open a raster's files and say what it is, without reading a pixel.

    Raises
    ------
    MissingInput
        When a file is not there.
    InvalidInput
        When it is no raster, has no CRS or geotransform, no such band, complex values, a rotated
        transform, or several files do not lie on one grid.
    Transient
        When storage did not answer.
    """
    # GDAL learns only by its settings where S3 is.
    with gdal_environment(threads=1, cache_mib=_CACHE_MIB):
        looked = [_look_at_file(uri, band) for uri in uris]
    if len(looked) == 1:
        return looked[0]
    return _join(looked)


@contextlib.contextmanager
def open_source(source: Source) -> Iterator[Any]:
    """Open a source for reading at full resolution, never from overviews.

    Yields
    ------
    rasterio.DatasetReader
        For one thread.
    """
    if source.mosaic is None:
        # GDAL's own answer to a decimated read may come from overviews that say something else.
        with open_raster(source.uris[0], OVERVIEW_LEVEL="NONE") as dataset:
            yield dataset
        return
    for uri in source.uris:
        storage.stat(uri)
    try:
        dataset = rasterio.open(source.mosaic)
    except GDAL_ERRORS as error:
        raise explain_read_error(error, source.uris[0], "mosaic cannot be opened") from error
    with dataset:
        yield dataset


def fill_gaps(source: Source, blank: Any) -> Source:
    """Have the gaps between the files of a mosaic read as what stands for no value.

    Parameters
    ----------
    source : Source
        From :func:`muster.resampling.compute.fit.make_room`: its type holds ``blank``, or NaN.
    blank : object
        What stands for no value; None for NaN.
    """
    if source.mosaic is None or not source.gaps:
        return source
    root = ET.fromstring(source.mosaic)
    band = root.find("VRTRasterBand")
    if band is None:
        raise ValueError("the mosaic has no band")
    band.set("dataType", _GDAL_TYPES[source.dtype])
    stated = band.find("NoDataValue")
    if stated is None:
        stated = ET.SubElement(band, "NoDataValue")
    stated.text = "nan" if blank is None else repr(blank)
    return replace(source, mosaic=ET.tostring(root, encoding="unicode"))


def _look_at_file(uri: str, band: int) -> Source:
    with open_raster(uri) as dataset:
        if dataset.width < 1 or dataset.height < 1:
            raise InvalidInput(
                "raster has no pixels", where=uri, got=f"{dataset.height} × {dataset.width}"
            )
        if band > dataset.count:
            raise InvalidInput(
                "raster has no such band",
                where=uri,
                got=f"band {band}",
                expected=f"1 to {dataset.count}",
            )
        grid = Grid.from_dataset(dataset, uri)
        _check_transform(grid, uri)
        dtype = dataset.dtypes[band - 1]
        if np.dtype(dtype).kind not in _NUMBERS:
            raise InvalidInput("values are no real numbers", where=f"{uri}, band {band}", got=dtype)
        flags = {flag.name for flag in dataset.mask_flag_enums[band - 1]}
        return Source(
            uris=(uri,),
            band=band,
            grid=grid,
            dtype=dtype,
            nodata=dataset.nodatavals[band - 1],
            scale=float(dataset.scales[band - 1]),
            offset=float(dataset.offsets[band - 1]),
            block=(int(dataset.block_shapes[band - 1][0]), int(dataset.block_shapes[band - 1][1])),
            overviews=tuple(dataset.overviews(band)),
            masked=bool(flags & {"per_dataset", "alpha"}) and "nodata" not in flags,
            behind=_files_behind(dataset),
        )


def _files_behind(dataset: Any) -> tuple[str, ...]:
    """List what else pixels come from; statistics and overviews, which viewers add, are not."""
    own = uris_of(dataset.files[:1])
    behind = {uri for uri in uris_of(dataset.files) if not uri.endswith(_NO_PIXELS)}
    return tuple(sorted(behind.difference(own)))


def _check_transform(grid: Grid, where: str) -> None:
    t = grid.transform
    if t.b or t.d:
        raise InvalidInput(
            "raster is rotated or sheared",
            where=where,
            got=f"geotransform {t.to_gdal()}",
            expected="rows and columns along the axes",
            do="make it upright first, with gdalwarp or 'rio warp'",
        )
    if t.a <= 0 or t.e == 0:
        raise InvalidInput(
            "columns of the raster do not run from left to right",
            where=where,
            got=f"pixel size {t.a:g} × {t.e:g}",
            do="turn it round first, with gdalwarp",
        )


def _join(files: Sequence[Source]) -> Source:
    """Show files on one grid as one raster; where they overlap the last by name is seen."""
    first = files[0]
    t = first.grid.transform
    for file in files:
        problems = [
            name
            for name, got, expected in (
                ("CRS", same_crs(file.grid.crs, first.grid.crs), True),
                ("data type", file.dtype, first.dtype),
                ("nodata", repr(file.nodata), repr(first.nodata)),
                ("scale", (file.scale, file.offset), (first.scale, first.offset)),
                ("mask", file.masked, False),
            )
            if got != expected
        ]
        other = file.grid.transform
        extent_px = max(file.grid.width, file.grid.height)
        if max(abs(other.a / t.a - 1), abs(other.e / t.e - 1)) * extent_px > ALIGNMENT_TOLERANCE_PX:
            problems.append("pixel size")
        else:
            col, row = _offset_px(first.grid, file.grid)
            if max(abs(col - round(col)), abs(row - round(row))) > 10 * ALIGNMENT_TOLERANCE_PX:
                problems.append("alignment")
        if problems:
            raise InvalidInput(
                "files of one dataset do not fit together",
                where=file.uris[0],
                got=f"another {', '.join(problems)} than {first.uris[0]}"
                if file is not first
                else "a mask beside its values, which cannot be shown together",
                expected="one grid, one type, one nodata",
                do="name them as datasets of their own, or bring them to one grid first",
            )
    offsets = [tuple(map(round, _offset_px(first.grid, file.grid))) for file in files]
    left, top = min(col for col, _ in offsets), min(row for _, row in offsets)
    width = max(col - left + f.grid.width for (col, _), f in zip(offsets, files, strict=True))
    height = max(row - top + f.grid.height for (_, row), f in zip(offsets, files, strict=True))
    transform = t @ rasterio.Affine.translation(left, top)
    grid = Grid(first.grid.crs, transform, height, width)
    places = [(col - left, row - top) for col, row in offsets]
    return Source(
        uris=tuple(uri for file in files for uri in file.uris),
        band=1,
        grid=grid,
        dtype=first.dtype,
        nodata=first.nodata,
        scale=first.scale,
        offset=first.offset,
        block=first.block,
        overviews=first.overviews,
        masked=False,
        mosaic=_render_mosaic(files, grid, places),
        gaps=_share_of_gaps(files, grid, places),
        behind=tuple(sorted({uri for file in files for uri in file.behind})),
    )


def _share_of_gaps(files: Sequence[Source], grid: Grid, places: Sequence[tuple[int, int]]) -> float:
    """Say what share of a grid's pixels none of the files covers."""
    left, top = np.array(places, dtype=np.int64).T
    right = left + [file.grid.width for file in files]
    bottom = top + [file.grid.height for file in files]
    covered = 0
    for upper, lower in pairwise(np.unique([*top, *bottom]).tolist()):
        there = np.flatnonzero((top <= upper) & (bottom >= lower))
        there = there[np.argsort(left[there])]
        # Each file adds what lies beyond all that begin before it.
        ends = np.maximum.accumulate(np.append(0, right[there]))
        new = ends[1:] - np.maximum(left[there], ends[:-1])
        covered += (lower - upper) * int(np.maximum(new, 0).sum())
    pixels = grid.height * grid.width
    return (pixels - covered) / pixels


def _offset_px(grid: Grid, other: Grid) -> tuple[float, float]:
    t, o = grid.transform, other.transform
    return (o.c - t.c) / t.a, (o.f - t.f) / t.e


_GDAL_TYPES = {
    "uint8": "Byte", "int8": "Int8", "int16": "Int16", "uint16": "UInt16", "int32": "Int32",
    "uint32": "UInt32", "int64": "Int64", "uint64": "UInt64", "float32": "Float32",
    "float64": "Float64",
}  # fmt: skip


def _render_mosaic(files: Sequence[Source], grid: Grid, places: Sequence[tuple[int, int]]) -> str:
    first = files[0]
    root = ET.Element(
        "VRTDataset", {"rasterXSize": str(grid.width), "rasterYSize": str(grid.height)}
    )
    ET.SubElement(root, "SRS").text = grid.crs.to_wkt(version="WKT2_2019")
    ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, grid.transform.to_gdal()))
    band = ET.SubElement(root, "VRTRasterBand", {"dataType": _GDAL_TYPES[first.dtype], "band": "1"})
    for file, (col, row) in zip(files, places, strict=True):
        size = {"xSize": str(file.grid.width), "ySize": str(file.grid.height)}
        node = ET.SubElement(band, "SimpleSource")
        ET.SubElement(node, "SourceFilename").text = gdal_path(file.uris[0])
        options = ET.SubElement(node, "OpenOptions")
        ET.SubElement(options, "OOI", {"key": "OVERVIEW_LEVEL"}).text = "NONE"
        ET.SubElement(node, "SourceBand").text = str(file.band)
        ET.SubElement(node, "SrcRect", {"xOff": "0", "yOff": "0", **size})
        ET.SubElement(node, "DstRect", {"xOff": str(col), "yOff": str(row), **size})
    return ET.tostring(root, encoding="unicode")
