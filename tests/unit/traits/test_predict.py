"""predict: LightGBM's own prediction, pixel for pixel, in any windows."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import pytest
import rasterio

from muster.jobs.step import StepContext
from muster.traits.bundle import read_bundle
from muster.traits.predict import predict_trait
from muster.traits.transform import TargetTransform

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def expected_prediction(bundle: str, stack: Any, scratch: Path) -> np.ndarray[Any, Any]:
    """Predict the whole array at once, with LightGBM alone."""
    model = read_bundle(bundle, scratch)
    matrix, valid = stack.matrix(model.predictors)
    expected = np.full(len(matrix), np.nan)
    booster = lightgbm.Booster(model_file=str(model.model_path))
    expected[valid] = model.transform.inverse(booster.predict(matrix[valid]))
    return expected.reshape(stack.values.shape[1:])


@pytest.mark.parametrize(
    "transform",
    [
        TargetTransform(),
        TargetTransform(kind="log", mean=0.3, scale=7.0),
        TargetTransform(kind="yeo-johnson", lambda_=0.7),
    ],
    ids=lambda transform: transform.kind,
)
def test_equals_lightgbm_on_the_whole_array(
    stack: Any, make_bundle: Callable[..., str], tmp_path: Path, transform: TargetTransform
) -> None:
    bundle = make_bundle(transform=transform)
    path = tmp_path / "prediction.tif"
    facts = predict_trait(
        bundle=bundle,
        predictors=[stack.uri],
        prediction=path,
        fingerprint="abc",
        context=StepContext(scratch=tmp_path),
    )
    expected = expected_prediction(bundle, stack, tmp_path)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), expected)
        assert dataset.descriptions == ("X50 prediction",)
        assert dataset.units == ("mm²/mg",)
        assert np.isnan(dataset.nodata)
        assert dataset.tags()["MUSTER_FINGERPRINT"] == "abc"
        assert dataset.dtypes == ("float64",)
    assert facts["pixels"] == 300 * 190
    assert facts["pixels_valid"] == np.isfinite(expected).sum()


def test_any_window_size_gives_the_same_file(
    stack: Any, make_bundle: Callable[..., str], tmp_path: Path
) -> None:
    bundle = make_bundle(transform=TargetTransform(kind="yeo-johnson", lambda_=0.7))
    digests = set()
    for window_px in (None, 17, 64, 100, 4096):
        path = tmp_path / f"{window_px}.tif"
        predict_trait(
            bundle=bundle,
            predictors=[stack.uri],
            prediction=path,
            window_px=window_px,
            context=StepContext(scratch=tmp_path),
        )
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1
