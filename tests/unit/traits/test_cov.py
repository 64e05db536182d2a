"""Coefficient of variation: folds back-transformed one by one, windows read once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from muster.errors import ConfigError, InvalidInput
from muster.model.step import StepContext
from muster.raster.predictors import PredictorStack
from muster.traits.bundle.bundle import read_bundle
from muster.traits.bundle.transform import TargetTransform
from muster.traits.predicting.cov import calculate_cov_trait, coefficient_of_variation
from tests.hypothesis_profiles import examples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

YEO_JOHNSON = TargetTransform(kind="yeo-johnson", lambda_=0.7)


def fold_predictions(bundle: str, stack: Any, scratch: Path) -> np.ndarray[Any, Any]:
    """Predict the whole array with each fold, (fold, pixel), in the trait's unit."""
    model = read_bundle(bundle, scratch)
    matrix, valid = stack.matrix(model.predictors)
    predictions = np.full((len(model.fold_paths), len(matrix)), np.nan)
    for fold, path in enumerate(model.fold_paths):
        booster = lightgbm.Booster(model_file=str(path))
        predictions[fold, valid] = model.transform.inverse(booster.predict(matrix[valid]))
    return predictions


@pytest.mark.parametrize("transform", [TargetTransform(), YEO_JOHNSON], ids=["none", "yeo-johnson"])
def test_is_std_over_mean_of_the_folds_in_the_traits_unit(
    stack: Any, make_bundle: Callable[..., str], tmp_path: Path, transform: TargetTransform
) -> None:
    bundle = make_bundle(folds=4, transform=transform)
    path = tmp_path / "cov.tif"
    context = StepContext(scratch=tmp_path)
    facts = calculate_cov_trait(
        bundle=bundle, predictors=[stack.uri], cov=path, fingerprint="f", context=context
    )
    predictions = fold_predictions(bundle, stack, tmp_path)
    expected = predictions.std(axis=0, ddof=1) / predictions.mean(axis=0)
    with rasterio.open(path) as dataset:
        got = dataset.read(1).reshape(-1)
        assert dataset.descriptions == ("coefficient of variation",)
        assert dataset.tags()["MUSTER_FINGERPRINT"] == "f"
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert facts["folds"] == 4
    # The test has means of both signs, or it would not see one taken for the other.
    assert (got[np.isfinite(got)] < 0).any()
    assert (got[np.isfinite(got)] > 0).any()


def test_means_near_zero_have_none(
    stack: Any, make_bundle: Callable[..., str], tmp_path: Path
) -> None:
    bundle = make_bundle()
    path = tmp_path / "cov.tif"
    context = StepContext(scratch=tmp_path)
    facts = calculate_cov_trait(
        bundle=bundle, predictors=[stack.uri], cov=path, epsilon=2.5, context=context
    )
    mean = fold_predictions(bundle, stack, tmp_path).mean(axis=0)
    with rasterio.open(path) as dataset:
        got = np.isfinite(dataset.read(1).reshape(-1))
    np.testing.assert_array_equal(got, np.abs(mean) >= 2.5)
    assert 0 < facts["pixels_valid"] == got.sum() < facts["pixels_with_predictors"]


def test_any_window_size_gives_the_same_file_and_reads_each_window_once(
    stack: Any, make_bundle: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(folds=9, transform=YEO_JOHNSON)
    read_valid = PredictorStack.read_valid
    read: list[Any] = []

    def read_and_note(self: PredictorStack, window: Any) -> Any:
        read.append(window)
        return read_valid(self, window)

    monkeypatch.setattr(PredictorStack, "read_valid", read_and_note)
    digests = set()
    # One pixel a row of windows is where a sum over folds could change its order.
    for window_px in (None, 33, 64):
        path = tmp_path / f"{window_px}.tif"
        read.clear()
        facts = calculate_cov_trait(
            bundle=bundle,
            predictors=[stack.uri],
            cov=path,
            window_px=window_px,
            context=StepContext(scratch=tmp_path),
        )
        assert len(read) == len(set(read)) == facts["windows"]
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_progress_is_reported_window_by_window(
    stack: Any, make_bundle: Callable[..., str], tmp_path: Path
) -> None:
    reported: list[tuple[float, str]] = []
    context = StepContext(scratch=tmp_path, progress=lambda *report: reported.append(report))
    calculate_cov_trait(
        bundle=make_bundle(2),
        predictors=[stack.uri],
        cov=tmp_path / "cov.tif",
        window_px=64,
        context=context,
    )
    fractions = [fraction for fraction, _ in reported]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) == 5 * 3
    assert reported[0][1] == "window 1 of 15"


@pytest.mark.parametrize("folds", [0, 1])
def test_fewer_than_two_folds_are_refused(
    stack: Any, make_bundle: Callable[..., str], tmp_path: Path, folds: int
) -> None:
    path = tmp_path / "cov.tif"
    with pytest.raises(InvalidInput, match=f"{folds} fold models; expected: at least 2"):
        calculate_cov_trait(bundle=make_bundle(folds), predictors=[stack.uri], cov=path)
    assert not path.exists()


@pytest.mark.parametrize("epsilon", [0, -1.0, float("nan")])
def test_epsilon_must_be_positive(tmp_path: Path, epsilon: float) -> None:
    with pytest.raises(ConfigError, match="epsilon > 0"):
        calculate_cov_trait(bundle="", predictors=[], cov=tmp_path / "c.tif", epsilon=epsilon)


@examples(200)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(2, 10), st.integers(1, 20)),
        elements=st.floats(-1e6, 1e6),
    )
)
def test_does_not_depend_on_the_neighbours(predictions: np.ndarray) -> None:
    together = coefficient_of_variation(list(predictions), 1e-6)
    alone = [
        coefficient_of_variation([fold[i : i + 1] for fold in predictions], 1e-6)[0]
        for i in range(predictions.shape[1])
    ]
    np.testing.assert_array_equal(together, np.array(alone))


def test_a_fold_without_a_value_leaves_none() -> None:
    folds = [np.array([1.0, 2.0, np.inf]), np.array([np.nan, 4.0, 1.0])]
    cov = coefficient_of_variation(folds, 1e-6)
    assert np.isnan(cov[0])
    assert cov[1] == np.sqrt(2.0) / 3.0
    assert not np.isfinite(cov[2])
