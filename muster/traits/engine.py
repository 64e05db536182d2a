"""LightGBM models, ready to predict: the one place that loads and calls them.

Everything that must hold for every call holds here: the text format only, as many threads as the
job was given and no more, and a model that fits its predictors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np

from muster.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def load_model(path: Path, predictors: int, threads: int) -> Callable[[FloatArray], FloatArray]:
    """Load a LightGBM model.

    Parameters
    ----------
    path : Path
        LightGBM's text.
    predictors : int
        How many predictors it must take.
    threads : int
        How many threads it may use.

    Returns
    -------
    callable
        From values, (pixel, predictor), float64, to predictions on the model's scale, (pixel,).
        A pixel's prediction does not depend on the others.

    Raises
    ------
    InvalidInput
        When the file is no LightGBM text, takes other predictors, or predicts several values.
    """
    try:
        booster = lightgbm.Booster(model_file=str(path))
    except lightgbm.basic.LightGBMError as error:
        raise InvalidInput(
            "model cannot be loaded", where=path, got=error, expected="LightGBM's text format"
        ) from error
    if booster.num_feature() != predictors:
        raise InvalidInput(
            "model takes another number of predictors",
            where=path,
            got=booster.num_feature(),
            expected=predictors,
        )
    if booster.num_model_per_iteration() != 1:
        raise InvalidInput(
            "model predicts several values",
            where=path,
            got=booster.num_model_per_iteration(),
            expected="a regression with one value a pixel",
        )

    def predict(values: FloatArray) -> FloatArray:
        predicted: FloatArray = np.asarray(booster.predict(values, num_threads=threads))
        return predicted

    return predict
