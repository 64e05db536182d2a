"""Which engine is to search for nearest plots: chosen once, at planning, by trying them."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np

from muster.traits.aoa.aoa import check_training, scale_predictors
from muster.traits.aoa.neighbours import choose_engine, probe_engines
from muster.traits.predicting.engine import EngineChoice, prefer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.traits.aoa.neighbours import FloatArray

PROBE_QUERIES = 4096
"""Queries that engines are tried on."""

_SEED = 20


def choose_aoa_engine(
    training: FloatArray, importance: Sequence[float], pixels: int, *, gpus: int = 0
) -> EngineChoice:
    """Choose the engine that finds the nearest plots of so many pixels.

    Parameters
    ----------
    training : ndarray, (plot, predictor), float64
        The plots that the model was trained on, in the predictors' own units.
    importance : sequence of float
        Of the predictors; negatives count as zero.
    pixels : int
        How many pixels there are, at most.
    gpus : int
        GPUs that the step has where it will run.

    Returns
    -------
    EngineChoice
        ``cupy`` where there is a GPU for the step and CuPy is installed; otherwise the usual one
        for the dimensions that the plots fill, unless another is much faster.  Plots that give no
        area of applicability are left to the step, which says why.
    """
    weights = np.maximum(np.asarray(importance, dtype=np.float64), 0.0)
    names = [f"#{i}" for i in range(len(weights))]
    if check_training(training, weights, np.arange(len(training)), names):
        return EngineChoice("blocks", "")
    if gpus and importlib.util.find_spec("cupy") is not None:
        # The plan may be made where there is no GPU: only the environment is the same.
        return EngineChoice("cupy", f"the step has {gpus} GPUs, and CuPy is installed")
    points = scale_predictors(
        training, training.mean(axis=0), training.std(axis=0, ddof=1), weights
    )
    costs = {
        name: seconds * pixels / PROBE_QUERIES
        for name, seconds in probe_engines(points, _make_queries(points))
        if name != "cupy"  # which may be here and not where the step runs
    }
    how = f"tried on {PROBE_QUERIES} places, for {pixels} pixels"
    return prefer(choose_engine(points), costs, how)


def _make_queries(points: FloatArray) -> FloatArray:
    """Make places that are like pixels: between two plots, and on none."""
    rng = np.random.default_rng(_SEED)
    one, other = rng.integers(0, len(points), (2, PROBE_QUERIES))
    share = rng.uniform(0.05, 0.95, (PROBE_QUERIES, 1))
    queries: FloatArray = points[one] * share + points[other] * (1 - share)
    return queries
