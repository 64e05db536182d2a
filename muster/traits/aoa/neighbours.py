"""Exact nearest neighbours among training plots, fast enough for a million pixels.

Engines differ in how they find plots and in nothing else: every distance that leaves them is the
square root of squared differences that were summed in float64 in the order of the dimensions, and
each proves that no plot is nearer.  What comes out is therefore the same to the byte whatever the
engine, windows, threads or BLAS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from muster.errors import ConfigError
from muster.traits.aoa.nearest.distance import BoolArray, FloatArray, IntArray, Nearness, distances
from muster.traits.aoa.nearest.engine import Neighbours
from muster.traits.aoa.nearest.pairs import PairSummary, summarise_pairs
from muster.traits.aoa.nearest.threads import single_threaded_blas
from muster.traits.engine_names import AOA_ENGINES, AUTO, present_aoa_engine

if TYPE_CHECKING:
    from muster.traits.engine_names import AoaEngine

__all__ = [
    "KD_TREE_DIMENSIONS",
    "TREE_PLOTS",
    "BoolArray",
    "FloatArray",
    "IntArray",
    "Nearness",
    "Neighbours",
    "PairSummary",
    "check_engine",
    "choose_engine",
    "distances",
    "effective_dimensions",
    "open_neighbours",
    "single_threaded_blas",
    "summarise_pairs",
]

KD_TREE_DIMENSIONS = 2.0
"""Up to so many effective dimensions a k-d tree beats blocks (benchmarks/aoa.py --crossing)."""

TREE_PLOTS = 50_000
"""From so many plots on it does by a factor that pays for the tree."""


def effective_dimensions(points: FloatArray) -> float:
    """Measure how many dimensions a cloud of points really fills.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        Weighted, standardised training plots.

    Returns
    -------
    float
        Participation ratio of the covariance's eigenvalues, (Σλ)² / Σλ², from 1 to the number of
        dimensions.
    """
    covariance = np.atleast_2d(np.cov(points, rowvar=False))
    return float(np.trace(covariance) ** 2 / np.sum(covariance**2))


def choose_engine(points: FloatArray, plots: int | None = None) -> AoaEngine:
    """Choose an engine by the plots and the dimensions that they fill, the same everywhere.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        Weighted, standardised training plots, or an even sample of them.
    plots : int, optional
        How many plots there are in all; as many as points by default.

    Returns
    -------
    str
        ``tree`` from :data:`TREE_PLOTS` plots on that fill no more than
        :data:`KD_TREE_DIMENSIONS` effective dimensions, otherwise ``blocks``.
    """
    if (len(points) if plots is None else plots) < TREE_PLOTS:
        return "blocks"
    return "tree" if effective_dimensions(points) <= KD_TREE_DIMENSIONS else "blocks"


def open_neighbours(points: FloatArray, *, engine: str = AUTO, threads: int = 1) -> Neighbours:
    """Make training plots ready to be searched.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        Weighted, standardised training plots, finite; one at least.
    engine : str
        One of :data:`AOA_ENGINES`, or ``auto`` for :func:`choose_engine`.
    threads : int
        Threads to use for one question; no answer depends on it.

    Returns
    -------
    Neighbours
        Of that engine.

    Raises
    ------
    ConfigError
        When there is no such engine, or it cannot be used here.
    """
    name = check_engine(engine)
    return _find_class(choose_engine(points) if name == AUTO else name)(points, threads=threads)


def check_engine(engine: str) -> str:
    """Return an engine that can be used here; "auto" stands for one that was removed.

    Parameters
    ----------
    engine : str
        One of :data:`AOA_ENGINES`, or ``auto``, or one of an earlier version.

    Raises
    ------
    ConfigError
        When there is no such engine, or it cannot be used here.
    """
    engine = present_aoa_engine(engine)
    if engine not in (AUTO, *AOA_ENGINES):
        raise ConfigError(
            "no such engine for nearest neighbours",
            got=engine,
            expected=f"one of {AUTO}, {', '.join(AOA_ENGINES)}",
        )
    if engine == "cupy":
        from muster.traits.aoa.nearest.device import find_cupy

        reason = find_cupy()[1]
        if reason:
            raise ConfigError(
                "the engine cupy cannot be used here",
                got=reason,
                expected=f"one of {AUTO}, {', '.join(n for n in AOA_ENGINES if n != engine)}",
                do="install what it needs, ask for a machine that has it, or take the engine auto",
            )
    return engine


def _find_class(engine: str) -> type[Neighbours]:
    # Each is imported only where it is wanted: SciPy takes half a second.
    if engine == "blocks":
        from muster.traits.aoa.nearest.blocks import BlockNeighbours

        return BlockNeighbours
    if engine == "tree":
        from muster.traits.aoa.nearest.tree import TreeNeighbours

        return TreeNeighbours
    if engine == "cupy":
        from muster.traits.aoa.nearest.device import ArrayNeighbours

        return ArrayNeighbours
    from muster.traits.aoa.nearest.brute import BruteNeighbours

    return BruteNeighbours
