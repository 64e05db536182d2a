"""Slabs of a periodic box: each halo in exactly one, whatever float32 makes of its position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import ConfigError
from muster.mocks.halos.slabs import (
    check_selection,
    count_strays,
    select_halos,
    slab_of,
    superslabs_near,
    wrap_positions,
)

BOXES = st.sampled_from([25.0, 32.0, 100.1, 333.3, 500.0, 1000.0])


def along_x(values: list[float]) -> np.ndarray:
    positions = np.full((len(values), 3), 1.0, np.float64)
    positions[:, 0] = values
    return positions


def test_a_halo_at_the_edge_of_the_box_is_at_0() -> None:
    below_zero = -1e-9  # 500 - 1e-9 is 500 as float32
    last = np.nextafter(np.float32(500), np.float32(0))
    wrapped = wrap_positions(along_x([500.0, below_zero, 0.0, float(last), 501.5, -1.0]), 500.0)
    assert wrapped[:, 0].tolist() == [0.0, 0.0, 0.0, float(last), 1.5, 499.0]


@pytest.mark.property
@given(st.lists(st.floats(-2000, 2000, width=32), min_size=1, max_size=50), BOXES)
def test_wrapped_positions_lie_in_the_box_and_those_inside_keep_their_bits(
    values: list[float], box: float
) -> None:
    positions = along_x(values).astype(np.float32)
    wrapped = wrap_positions(positions, box)
    assert ((wrapped >= 0) & (wrapped < np.float32(box))).all()
    inside = (positions >= 0) & (positions < np.float32(box))
    assert np.array_equal(wrapped[inside], positions[inside])
    turns = (wrapped.astype(np.float64) - positions) / box
    assert np.abs(turns - np.round(turns)).max() < 1e-5


@pytest.mark.property
@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=0, max_size=80),
    BOXES,
    st.integers(1, 13),
    st.sampled_from(["x", "y", "z"]),
)
def test_each_halo_lies_in_one_slab_and_at_most_its_bounds(
    shares: list[float], box: float, slabs: int, axis: str
) -> None:
    shares = [*shares, *(s / slabs for s in range(slabs))]  # and on every boundary
    positions = wrap_positions(np.array([shares] * 3).T * box, box)
    ids = np.arange(len(positions))[::-1].copy()
    parts = [
        select_halos(positions, ids, box, slab=(s, slabs), slab_axis=axis, n_halos=None)
        for s in range(slabs)
    ]
    together = np.concatenate(parts)
    assert np.array_equal(np.sort(together), np.arange(len(positions)))
    for number, part in enumerate(parts):
        assert (np.diff(ids[part]) > 0).all()
        along = positions[part, "xyz".index(axis)].astype(np.float64) * slabs / box
        assert ((along >= number - 1e-5) & (along <= number + 1 + 1e-5)).all()


def test_slabs_are_cut_along_their_axis() -> None:
    positions = np.array([[1, 60, 90], [99, 10, 40]], np.float32)
    assert [slab_of(positions, axis, 4, 100.0).tolist() for axis in ("x", "y", "z")] == [
        [0, 3], [2, 0], [3, 1],
    ]  # fmt: skip


def test_the_test_mode_takes_the_smallest_x_of_the_box_and_then_the_slab() -> None:
    positions = np.array([[5, 1, 0], [1, 9, 0], [3, 1, 0], [3, 1, 0], [9, 1, 0]], np.float32)
    ids = np.array([10, 11, 13, 12, 14])
    whole = select_halos(positions, ids, 10.0, slab=None, slab_axis="y", n_halos=2)
    assert ids[whole].tolist() == [11, 12]
    lower = select_halos(positions, ids, 10.0, slab=(0, 2), slab_axis="y", n_halos=2)
    assert ids[lower].tolist() == [12]
    assert len(select_halos(positions, ids, 10.0, slab=None, slab_axis="y", n_halos=99)) == 5


@pytest.mark.property
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1, exclude_max=True))
def test_superslabs_near_a_slab_hold_all_that_may_reach_into_it(
    slabs: int, superslabs: int, share: float
) -> None:
    """A superslab that holds no strays is read wherever one of its haloes lies."""
    x = np.array([share * 500], np.float32)
    number = int(slab_of(np.repeat(x[:, None], 3, axis=1), "x", slabs, 500.0)[0])
    near = superslabs_near((number, slabs), superslabs)
    assert near == sorted(set(near))
    for superslab in range(superslabs):
        if count_strays(x, superslab, superslabs, 500.0) == 0:
            assert superslab in near


def test_few_superslabs_are_read_for_a_thin_slab() -> None:
    assert superslabs_near((3, 8), 34) == [11, 12, 13, 14, 15, 16, 17]
    assert superslabs_near((0, 34), 34) == [0, 1, 33]


def test_strays_are_counted_across_the_boundary() -> None:
    x = np.array([95, 5, 15, 24.8, 85.2, 84.8, 25.2, 50], np.float32)
    assert count_strays(x, 0, 10, 100.0) == 5  # of [0, 10): beyond 19.9 and below 90.1
    assert count_strays(x[:3], 0, 10, 100.0) == 0


@pytest.mark.parametrize(
    ("mass", "slab", "n_halos", "words"),
    [
        (-1.0, None, None, "minimum mass"),
        (float("nan"), None, None, "minimum mass"),
        (0.0, (3, 3), None, "slab 3 of 3"),
        (0.0, (-1, 3), None, "slab -1 of 3"),
        (0.0, None, -1, "number of haloes"),
    ],
)
def test_a_selection_that_is_none_is_refused(mass, slab, n_halos, words) -> None:
    with pytest.raises(ConfigError, match=words):
        check_selection(mass, slab, n_halos)
