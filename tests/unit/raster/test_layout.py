"""Overview levels and the VRT that joins bands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from muster.raster.grid import Band, Grid
from muster.raster.write.layout import draft_dtype, overview_factors, render_vrt

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(512, 512, []), (513, 3, [2]), (1024, 1024, [2]), (3, 1025, [2, 4]), (13694, 34735, 7)],
)
def test_overviews_end_where_one_block_holds_all(
    make_grid: Callable[[int, int], Grid], height: int, width: int, expected: list[int] | int
) -> None:
    factors = overview_factors(make_grid(height, width), 512)
    assert factors == ([2**i for i in range(1, 8)] if expected == 7 else expected)


def test_classes_are_drafted_as_floats() -> None:
    assert draft_dtype("int16", "mode") == "float32"
    assert draft_dtype("int16", "average") == "int16"
    assert draft_dtype("float64", "mode") == "float64"


def test_vrt_says_everything_exactly(make_grid: Callable[[int, int], Grid]) -> None:
    bands = [
        Band("X50 <prediction> & more", "mm²/mg", 0.1 + 0.2, -1 / 3, tags={"b": "2", "a": "1"}),
        Band("area", "1", overview="mode"),
    ]
    text = render_vrt(
        make_grid(30, 70),
        bands,
        [(Path("/drafts/v.tif"), 2), (Path("/drafts/m.tif"), 1)],
        dtype="int16",
        nodata=-32768,
        tags={"t": "<&>"},
        overviews=2,
    )
    root = ET.fromstring(text)
    assert root.attrib == {"rasterXSize": "70", "rasterYSize": "30"}
    assert root.findtext("GeoTransform") == "-7000000.0, 1000.0, 0.0, 3000000.0, 0.0, -500.0"
    assert "6933" in (root.findtext("SRS") or "")
    assert [(node.get("key"), node.text) for node in root.findall("Metadata/MDI")] == [("t", "<&>")]
    first, second = root.findall("VRTRasterBand")
    assert first.findtext("Description") == "X50 <prediction> & more"
    assert first.findtext("UnitType") == "mm²/mg"
    assert float(first.findtext("Scale") or "") == 0.1 + 0.2
    assert float(first.findtext("Offset") or "") == -1 / 3
    assert [node.get("key") for node in first.findall("Metadata/MDI")] == ["a", "b"]
    assert first.findtext("SimpleSource/SourceFilename") == "/drafts/v.tif"
    assert first.findtext("SimpleSource/SourceBand") == "2"
    assert [(node[0].text, node[1].text) for node in first.findall("Overview")] == [
        ("GTIFF_DIR:2:/drafts/v.tif", "2"),
        ("GTIFF_DIR:3:/drafts/v.tif", "2"),
    ]
    assert second.findtext("SimpleSource/SourceFilename") == "/drafts/m.tif"
    assert second.find("SimpleSource/DstRect").attrib == {
        "xOff": "0",
        "yOff": "0",
        "xSize": "70",
        "ySize": "30",
    }


def test_what_xml_cannot_hold_is_replaced(make_grid: Callable[[int, int], Grid]) -> None:
    text = render_vrt(
        make_grid(3, 7),
        [Band("a\0b", "\x1b", tags={"k\x07": "v\ud800"})],
        [(Path("/drafts/v.tif"), 1)],
        dtype="int16",
        nodata=-1,
        tags={},
    )
    (band,) = ET.fromstring(text.encode()).findall("VRTRasterBand")
    assert band.findtext("Description") == "a\ufffdb"
    assert band.findtext("UnitType") == "\ufffd"
    assert [(n.get("key"), n.text) for n in band.findall("Metadata/MDI")] == [
        ("k\ufffd", "v\ufffd")
    ]
