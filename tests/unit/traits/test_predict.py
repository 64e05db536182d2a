"""predict: LightGBM's own prediction, pixel for pixel, in any windows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import pytest
import rasterio

from muster.errors import ConfigError, InvalidInput, MissingInput, MusterError
from muster.model.step import StepContext
from muster.traits.bundle.bundle import read_bundle
from muster.traits.bundle.transform import TargetTransform
from muster.traits.predicting.engine import load_model
from muster.traits.predicting.predict import predict_trait

if TYPE_CHECKING:
    from collections.abc import Callable


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


def test_packed_integers_in_striped_files_are_predicted_as_they_mean(
    make_bundle: Callable[..., str], make_raster: Callable[..., str], tmp_path: Path
) -> None:
    names = ("rain", "temperature", "sand", "height")
    stored = np.random.default_rng(2).integers(-200, 200, (4, 50, 70)).astype(np.int16)
    stored[2, 4, 9] = -32768
    scales, offsets = (0.1, 0.05, 0.2, 0.1), (0.0, 3.0, -1.0, 2.0)
    uris = [
        make_raster(
            tmp_path / f"{name}.tif",
            stored[band : band + 1],
            nodata=-32768,
            scales=scales[band : band + 1],
            offsets=offsets[band : band + 1],
        )
        for band, name in enumerate(names)
    ]
    bundle = make_bundle()
    path = tmp_path / "prediction.tif"
    predict_trait(bundle=bundle, predictors=uris, prediction=path)
    values = stored * np.array(scales)[:, None, None] + np.array(offsets)[:, None, None]
    values[2, 4, 9] = np.nan
    model = read_bundle(bundle, tmp_path)
    order = [names.index(name) for name in model.predictors]
    matrix = np.ascontiguousarray(values[order].reshape(4, -1).T)
    expected = lightgbm.Booster(model_file=str(model.model_path)).predict(matrix)
    expected[4 * 70 + 9] = np.nan
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1).reshape(-1), expected)


def refused(bundle: str, predictors: list[str], path: Path, **options: Any) -> MusterError:
    """Run a prediction that must be refused, and look that it leaves nothing."""
    with pytest.raises(MusterError) as caught:
        predict_trait(bundle=bundle, predictors=predictors, prediction=path, **options)
    assert not path.exists()
    assert "\n" not in str(caught.value)
    return caught.value


def test_what_is_wrong_is_said_in_one_line(
    stack: Any,
    make_bundle: Callable[..., str],
    make_raster: Callable[..., str],
    tmp_path: Path,
) -> None:
    bundle = make_bundle()
    path = tmp_path / "out" / "prediction.tif"
    assert isinstance(refused(bundle, [stack.uri], path), InvalidInput)
    path.parent.mkdir()
    error = refused(make_bundle(names=("clay", "sand"), name="other"), [stack.uri], path)
    assert isinstance(error, InvalidInput)
    assert "absent clay; present height, rain, sand, temperature" in str(error)
    assert isinstance(refused(str(tmp_path / "none"), [stack.uri], path), MissingInput)
    assert isinstance(refused(bundle, [stack.uri], path, window_px=0), ConfigError)
    data = Path(stack.uri).read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(data[: len(data) // 2])
    error = refused(bundle, [str(cut)], path)
    assert isinstance(error, InvalidInput)
    assert str(cut) in str(error)
    sea = make_raster(
        tmp_path / "sea.tif",
        np.full((4, 9, 9), np.nan),
        descriptions=("sand", "height", "temperature", "rain"),
    )
    error = refused(bundle, [sea], path)
    assert isinstance(error, InvalidInput)
    assert "no pixel has all predictors" in str(error)
    assert list(path.parent.iterdir()) == []


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_text("no model\n")
    with pytest.raises(InvalidInput, match="model cannot be loaded"):
        load_model(path, 4, 1)
    values = np.random.default_rng(0).normal(size=(60, 3))
    booster = lightgbm.train(
        {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(values, np.arange(60) % 3),
        num_boost_round=2,
    )
    booster.save_model(path)
    with pytest.raises(InvalidInput, match="got: 3; expected: 4"):
        load_model(path, 4, 1)
    with pytest.raises(InvalidInput, match="predicts several values"):
        load_model(path, 3, 1)
