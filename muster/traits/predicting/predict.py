"""Step traits.predict: the trait itself, by the model that was trained on all plots."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003
from typing import Any

import numpy as np

from muster.model.step import StepContext
from muster.raster.grid import Band
from muster.traits.band_raster import BandRaster, write_band_raster
from muster.traits.bundle.bundle import read_bundle
from muster.traits.engine_names import PredictionEngine  # noqa: TC001
from muster.traits.predicting.engine import load_model

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def predict_trait(
    *,
    bundle: str,
    predictors: list[str],
    prediction: Path,
    engine: PredictionEngine = "lightgbm",
    fingerprint: str = "",
    window_px: int | None = None,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Map a trait.

    Parameters
    ----------
    bundle : str
        URI of the model bundle.
    predictors : list of str
        URIs of the predictor rasters, matched to the model by band name.
    prediction : Path
        The band raster to write: one band, in the trait's unit; nodata where any predictor is
        nodata, and where the target's transform has no value to go back to.
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
        As :func:`muster.traits.band_raster.write_band_raster`, and ``engine``.

    Raises
    ------
    InvalidInput
        When bundle, predictors or output are wrong.
    MissingInput
        When bundle or predictors are not there.
    Transient
        When there is no space, or the network failed.
    """
    model = read_bundle(bundle, context.scratch)
    # A thread works on a window of its own, so that a call needs no more than one.
    predict = load_model(model.model_path, len(model.predictors), threads=1, engine=engine)

    def compute(values: FloatArray) -> FloatArray:
        return model.transform.inverse(predict(values))[np.newaxis]

    band = Band(f"{model.trait} prediction", unit=model.unit)
    stage = BandRaster(prediction, (band,), fingerprint, work_values=2)
    facts = write_band_raster(
        stage, compute, predictors, model.predictors, window_px=window_px, context=context
    )
    return {**facts, "engine": engine}
