"""Prediction engines: what evaluates a LightGBM model, behind one function, and which is faster.

All give LightGBM's own answer to the bit, so that the choice is one of speed alone.  It is made
once, at planning, by trying them on the plots that the model was trained on, and is written into
the batch: wherever the batch runs, and however often, it runs the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import ConfigError, InvalidInput
from muster.traits.engine_names import PREDICTION_ENGINES, PredictionEngine
from muster.traits.predicting.trees import check_model_text, read_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

PROBE_ROWS = 2048
"""Plots that engines are tried on; fewer are repeated."""

WORTH_S = 10.0
"""What another engine must save, beside half of the time, to be preferred to the usual one."""

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class EngineChoice:
    """Which engine was chosen for a band, and why.

    Attributes
    ----------
    engine : str
        Its name.
    reason : str
        In a sentence.
    """

    engine: str
    reason: str


def load_model(
    path: Path, predictors: int, threads: int, engine: PredictionEngine = "lightgbm"
) -> Callable[[FloatArray], FloatArray]:
    """Load a LightGBM model into an engine.

    Parameters
    ----------
    path : Path
        LightGBM's text.
    predictors : int
        How many predictors it must take.
    threads : int
        How many threads one call may use; ``quantised`` uses one.
    engine : {"quantised", "lightgbm"}
        What evaluates it.

    Returns
    -------
    callable
        From values, (pixel, predictor), float64, finite, to predictions on the model's scale,
        (pixel,).  A pixel's prediction does not depend on the others, and several threads may
        call it at once.

    Raises
    ------
    InvalidInput
        When the file is no LightGBM text, takes other predictors, or predicts several values.
    ConfigError
        When the engine cannot evaluate this model, or is unknown.
    """
    if engine not in PREDICTION_ENGINES:
        raise ConfigError(
            "unknown prediction engine", got=engine, expected=", ".join(PREDICTION_ENGINES)
        )
    text = path.read_text()
    problems = check_model_text(text)
    if problems:  # LightGBM would end the whole process
        raise InvalidInput("model cannot be loaded", where=path, got="; ".join(problems))
    shape = read_shape(text)
    if shape.predictors != predictors:
        raise InvalidInput(
            "model takes another number of predictors",
            where=path,
            got=shape.predictors,
            expected=predictors,
        )
    if shape.values != 1:
        raise InvalidInput(
            "model predicts several values",
            where=path,
            got=shape.values,
            expected="a regression with one value a pixel",
        )
    if engine == "quantised":
        from muster.traits.predicting.quantised import compile_ensemble

        try:
            return compile_ensemble(text, predictors).predict
        except ConfigError:
            raise
        except InvalidInput as error:
            raise InvalidInput("model cannot be loaded", where=path, got=error) from error
    return _load_booster(path, text, threads)


def _load_booster(path: Path, text: str, threads: int) -> Callable[[FloatArray], FloatArray]:
    from muster.traits.lightgbm_alone import lightgbm  # which the other engine does without

    try:
        booster = lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise InvalidInput(
            "model cannot be loaded", where=path, got=error, expected="LightGBM's text format"
        ) from error

    def predict(values: FloatArray) -> FloatArray:
        predicted: FloatArray = np.asarray(booster.predict(values, num_threads=threads))
        return predicted

    return predict


def choose_prediction_engine(models: Sequence[Path], rows: FloatArray, pixels: int) -> EngineChoice:
    """Choose the engine of a band by trying each.

    Parameters
    ----------
    models : sequence of Path
        LightGBM's texts of one band: the model, or the fold models; alike, so that the first is
        timed.  All must be such that the chosen engine evaluates them.
    rows : ndarray, (plot, predictor), float64
        Values to try them on: the training plots.
    pixels : int
        How many pixels there are to predict, at most.

    Returns
    -------
    EngineChoice
        ``quantised`` as a rule; ``lightgbm`` where the other cannot evaluate a model, answers
        differently, or is much slower.
    """
    trial = np.ascontiguousarray(np.resize(rows, (PROBE_ROWS, rows.shape[1])))
    slow = load_model(models[0], rows.shape[1], 1, "lightgbm")
    try:
        fast, *_ = [load_model(path, rows.shape[1], 1, "quantised") for path in models]
    except ConfigError as error:
        return EngineChoice("lightgbm", str(error))
    if not np.array_equal(fast(trial), slow(trial)):
        return EngineChoice("lightgbm", "the quantised engine does not give LightGBM's answer")
    engines = {"quantised": fast, "lightgbm": slow}
    costs = {
        name: min(_time(predict, trial) for _ in range(3)) / len(trial) * pixels * len(models)
        for name, predict in engines.items()
    }
    return prefer("quantised", costs, f"tried on {len(trial)} plots, for {pixels} pixels")


def prefer(usual: str, costs: Mapping[str, float], how: str) -> EngineChoice:
    """Take the usual engine unless another saves much.

    Timings differ a little each time, and a choice that follows them would too: the same run
    would be recorded as made by another engine, and its files would not be the same to the byte.

    Parameters
    ----------
    usual : str
        The engine for such inputs as a rule.
    costs : mapping of str to float
        Engine → seconds that all pixels would take on one thread.
    how : str
        How that was found out.
    """
    best = min(costs, key=lambda name: costs[name])
    mine = costs.get(usual, float("inf"))
    engine = best if costs[best] < min(mine / 2, mine - WORTH_S) else usual
    return EngineChoice(
        engine, f"{how}: {', '.join(f'{name} {cost:.3g} s' for name, cost in costs.items())}"
    )


def _time(predict: Callable[[FloatArray], FloatArray], rows: FloatArray) -> float:
    start = time.perf_counter()
    predict(rows)
    return time.perf_counter() - start
