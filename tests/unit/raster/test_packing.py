"""Packing: what comes back, and what is counted as lost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from muster.raster.write.packing import COV_PACKING, INT16_NODATA, Packing, plan_packing
from tests.hypothesis_profiles import examples

VALUES = st.floats(-1e15, 1e15, allow_subnormal=False)


@examples(300)
@given(arrays(np.float64, st.integers(1, 40), elements=VALUES))
def test_round_trip_within_half_a_scale(values: np.ndarray) -> None:
    packing = plan_packing(float(values.min()), float(values.max()))
    stored, saturated = packing.pack(values)
    error = np.abs(packing.unpack(stored) - values)
    # Doubles themselves are no finer than this at the offset's size.
    grain = 4 * np.spacing(np.abs(values).max())
    assert (error <= packing.scale * 0.5 * (1 + 1e-9) + grain).all()
    assert saturated == 0
    assert stored.dtype == np.int16
    assert (stored != INT16_NODATA).all()


def test_the_ends_of_the_range_fill_int16() -> None:
    packing = plan_packing(-3.0, 13.0)
    assert packing == Packing(16 / 65534, 5.0)
    stored, _ = packing.pack(np.array([-3.0, 5.0, 13.0, np.nan]))
    assert stored.tolist() == [-32767, 0, 32767, -32768]


@pytest.mark.parametrize("constant", [0.0, 4.25, -1e300, 5e-324])
def test_a_constant_band_comes_back_exactly(constant: float) -> None:
    packing = plan_packing(constant, constant)
    stored, saturated = packing.pack(np.full(3, constant))
    assert packing.unpack(stored).tolist() == [constant] * 3
    assert saturated == 0


def test_a_range_wider_than_a_double() -> None:
    packing = plan_packing(-1.7e308, 1.7e308)
    stored, _ = packing.pack(np.array([-1.7e308, 0.0, 1.7e308]))
    assert stored.tolist() == [-32767, 0, 32767]
    assert np.isfinite(packing.unpack(stored)).all()


def test_an_empty_band() -> None:
    packing = plan_packing(math.inf, -math.inf)
    assert packing == Packing(1.0, 0.0)
    assert packing.pack(np.full((2, 2), np.nan))[0].tolist() == [[INT16_NODATA] * 2] * 2


def test_what_does_not_fit_is_saturated_and_counted() -> None:
    values = np.array([0.1234, 32.767, 32.7674, 32.768, -1e6, np.nan, np.inf, -np.inf])
    stored, saturated = COV_PACKING.pack(values)
    assert stored.tolist() == [123, 32767, 32767, 32767, -32767] + [INT16_NODATA] * 3
    assert saturated == 2


def test_nodata_unpacks_to_nan() -> None:
    assert np.isnan(COV_PACKING.unpack(np.array([INT16_NODATA], np.int16))).all()
