from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from scipy.spatial.distance import cdist

from muster.errors import InvalidInput
from muster.model.step import StepContext
from muster.traits.aoa.aoa import AreaOfApplicability, calculate_aoa_trait, fit_aoa
from muster.traits.aoa.neighbours import effective_dimensions, open_neighbours, summarise_pairs
from muster.traits.bundle.bundle import read_bundle
from muster.traits.bundle.training_table import read_training_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.traits.conftest import Stack

ENGINES = ["tree", "blocks", "brute"]


def cloud(count: int, dimensions: int, seed: int = 1) -> Any:
    """Correlated points on very different scales, with exact duplicates and near ones."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dimensions, dimensions))
    points = rng.normal(size=(count, dimensions)) @ mixing * np.geomspace(0.01, 3e4, dimensions)
    points[count // 2] = points[0]
    points[count // 2 + 1] = points[1] * (1 + 1e-9)
    return points + 500.0


def brute_force(training: Any, weights: Any, folds: Any, pixels: Any) -> dict[str, Any]:
    """The method as it is published, in float64, without a thought for time or memory."""
    mean, sd = training.mean(axis=0), training.std(axis=0, ddof=1)
    a = (training - mean) / sd * np.maximum(weights, 0)
    b = (pixels - mean) / sd * np.maximum(weights, 0)
    pairs = cdist(a, a)
    mean_distance = pairs[~np.eye(len(a), dtype=bool)].mean()
    between = np.where(folds[:, None] == folds[None, :], np.inf, pairs) / mean_distance
    held_out = folds != -1
    train_di = between.min(axis=1)[held_out]
    low, high = np.percentile(train_di, [25, 75])
    threshold = min(high + 1.5 * (high - low), train_di.max())
    to_pixels = cdist(b, a) / mean_distance
    return {
        "mean_training_distance": mean_distance,
        "train_di": train_di,
        "threshold": threshold,
        "train_lpd": (between < threshold).sum(axis=1)[held_out],
        "di": to_pixels.min(axis=1),
        "lpd": (to_pixels < threshold).sum(axis=1),
    }


def with_engine(fitted: AreaOfApplicability, engine: str, threads: int = 1) -> AreaOfApplicability:
    points = fitted.neighbours.points
    return dataclasses.replace(
        fitted, neighbours=open_neighbours(points, engine=engine, threads=threads)
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("count", "dimensions"), [(700, 2), (1300, 7), (40, 30), (1100, 30)])
def test_equals_brute_force_in_float64(count: int, dimensions: int, engine: str) -> None:
    rng = np.random.default_rng(5)
    training = cloud(count, dimensions)
    weights = rng.uniform(-0.1, 1.0, dimensions)
    weights[0] = 0.8
    folds = rng.integers(-1, 4, count)
    near = training[np.arange(50) % count]
    pixels = np.concatenate([cloud(800, dimensions, seed=2), near, 40 * near, near + 1e-7])
    expected = brute_force(training, weights, folds, pixels)

    fitted = with_engine(fit_aoa(training, weights, folds, threads=2), engine)

    close = {"rtol": 1e-9, "atol": 0}
    assert fitted.mean_training_distance == pytest.approx(
        expected["mean_training_distance"], rel=1e-9
    )
    np.testing.assert_allclose(fitted.train_di[folds != -1], expected["train_di"], **close)
    assert np.isnan(fitted.train_di[folds == -1]).all()
    assert fitted.threshold == pytest.approx(expected["threshold"], rel=1e-9)
    di = fitted.dissimilarity(pixels)
    np.testing.assert_allclose(di, expected["di"], **close)
    assert (di[800:850] == 0).all(), "a pixel like a plot has a dissimilarity of exactly 0"
    np.testing.assert_array_equal(fitted.local_point_density(pixels), expected["lpd"])
    train_lpd = fitted.training_local_point_density()
    np.testing.assert_array_equal(train_lpd[folds != -1], expected["train_lpd"])
    assert (train_lpd[folds == -1] == -1).all()


@pytest.mark.parametrize(
    "windows",
    [
        pytest.param({1: 120, 7: 140, 513: 1200}, id="some"),
        pytest.param({1: 1200, 7: 1200, 513: 1200}, id="all", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_windows_and_threads_change_no_bit(engine: str, windows: dict[int, int]) -> None:
    training, pixels = cloud(1500, 12), cloud(1200, 12, seed=8)
    weights, folds = np.linspace(0.1, 2, 12), np.arange(1500) % 5
    one = with_engine(fit_aoa(training, weights, folds), engine)
    two = with_engine(fit_aoa(training, weights, folds, threads=2), engine, threads=2)

    assert one.train_di.tobytes() == two.train_di.tobytes()
    assert one.mean_training_distance.hex() == two.mean_training_distance.hex()
    whole = one.dissimilarity(pixels)
    assert whole.tobytes() == two.dissimilarity(pixels).tobytes()
    for size, count in windows.items():
        parts = [two.dissimilarity(pixels[i : min(i + size, count)]) for i in range(0, count, size)]
        assert np.concatenate(parts).tobytes() == whole[:count].tobytes()


def test_nearest_is_found_where_float32_cannot_tell_plots_apart() -> None:
    rng = np.random.default_rng(0)
    points = 300.0 + 1e-6 * rng.normal(size=(3000, 20))
    queries = points[:200] + 1e-9 * rng.normal(size=(200, 20))
    expected = cdist(queries, points).min(axis=1)
    np.testing.assert_allclose(open_neighbours(points, engine="blocks").nearest(queries), expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_pixel_beyond_float32_keeps_its_distance(engine: str) -> None:
    points = np.random.default_rng(0).normal(size=(600, 4))
    queries = np.array([[1e25, 0, 0, 0], [0, 0, -1e15, 3], [1e10, 1e10, 0, 0]])
    found = open_neighbours(points, engine=engine).nearest(queries)
    np.testing.assert_allclose(found, cdist(queries, points).min(axis=1), rtol=1e-12)


def test_missing_predictor_gives_no_value() -> None:
    training = cloud(60, 3)
    fitted = fit_aoa(training, np.array([1.0, 1.0, 0.0]), np.arange(60) % 3)
    pixels = training[:4].copy()
    pixels[1, 0] = np.nan
    pixels[2, 2] = np.nan  # of weight zero, and yet missing
    np.testing.assert_array_equal(np.isnan(fitted.dissimilarity(pixels)), [0, 1, 1, 0])
    np.testing.assert_array_equal(fitted.local_point_density(pixels) == -1, [0, 1, 1, 0])
    assert fitted.dissimilarity(pixels[:0]).shape == (0,)
    assert fitted.local_point_density(pixels[:0]).shape == (0,)


def test_negative_importance_is_no_importance() -> None:
    training = cloud(80, 3)
    folds = np.arange(80) % 4
    without = fit_aoa(training[:, [0, 2]], np.array([0.5, 2.0]), folds)
    negative = fit_aoa(training, np.array([0.5, -3.0, 2.0]), folds)
    assert negative.threshold == pytest.approx(without.threshold, rel=1e-12)
    np.testing.assert_allclose(negative.train_di, without.train_di)


def test_threshold_is_capped_by_the_greatest_training_di() -> None:
    # Four plots in two folds at 0, 1, 3, 7: DI to the other fold before division by the mean
    # distance are 1, 1, 2, 4; Q75 + 1.5 IQR = 2.5 + 1.5 × 1.5 = 4.75, above the greatest.
    training = np.array([[0.0], [1.0], [3.0], [7.0]])
    fitted = fit_aoa(training, np.ones(1), np.array([0, 1, 0, 1]))
    mean = (1 + 3 + 7 + 2 + 6 + 4) / 6
    np.testing.assert_allclose(fitted.train_di, np.array([1, 1, 2, 4]) / mean)
    assert fitted.threshold == pytest.approx(4 / mean)


@pytest.mark.parametrize(
    ("training", "weights", "folds", "message"),
    [
        (cloud(30, 2), [0.0, -1.0], np.arange(30), "no predictor has an importance above zero"),
        (cloud(30, 2), [np.nan, 1.0], np.arange(30), "importance above zero"),
        (cloud(30, 2) * [1, 0], [1.0, 1.0], np.arange(30), "do not vary among the plots: elev"),
        (cloud(30, 2), [1.0, 1.0], np.full(30, -1), "no plot was ever held out"),
        (cloud(30, 2), [1.0, 1.0], np.full(30, 2), "all plots are in one fold"),
        (cloud(30, 2) * np.nan, [1.0, 1.0], np.arange(30), "predictor values are missing"),
        (cloud(30, 2)[:1], [1.0, 1.0], np.arange(1), "1 plots"),
    ],
)
def test_training_that_gives_no_area_says_why(
    training: Any, weights: list[float], folds: Any, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        fit_aoa(training, np.array(weights), folds, names=["temp", "elev"])


def test_engine_follows_the_dimensions_that_the_plots_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.traits.aoa.neighbours.TREE_PLOTS", 500)
    rng = np.random.default_rng(4)
    wide = rng.normal(size=(500, 30))
    assert effective_dimensions(wide) > 25
    assert open_neighbours(wide).engine == "blocks"
    steep = wide * np.exp(-np.arange(30))
    assert effective_dimensions(steep) < 2
    assert open_neighbours(steep).engine == "tree"


def test_nearest_of_other_folds_is_absent_where_there_is_no_other_fold() -> None:
    summary = summarise_pairs(cloud(20, 2), np.zeros(20, dtype=np.int64))
    assert np.isnan(summary.nearest).all()


def test_pixel_beyond_float32_has_no_plot_near() -> None:
    training = cloud(600, 4)
    fitted = with_engine(fit_aoa(training, np.ones(4), np.arange(600) % 3), "blocks")
    far = np.full((2, 4), 1e25)
    np.testing.assert_array_equal(fitted.local_point_density(far), [0, 0])


def test_step_writes_the_same_file_for_any_window_thread_count_and_engine(
    tmp_path: Path, stack: Stack, make_bundle: Callable[..., str]
) -> None:
    uri = make_bundle()
    files = []
    for window_px, threads, engine in (
        (None, 1, "auto"),
        (50, 2, "blocks"),
        (7, 1, "tree"),
        (60, 1, "brute"),
    ):
        path = tmp_path / f"aoa{window_px}.tif"
        facts = calculate_aoa_trait(
            bundle=uri,
            predictors=[stack.uri],
            aoa=path,
            fingerprint="f" * 64,
            window_px=window_px,
            engine=engine,
            context=StepContext(scratch=tmp_path, threads=threads),
        )
        files.append(path.read_bytes())
        assert facts["engine"] in (("tree", "blocks") if engine == "auto" else (engine,))
    assert len(set(files)) == 1

    bundle = read_bundle(uri, tmp_path)
    table = read_training_table(bundle.training_path, bundle.predictors)
    fitted = fit_aoa(table.values, np.array(bundle.importance), table.fold.astype(np.int64))
    pixels, valid = stack.matrix()
    expected = fitted.dissimilarity(pixels)
    with rasterio.open(tmp_path / "aoaNone.tif") as written:
        assert written.descriptions == ("dissimilarity index", "area of applicability")
        assert written.tags()["MUSTER_FINGERPRINT"] == "f" * 64
        di, inside = written.read().reshape(2, -1)
    np.testing.assert_array_equal(di, expected)
    np.testing.assert_array_equal(np.isnan(inside), ~valid)
    np.testing.assert_array_equal(inside[valid] == 1, expected[valid] <= fitted.threshold)
    assert 0 < facts["pixels_inside"] < np.count_nonzero(valid), "there are pixels of both kinds"
    assert facts["pixels_inside"] == np.count_nonzero(inside == 1)
