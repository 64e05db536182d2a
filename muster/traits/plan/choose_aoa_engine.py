"""Which engine is to search for nearest plots: chosen once, at planning, by a rule."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np

from muster.traits.aoa.aoa import check_training, scale_predictors
from muster.traits.aoa.neighbours import TREE_PLOTS, choose_engine
from muster.traits.bundle.training_table import count_plots, read_training_sample
from muster.traits.predicting.engine import EngineChoice

if TYPE_CHECKING:
    from muster.traits.bundle.bundle import Bundle

SAMPLE_PLOTS = 20_000
"""Plots by which the dimensions are measured, at most: a plan needs less memory than the step."""


def choose_aoa_engine(bundle: Bundle, *, gpus: int = 0) -> EngineChoice:
    """Choose the engine that finds the nearest plots of a trait's model.

    Parameters
    ----------
    bundle : Bundle
        With the plots that the model was trained on, and the importance of its predictors.
    gpus : int
        GPUs that the step has where it will run.

    Returns
    -------
    EngineChoice
        ``cupy`` where there is a GPU for the step and CuPy is installed; otherwise by
        :func:`muster.traits.aoa.neighbours.choose_engine`.  Plots that give no area of
        applicability are left to the step, which says why.
    """
    if gpus and importlib.util.find_spec("cupy") is not None:
        # The plan may be made where there is no GPU: only the environment is the same.
        return EngineChoice("cupy", f"the step has {gpus} GPUs, and CuPy is installed")
    plots = count_plots(bundle.training_path)
    if plots < TREE_PLOTS:
        return EngineChoice("blocks", "")
    sample = read_training_sample(bundle.training_path, bundle.predictors, SAMPLE_PLOTS)
    weights = np.maximum(np.asarray(bundle.importance, dtype=np.float64), 0.0)
    if check_training(sample, weights, np.arange(len(sample)), list(bundle.predictors)):
        return EngineChoice("blocks", "")
    points = scale_predictors(sample, sample.mean(axis=0), sample.std(axis=0, ddof=1), weights)
    engine = choose_engine(points, plots)
    return EngineChoice(engine, f"{plots} plots in few dimensions" if engine == "tree" else "")
