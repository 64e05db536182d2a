"""What cannot be compared is refused in one line that names what differs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.errors import InvalidInput, MissingInput, MusterError
from muster.traits.compare.compare import compare_products
from tests.products import GRID, OURS, UNITS, make_product


def refused(a: str, b: str) -> MusterError:
    with pytest.raises(MusterError) as caught:
        compare_products(a, b)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"crs": CRS.from_epsg(8857)}, "(CRS)"),
        ({"height": 71}, "(size"),
        ({"transform": GRID.transform @ Affine.translation(0.5, 0)}, "(alignment)"),
    ],
)
def test_other_grids_are_refused_by_what_differs(
    tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    a = make_product(tmp_path / "a.tif", 1)
    b = make_product(tmp_path / "b.tif", 1, grid=dataclasses.replace(GRID, **change))
    error = refused(a.uri, b.uri)
    assert isinstance(error, InvalidInput)
    assert f"different grids {what}" in str(error)
    assert a.uri in str(error)
    assert b.uri in str(error)


def test_other_units_are_refused(tmp_path: Path) -> None:
    a = make_product(tmp_path / "a.tif", 1)
    b = make_product(tmp_path / "b.tif", 2, units={**UNITS, "prediction": "MPa"})
    error = refused(a.uri, b.uri)
    assert isinstance(error, InvalidInput)
    assert "units" in str(error)
    assert "got: MPa; expected: mm²/mg" in str(error)


def test_what_is_no_product_is_refused(tmp_path: Path) -> None:
    a = make_product(tmp_path / "a.tif", 1)
    assert isinstance(refused(a.uri, str(tmp_path / "absent.tif")), MissingInput)
    strange = make_product(tmp_path / "s.tif", 1, names={**OURS, "cov": "shade"})
    error = refused(strange.uri, a.uri)
    assert isinstance(error, InvalidInput)
    assert "shade" in str(error)
    cov = make_product(tmp_path / "c.tif", 1, names={"cov": OURS["cov"]})
    area = make_product(tmp_path / "d.tif", 1, names={"aoa": OURS["aoa"]})
    error = refused(cov.uri, area.uri)
    assert isinstance(error, InvalidInput)
    assert "no band in common" in str(error)
    with rasterio.open(area.uri, "r+") as dataset:
        stored = dataset.read(1)
        stored[61, 47] = 2
        dataset.write(stored, 1)
    error = refused(area.uri, a.uri)
    assert isinstance(error, InvalidInput)
    assert "row 61, column 47" in str(error)


def test_a_damaged_product_is_refused_wherever_it_is_damaged(tmp_path: Path) -> None:
    a = make_product(tmp_path / "a.tif", 1)
    data = Path(a.uri).read_bytes()
    for size in (0, 3, 400, len(data) // 2, len(data) - 2):
        path = tmp_path / "cut.tif"
        path.write_bytes(data[:size])
        for order in ((a.uri, str(path)), (str(path), a.uri)):
            error = refused(*order)
            assert isinstance(error, InvalidInput)
            assert "cut.tif" in str(error)
