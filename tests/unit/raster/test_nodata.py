"""Nodata: what a file declares against what its values are."""

from __future__ import annotations

import numpy as np
import pytest

from muster.raster.nodata import find_valid, stored_nodata


@pytest.mark.parametrize(
    ("nodata", "dtype", "expected"),
    [
        (None, "float32", None),
        (float("nan"), "float32", None),
        (-9999.0, "int16", -9999),
        (-9999.0, "uint8", None),
        (0.5, "int16", None),
        (float("inf"), "int16", None),
        (-3.4e38, "float32", float(np.float32(-3.4e38))),
        (-2147483648.0, "int32", -2147483648),
        (1e300, "float32", float("inf")),
    ],
)
def test_nodata_as_the_type_stores_it(
    nodata: float | None, dtype: str, expected: float | int | None
) -> None:
    assert stored_nodata(nodata, dtype) == expected


def test_float_nodata_is_found_though_declared_with_more_digits() -> None:
    values = np.array([1, -3.4e38, np.nan, np.inf, 0], np.float32)
    nodata = stored_nodata(-3.4e38, "float32")
    assert find_valid(values, nodata).tolist() == [True, False, False, False, True]


def test_integers_without_nodata_are_all_valid() -> None:
    assert find_valid(np.array([[0, -1]], np.int16), None).tolist() == [[True, True]]
