"""Axes: weights by hand, and what all kernels rely on whatever the ratio."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from muster.resampling.compute.axes import (
    Axis,
    cubic_convolution,
    map_kernel,
    map_nearest,
    map_overlap,
    map_share,
    sine_of_latitude,
    snap,
    triangle,
)
from tests.resampled import edges


def cubic(at: Any) -> Axis:
    return map_kernel(at, cubic_convolution, 2)


def bilinear(at: Any) -> Axis:
    return map_kernel(at, triangle, 1)


MAPS = {
    "nearest": map_nearest,
    "overlap": map_overlap,
    "share": map_share,
    "bilinear": bilinear,
    "cubic": cubic,
}


def cells(axis: Axis) -> list[tuple[int, list[float]]]:
    """List the pixels with weight of each cell: the first, and their weights."""
    found = []
    for i in range(len(axis.first)):
        weights = axis.weights[axis.begin[i] : axis.begin[i + 1]]
        there = np.flatnonzero(weights)
        cut = weights[there[0] : there[-1] + 1]
        found.append((int(axis.first[i] + there[0]), [round(float(w), 9) for w in cut]))
    return found


@pytest.mark.parametrize(
    ("name", "at", "wanted"),
    [
        ("overlap", edges(0, 2.5, 2), [(0, [1, 1, 0.5]), (2, [0.5, 1, 1])]),
        ("overlap", edges(-0.25, 0.5, 2), [(-1, [0.25, 0.25]), (0, [0.5])]),
        ("overlap", edges(3, 1, 2), [(3, [1]), (4, [1])]),
        ("nearest", edges(0, 2, 2), [(1, [1]), (3, [1])]),
        ("nearest", edges(0, 0.5, 3), [(0, [1]), (0, [1]), (1, [1])]),
        ("nearest", edges(-0.5, 1, 2), [(0, [1]), (1, [1])]),
        ("bilinear", edges(0, 1, 1), [(0, [1])]),
        ("bilinear", edges(0, 0.5, 2), [(-1, [0.25, 0.75]), (0, [0.75, 0.25])]),
        ("bilinear", edges(0, 2, 1), [(-1, [0.25, 0.75, 0.75, 0.25])]),
        ("cubic", edges(0, 1, 1), [(0, [1])]),
        ("cubic", edges(0, 0.5, 1), [(-2, [-0.0234375, 0.2265625, 0.8671875, -0.0703125])]),
        ("cubic", edges(0.5, 1, 1), [(-1, [-0.0625, 0.5625, 0.5625, -0.0625])]),
    ],
)
def test_weights_by_hand(name: str, at: Any, wanted: Any) -> None:
    assert cells(MAPS[name](at)) == wanted


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("ratio", [1 / 7, 1 / 3, 0.4, 0.5, 0.999, 1.0, 1.5, 2, 2.5, 3, 10 / 3, 17])
@pytest.mark.parametrize("offset", [0.0, 0.5, 1 / 3, -0.25, 5e-7])
def test_pixels_never_go_back_from_one_cell_to_the_next(
    name: str, ratio: float, offset: float
) -> None:
    at = edges(offset, ratio, 60)
    axis = MAPS[name](at)
    # Strips move down the source, and tiles to the right: none of them looks back.
    assert (np.diff(axis.first) >= 0).all()
    assert (np.diff(axis.stop) >= 0).all()
    assert (axis.counts >= 1).all()
    assert (axis.first <= axis.centre).all()
    assert (axis.centre < axis.stop).all()
    assert axis.begin[0] == 0
    assert axis.begin[-1] == len(axis.weights)
    assert (np.diff(axis.centre) >= 0).all()
    np.testing.assert_array_less(np.abs(axis.centre + 0.5 - (at[:-1] + at[1:]) / 2), 0.5 + 2e-6)


@pytest.mark.parametrize("name", MAPS)
def test_a_part_is_the_whole_cut_out(name: str) -> None:
    whole = MAPS[name](edges(-1.3, 1.7, 20))
    part = whole.part(3, 9)
    assert cells(part) == cells(whole)[3:9]
    assert part.begin[0] == 0
    np.testing.assert_array_equal(part.centre, whole.centre[3:9])
    np.testing.assert_array_equal(part.stop, whole.stop[3:9])


def test_what_lies_near_a_whole_pixel_lies_on_it() -> None:
    at = np.array([1 + 0.9e-6, 1 - 0.9e-6, 1 + 1.1e-6, -3 + 1e-7, 0.5])
    assert snap(at).tolist() == [1, 1, 1 + 1.1e-6, -3, 0.5]
    np.testing.assert_array_equal(map_overlap(np.array([0.9999995, 2.0000005])).weights, [1.0])


def test_shares_of_a_sphere_give_each_pixel_away_once() -> None:
    # Rows of 1° from 90° down; cells of 0.7 rows that cover all of them.
    extent_of = sine_of_latitude(90.0, 1.0)
    axis = map_share(edges(-0.35, 0.7, 259), extent_of)
    given = np.zeros(200)
    for i in range(len(axis.first)):
        for k, weight in enumerate(axis.weights[axis.begin[i] : axis.begin[i + 1]]):
            given[axis.first[i] + k + 5] += weight
    np.testing.assert_allclose(given[5 : 5 + 180], 1.0, rtol=1e-9)
    assert (axis.weights >= 0).all()


def test_the_sphere_between_two_latitudes() -> None:
    extent_of = sine_of_latitude(30.0, 30.0)
    # From 30° to 0° and from 0° to −30°: half of a half each; the poles end it.
    np.testing.assert_allclose(np.diff(extent_of(np.array([0.0, 1, 2]))), [0.5, 0.5])
    assert extent_of(np.array([-9.0, -2.0, 4.0, 9.0])).tolist() == [-1.0, -1.0, 1.0, 1.0]
