"""Slabs of a periodic box, fixed by their number and axis alone.

A slab is a half-open interval of one coordinate.  Which slab a halo lies in depends on its position
as stored (float32), the box and the number of slabs: never on the file it came from, nor on how
many processes read the box.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from muster.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from muster.mocks.halos.source import SlabAxis

AXES: tuple[SlabAxis, ...] = ("x", "y", "z")

_ALWAYS_ALL = 3
"""Of so few superslabs each is a neighbour of all others."""

_FARTHEST = 1.49
"""Widths of a superslab from its middle to its farthest halo."""


def wrap_positions(positions: NDArray[np.floating], box_size: float) -> NDArray[np.float32]:
    """Bring positions into the periodic box.

    Parameters
    ----------
    positions : array of float, shape (n, 3)
        In Mpc/h, anywhere.
    box_size : float
        In Mpc/h.

    Returns
    -------
    array of float32, shape (n, 3)
        In [0, box_size) as float32 compares: what lies at the box size, or is rounded to it, is at
        0; what lies inside already keeps its bits.
    """
    side = np.float32(box_size)
    wrapped: NDArray[np.float32] = positions.astype(np.float32)
    outside = (wrapped < 0) | (wrapped >= side)
    if outside.any():
        folded = np.mod(positions[outside].astype(np.float64), box_size).astype(np.float32)
        folded[folded >= side] = 0
        wrapped[outside] = folded
    return wrapped


def slab_of(
    positions: NDArray[np.float32], axis: SlabAxis, slabs: int, box_size: float
) -> NDArray[np.int64]:
    """Return the slab that each position lies in.

    Parameters
    ----------
    positions : array of float32, shape (n, 3)
        In Mpc/h, in [0, box_size).
    axis : {"x", "y", "z"}
        The axis that the slabs are cut along.
    slabs : int
        Number of slabs, ≥ 1.
    box_size : float
        In Mpc/h.

    Returns
    -------
    array of int64, shape (n,)
        In [0, slabs): slab s holds [s, s + 1) × box_size / slabs.
    """
    along = positions[:, AXES.index(axis)].astype(np.float64)
    numbers: NDArray[np.int64] = np.floor(along * slabs / box_size).astype(np.int64)
    return np.minimum(numbers, slabs - 1)


def check_selection(
    min_mass_msunh: float, slab: tuple[int, int] | None, n_halos: int | None
) -> None:
    """Refuse a selection of haloes that is none.

    Raises
    ------
    ConfigError
        Unless the mass is finite and ≥ 0, slab is None or (number, of) with 0 ≤ number < of, and
        n_halos is None or ≥ 0.
    """
    if not 0 <= min_mass_msunh < math.inf:
        raise ConfigError(
            "no such minimum mass",
            got=min_mass_msunh,
            expected="≥ 0, in Msun/h",
            do="give a mass in this range",
        )
    if slab is not None and not 0 <= slab[0] < slab[1]:
        raise ConfigError(
            "no such slab",
            got=f"slab {slab[0]} of {slab[1]}",
            expected="0 ≤ number < slabs",
            do="give a slab in this range",
        )
    if n_halos is not None and n_halos < 0:
        raise ConfigError(
            "no such number of haloes",
            got=n_halos,
            expected="≥ 0",
            do="give a number in this range",
        )


def select_halos(
    positions: NDArray[np.float32],
    ids: NDArray[np.int64],
    box_size: float,
    *,
    slab: tuple[int, int] | None,
    slab_axis: SlabAxis,
    n_halos: int | None,
) -> NDArray[np.intp]:
    """Choose the haloes of a slab, in the order of their ids.

    Parameters
    ----------
    positions : array of float32, shape (n, 3)
        In Mpc/h, in [0, box_size).
    ids : array of int64, shape (n,)
    box_size : float
        In Mpc/h.
    slab, slab_axis, n_halos
        As :meth:`muster.mocks.halos.source.HaloSource.read` has them.

    Returns
    -------
    array of int, shape (m,)
        Indices of the chosen haloes.
    """
    chosen = np.arange(len(ids))
    if n_halos is not None and n_halos < len(ids):
        chosen = np.lexsort((ids, positions[:, 0]))[:n_halos]
    if slab is not None:
        number, slabs = slab
        chosen = chosen[slab_of(positions[chosen], slab_axis, slabs, box_size) == number]
    return chosen[np.argsort(ids[chosen], kind="stable")]


def superslabs_near(slab: tuple[int, int], superslabs: int) -> list[int]:
    """List the superslabs, cut in x, that may hold haloes of a slab in x.

    Parameters
    ----------
    slab : tuple of (int, int)
        Number of the slab and of all slabs.
    superslabs : int
        Number of files that the box is cut into.

    Returns
    -------
    list of int
        Numbers of superslabs, ascending, each once: those whose part of the box meets the slab, and
        one more on either side, across the periodic boundary too.
    """
    number, slabs = slab
    first = number * superslabs // slabs
    last = -(-(number + 1) * superslabs // slabs) - 1
    return sorted({near % superslabs for near in range(first - 1, last + 2)})


def count_strays(x_mpch: NDArray[np.float32], number: int, superslabs: int, box_size: float) -> int:
    """Count the haloes of a superslab that :func:`superslabs_near` does not allow for.

    A superslab's haloes overlap its neighbours' part of the box, and it may be wider or narrower
    than the others: allowed is as far as the neighbour's far end, less a hundredth of its width.

    Parameters
    ----------
    x_mpch : array of float32, shape (n,)
        In [0, box_size).
    number, superslabs : int
        Number of the superslab and of all of them.
    box_size : float
        In Mpc/h.
    """
    if superslabs <= _ALWAYS_ALL:
        return 0
    from_middle = x_mpch.astype(np.float64) * superslabs / box_size - (number + 0.5)
    from_middle -= superslabs * np.round(from_middle / superslabs)
    return int(np.count_nonzero(np.abs(from_middle) > _FARTHEST))
