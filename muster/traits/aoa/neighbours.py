"""Exact nearest neighbours among training plots, fast enough for a million pixels.

Engines differ in how they find plots and in nothing else: every distance that leaves them is the
square root of squared differences that were summed in float64 in the order of the dimensions, and
each proves that no plot is nearer.  What comes out is therefore the same to the byte whatever the
engine, windows, threads or BLAS.
"""

from __future__ import annotations

import importlib.util
import time
from typing import TYPE_CHECKING

import numpy as np

from muster.errors import ConfigError
from muster.traits.aoa.nearest.distance import BoolArray, FloatArray, IntArray, Nearness, distances
from muster.traits.aoa.nearest.engine import Neighbours
from muster.traits.aoa.nearest.pairs import PairSummary, summarise_pairs
from muster.traits.aoa.nearest.threads import single_threaded_blas
from muster.traits.engine_names import AOA_ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "KD_TREE_DIMENSIONS",
    "BoolArray",
    "FloatArray",
    "IntArray",
    "Nearness",
    "Neighbours",
    "PairSummary",
    "available_engines",
    "check_engine",
    "choose_engine",
    "distances",
    "effective_dimensions",
    "open_neighbours",
    "probe_engines",
    "single_threaded_blas",
    "summarise_pairs",
]

AUTO = "auto"

KD_TREE_DIMENSIONS = 2.0
"""Up to so many effective dimensions a k-d tree beats blocks (benchmarks/aoa.py --crossing)."""

PROBE_PAIRS = 4_000_000
"""Pairs of a query and a point beyond which brute force is not probed."""


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


def available_engines() -> dict[str, str]:
    """Say which engines can be used here.

    Returns
    -------
    dict of str to str
        For each of :data:`AOA_ENGINES` an empty string, or why it cannot be used.
    """
    reasons: dict[str, str] = dict.fromkeys(AOA_ENGINES, "")
    if importlib.util.find_spec("faiss") is None:
        reasons["faiss"] = "faiss is not installed"
    from muster.traits.aoa.nearest.device import find_cupy

    reasons["cupy"] = find_cupy()[1]
    return reasons


def choose_engine(points: FloatArray) -> str:
    """Choose an engine by the dimensions that the points fill, which is the same everywhere.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        Weighted, standardised training plots.

    Returns
    -------
    str
        ``tree`` up to :data:`KD_TREE_DIMENSIONS` effective dimensions, otherwise ``blocks``.
    """
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
    check_engine(engine)
    name = choose_engine(points) if engine == AUTO else engine
    return _find_class(name)(points, threads=threads)


def check_engine(engine: str) -> None:
    """Refuse an engine that is unknown or cannot be used here.

    Parameters
    ----------
    engine : str
        One of :data:`AOA_ENGINES`, or ``auto``.

    Raises
    ------
    ConfigError
        Says what there is instead.
    """
    if engine in (AUTO, "blocks", "tree", "brute"):
        return
    available = available_engines()
    usable = ", ".join([AUTO, *(name for name, reason in available.items() if not reason)])
    if engine not in available:
        raise ConfigError(
            "no such engine for nearest neighbours", got=engine, expected=f"one of {usable}"
        )
    if available[engine]:
        raise ConfigError(
            f"the engine {engine} cannot be used here",
            got=available[engine],
            expected=f"one of {usable}",
            do="install what it needs, ask for a machine that has it, or take the engine auto",
        )


def probe_engines(
    points: FloatArray, sample_queries: FloatArray, threads: int = 1, *, limit_s: float = 10.0
) -> list[tuple[str, float]]:
    """Time the engines on a sample, for a planner that chooses once for a whole batch.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        Weighted, standardised training plots.
    sample_queries : ndarray, (query, dimension), float64
        Some thousand pixels in the same space.
    threads : int
        As the work will have.
    limit_s : float
        Wall-clock time, in seconds, after which no further engine is begun; one that is running
        is stopped at the next few queries.

    Returns
    -------
    list of (str, float)
        Engine and CPU seconds (user + system, all threads; on a GPU wall-clock seconds) that all
        sample queries take or would take, the fastest first.
    """
    deadline = time.monotonic() + limit_s
    timings: list[tuple[str, float]] = []
    for name, reason in available_engines().items():
        too_much = name == "brute" and len(points) * len(sample_queries) > PROBE_PAIRS
        if reason or too_much or (timings and time.monotonic() > deadline):
            continue
        neighbours = _find_class(name)(points, threads=threads)
        clock = time.perf_counter if name == "cupy" else time.process_time
        timings.append((name, _time_sample(neighbours, sample_queries, clock, deadline)))
    return sorted(timings, key=lambda timing: timing[1])


def _time_sample(
    neighbours: Neighbours, queries: FloatArray, clock: Callable[[], float], deadline: float
) -> float:
    # Compiling, and a device's first call, are not what is asked for.
    neighbours.nearest(queries[:2])
    step = neighbours.query_block * neighbours.threads
    done, start = 0, clock()
    with single_threaded_blas():
        while done < len(queries) and (done == 0 or time.monotonic() < deadline):
            done += len(neighbours.nearest(queries[done : done + step]))
    return (clock() - start) * len(queries) / max(done, 1)


def _find_class(engine: str) -> type[Neighbours]:
    # Each is imported only where it is wanted: faiss and SciPy take half a second.
    if engine == "blocks":
        from muster.traits.aoa.nearest.blocks import BlockNeighbours

        return BlockNeighbours
    if engine == "tree":
        from muster.traits.aoa.nearest.tree import TreeNeighbours

        return TreeNeighbours
    if engine == "faiss":
        from muster.traits.aoa.nearest.flat import FlatNeighbours

        return FlatNeighbours
    if engine == "cupy":
        from muster.traits.aoa.nearest.device import ArrayNeighbours

        return ArrayNeighbours
    from muster.traits.aoa.nearest.brute import BruteNeighbours

    return BruteNeighbours
