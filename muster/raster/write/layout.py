"""How a raster is laid out in its file: overview levels, and the VRT that joins bands.

GDAL builds all overviews of a file with one resampling, but classes must never be averaged.  So
bands that need different overviews are made in files of their own, and a VRT shows them, with
their overviews, as the one raster that is then copied.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from muster.raster.grid import Band, Grid

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_VRT_TYPES = {
    "uint8": "Byte",
    "int16": "Int16",
    "uint16": "UInt16",
    "int32": "Int32",
    "uint32": "UInt32",
    "float32": "Float32",
    "float64": "Float64",
}


def overview_factors(grid: Grid, block_px: int) -> list[int]:
    """List the overviews that a COG has: halved until the smallest fits into one block.

    Parameters
    ----------
    grid : Grid
        The raster.
    block_px : int
        Side of a block, in pixels.

    Returns
    -------
    list of int
        Decimation factors 2, 4, 8 …; empty where the raster itself fits.
    """
    factors = []
    factor = 1
    while max(grid.height, grid.width) > factor * block_px:
        factor *= 2
        factors.append(factor)
    return factors


def draft_dtype(dtype: str, overview: str) -> str:
    """Choose the type that bands are drafted in before they are copied.

    GDAL 3.10 makes mode overviews of signed integers with a nodata value below zero wrong: where
    all pixels are nodata it writes 0.  With floats it does not.

    Parameters
    ----------
    dtype : str
        Type of the raster.
    overview : str
        "average" or "mode".
    """
    wider = {"int16": "float32", "int32": "float64"} if overview == "mode" else {}
    return wider.get(dtype, dtype)


def render_vrt(
    grid: Grid,
    bands: Sequence[Band],
    files: Sequence[tuple[Path, int]],
    *,
    dtype: str,
    nodata: float,
    tags: Mapping[str, str],
    overviews: int = 0,
) -> str:
    """Render the VRT that shows bands of several files as one raster.

    Parameters
    ----------
    grid : Grid
        The grid of all files.
    bands : sequence of Band
        What the bands are called.
    files : sequence of (Path, int)
        For each band its GeoTIFF, an absolute path, and the number of the band in it.
    dtype : str
        A key of ``_VRT_TYPES``.
    nodata : float
        Nodata of all bands.
    tags : mapping of str to str
        Metadata of the whole raster.
    overviews : int
        How many overviews each of the files has, in directories that follow the first.

    Returns
    -------
    str
        XML.
    """
    size = {"xSize": str(grid.width), "ySize": str(grid.height)}
    root = ET.Element(
        "VRTDataset", {"rasterXSize": str(grid.width), "rasterYSize": str(grid.height)}
    )
    ET.SubElement(root, "SRS").text = grid.crs.to_wkt(version="WKT2_2019")
    ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, grid.transform.to_gdal()))
    _add_tags(root, tags)
    for number, (band, (path, source_band)) in enumerate(zip(bands, files, strict=True), start=1):
        node = ET.SubElement(
            root, "VRTRasterBand", {"dataType": _VRT_TYPES[dtype], "band": str(number)}
        )
        ET.SubElement(node, "Description").text = _clean(band.description)
        ET.SubElement(node, "UnitType").text = _clean(band.unit)
        ET.SubElement(node, "Offset").text = repr(float(band.offset))
        ET.SubElement(node, "Scale").text = repr(float(band.scale))
        ET.SubElement(node, "NoDataValue").text = "nan" if np.isnan(nodata) else repr(nodata)
        _add_tags(node, band.tags)
        source = ET.SubElement(node, "SimpleSource")
        ET.SubElement(source, "SourceFilename").text = str(path)
        ET.SubElement(source, "SourceBand").text = str(source_band)
        for rectangle in ("SrcRect", "DstRect"):
            ET.SubElement(source, rectangle, {"xOff": "0", "yOff": "0", **size})
        # Named one by one: left to itself, a VRT hides overviews of less than 128 pixels.
        for level in range(overviews):
            overview = ET.SubElement(node, "Overview")
            ET.SubElement(overview, "SourceFilename").text = f"GTIFF_DIR:{level + 2}:{path}"
            ET.SubElement(overview, "SourceBand").text = str(source_band)
    return ET.tostring(root, encoding="unicode")


def _add_tags(node: ET.Element, tags: Mapping[str, str]) -> None:
    metadata = ET.SubElement(node, "Metadata")
    for key in sorted(tags):
        ET.SubElement(metadata, "MDI", {"key": _clean(key)}).text = _clean(tags[key])


def _clean(text: str) -> str:
    """Replace what XML cannot hold; a control character in a description is no reason to fail."""
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
