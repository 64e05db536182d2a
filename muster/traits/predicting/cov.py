"""Step traits.cov: how far the models of the cross-validation folds disagree, pixel by pixel.

Each fold's prediction is brought back to the trait's unit first; the standard deviation over the
folds is then divided by their mean.  (The tools that this takes the place of transform the ratio
back instead, and shift the mean by a global minimum; neither means anything.)
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import ConfigError, InvalidInput
from muster.model.step import StepContext
from muster.raster.grid import Band
from muster.traits.band_raster import COV_DESCRIPTION, BandRaster, write_band_raster
from muster.traits.bundle.bundle import read_bundle
from muster.traits.engine_names import PredictionEngine  # noqa: TC001
from muster.traits.predicting.engine import load_model

if TYPE_CHECKING:
    from collections.abc import Sequence

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def coefficient_of_variation(predictions: Sequence[FloatArray], epsilon: float) -> FloatArray:
    r"""Divide the standard deviation over the folds by their mean.

    Parameters
    ----------
    predictions : sequence of ndarray, (pixel,), float64
        One array a fold, in the trait's unit.
    epsilon : float
        Means nearer to zero than this have no coefficient of variation, in the trait's unit.

    Returns
    -------
    ndarray, (pixel,), float64
        std (ddof = 1) / mean, of the mean's sign; NaN where the mean lies within epsilon of zero,
        or any fold has no value.
    """
    # Folds are added one after the other, in NumPy's place: its summation over an axis may change
    # its order with the shape, and the result must not depend on the window.
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        mean = predictions[0].copy()
        for values in predictions[1:]:
            mean += values
        mean /= len(predictions)
        squares = np.zeros_like(mean)
        for values in predictions:
            squares += (values - mean) ** 2
        cov = np.sqrt(squares / (len(predictions) - 1)) / mean
    cov[~(np.abs(mean) >= epsilon)] = np.nan
    return cov


def calculate_cov_trait(
    *,
    bundle: str,
    predictors: list[str],
    cov: Path,
    epsilon: float = 1e-6,
    engine: PredictionEngine = "lightgbm",
    fingerprint: str = "",
    window_px: int | None = None,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Map the coefficient of variation over the fold models, each window read once for all.

    Parameters
    ----------
    bundle : str
        URI of the model bundle.
    predictors : list of str
        URIs of the predictor rasters, matched to the model by band name.
    cov : Path
        The band raster to write: one band, a ratio; nodata where any predictor is nodata or the
        mean is too near to zero.
    epsilon : float
        Least size of a mean, in the trait's unit; greater than zero.
    engine : {"quantised", "lightgbm"}
        What evaluates the model; the values do not depend on it.
    fingerprint : str
        Of everything that the raster is made from; recorded in it.
    window_px : int, optional
        Longest side of a window, in pixels; the result does not depend on it.
    context : StepContext
        Threads, memory, scratch folder, progress.

    Returns
    -------
    dict
        As :func:`muster.traits.band_raster.write_band_raster`, and ``folds`` and ``engine``.

    Raises
    ------
    InvalidInput
        When the bundle has fewer than two folds, or bundle, predictors or output are wrong.
    MissingInput
        When bundle or predictors are not there.
    Transient
        When there is no space, or the network failed.
    """
    if not epsilon > 0:
        raise ConfigError("epsilon is not greater than zero", got=epsilon, expected="epsilon > 0")
    model = read_bundle(bundle, context.scratch)
    folds = len(model.fold_paths)
    if folds < 2:
        raise InvalidInput(
            "coefficient of variation needs the models of two folds",
            where=bundle,
            got=f"{folds} fold models",
            expected="at least 2",
            do="train the bundle with folds, or leave out the step cov",
        )
    # A thread works on a window of its own, so that a call needs no more than one.
    models = [
        load_model(path, len(model.predictors), threads=1, engine=engine)
        for path in model.fold_paths
    ]

    def compute(values: FloatArray) -> FloatArray:
        predictions = [model.transform.inverse(predict(values)) for predict in models]
        return coefficient_of_variation(predictions, epsilon)[np.newaxis]

    stage = BandRaster(cov, (Band(COV_DESCRIPTION, unit="1"),), fingerprint, folds + 4)
    facts = write_band_raster(
        stage, compute, predictors, model.predictors, window_px=window_px, context=context
    )
    return {**facts, "folds": folds, "engine": engine}
