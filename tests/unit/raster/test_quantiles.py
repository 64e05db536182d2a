"""Quantiles in two passes: as NumPy's, for numbers of every kind, in any portions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from muster.raster.compare.quantiles import RELATIVE_ERROR, QuantileSearch

PROBABILITIES = (0.0, 0.05, 0.5, 0.95, 1.0)
RNG = np.random.default_rng(4)


def find(values: np.ndarray[Any, Any], portions: int = 1) -> list[float | None]:
    search = QuantileSearch(PROBABILITIES)
    for portion in np.array_split(values, portions):
        search.count(portion)
    search.locate()
    for portion in np.array_split(values[::-1], portions):
        search.refine(portion)
    return search.quantiles()


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(0, 1, 1001),
        RNG.normal(1e9, 1e-3, 500),
        RNG.lognormal(0, 20, 1000) * RNG.choice([-1, 1], 1000),
        np.concatenate([RNG.normal(0, 1e-9, 999), [1e300]]),
        -RNG.random(77),
        RNG.random(2),
        np.array([3.7]),
        np.array([5e-324, -5e-324, 0.0, -0.0]),
        RNG.integers(-3, 4, 5000) * 0.001,
    ],
)
def test_are_those_of_numpy(values: np.ndarray[Any, Any]) -> None:
    found = find(values)
    expected = np.quantile(values, PROBABILITIES)
    # Between two order statistics of opposite signs the error is that of the greater.
    scale = np.maximum(np.abs(expected), 1e-300)
    near = [np.abs(values[np.argsort(np.abs(values - q))[:2]]).max() for q in expected]
    assert np.all(np.abs(np.array(found) - expected) <= RELATIVE_ERROR * np.maximum(scale, near))
    assert find(values, 5) == found


def test_numbers_of_few_digits_are_exact() -> None:
    values = np.array([-2.5, -2.5, -0.0, 0.0, 0.125, 7.0, 7.0, 1024.0])
    assert find(values) == list(np.quantile(values, PROBABILITIES))


def test_without_values_there_are_none() -> None:
    assert find(np.array([])) == [None] * 5
