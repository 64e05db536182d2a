"""Every number that CAST 1.1.0 gave for its own example must come out of ours."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pytest
import rasterio

from muster.model.step import StepContext
from muster.traits.aoa.aoa import AreaOfApplicability, calculate_aoa_trait, fit_aoa
from muster.traits.aoa.neighbours import open_neighbours
from muster.traits.bundle.bundle import BundleContents, write_bundle
from muster.traits.bundle.training_table import TrainingTable

REFERENCE = Path(__file__).parents[4] / "shared" / "reference" / "aoa" / "cookfarm"

pytestmark = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason=f"CAST's reference cases are not at {REFERENCE}"
)


@dataclass(frozen=True)
class Case:
    folder: Path
    training: Any  # (plot, predictor)
    folds: Any
    expected: dict[str, Any]
    fitted: AreaOfApplicability
    pixels: Any  # (pixel, predictor)
    di: Any
    inside: Any
    lpd: Any


@pytest.fixture(scope="module", params=["unweighted", "weighted_cv"])
def case(request: pytest.FixtureRequest) -> Case:
    folder = REFERENCE / request.param
    expected = json.loads((folder / "expected.json").read_text())
    names = expected["variables"]
    train = pyarrow.csv.read_csv(folder / "train.csv")
    training = np.column_stack([train.column(name).to_numpy() for name in names])
    weights = np.array([expected["weight"].get(name, 1.0) for name in names])
    # Without folds CAST compares a plot with all others: each is a fold of its own.
    folds = (
        train.column("fold").to_numpy()
        if "fold" in train.column_names
        else np.arange(len(training))
    )
    with rasterio.open(folder / "predictors.tif") as source:
        order = [source.descriptions.index(name) + 1 for name in names]
        pixels = source.read(order).reshape(len(names), -1).T
    with rasterio.open(folder / "expected_di_aoa_lpd.tif") as source:
        di, inside, lpd = source.read().reshape(3, -1)
    return Case(
        folder,
        training,
        folds,
        expected,
        fit_aoa(training, weights, folds),
        pixels,
        di,
        inside,
        lpd,
    )


def test_threshold_and_mean_training_distance(case: Case) -> None:
    assert case.fitted.threshold == pytest.approx(case.expected["threshold"], rel=1e-9)
    assert case.fitted.mean_training_distance == pytest.approx(
        case.expected["mean_training_distance"], rel=1e-9
    )


def test_training_di_and_lpd(case: Case) -> None:
    np.testing.assert_allclose(case.fitted.train_di, case.expected["train_di"], rtol=1e-9)
    np.testing.assert_array_equal(
        case.fitted.training_local_point_density(), case.expected["train_lpd"]
    )


@pytest.mark.parametrize("engine", ["tree", "blocks", "brute"])
def test_every_pixel(case: Case, engine: str) -> None:
    object.__setattr__(
        case.fitted, "neighbours", open_neighbours(case.fitted.neighbours.points, engine=engine)
    )
    di = case.fitted.dissimilarity(case.pixels)
    np.testing.assert_array_equal(np.isnan(di), np.isnan(case.di))
    # train.csv holds 15 digits of what predictors.tif holds whole, so that a plot's own pixel comes
    # out at 1e-14 instead of the 0 that CAST saw: only there does the absolute tolerance count.
    np.testing.assert_allclose(di, case.di, rtol=1e-6, atol=1e-13)
    assert np.count_nonzero(di < 1e-13) == np.count_nonzero(case.di == 0) > 0
    valid = np.isfinite(di)
    assert np.count_nonzero(valid) == case.expected["pixels_valid"]
    inside = di[valid] <= case.fitted.threshold
    assert np.count_nonzero(inside) == case.expected["pixels_inside"]
    np.testing.assert_array_equal(inside, case.inside[valid] == 1)
    lpd = case.fitted.local_point_density(case.pixels)
    np.testing.assert_array_equal(lpd[valid], case.lpd[valid])
    assert (lpd[~valid] == -1).all()


def test_step_maps_every_pixel(case: Case, tmp_path: Path) -> None:
    names = tuple(case.expected["variables"])
    contents = BundleContents(
        trait="VW",
        predictors=names,
        importance=tuple(case.expected["weight"].get(name, 1.0) for name in names),
        model_text=f"tree\nfeature_names={' '.join(names)}\n\nTree=0\n",
        fold_texts=(),
        training=TrainingTable(case.training, case.folds.astype(np.int32), case.training[:, 0]),
    )
    write_bundle(str(tmp_path / "bundle"), contents)
    facts = calculate_aoa_trait(
        bundle=str(tmp_path / "bundle"),
        predictors=[str(case.folder / "predictors.tif")],
        aoa=tmp_path / "aoa.tif",
        local_point_density=True,
        window_px=17,
        context=StepContext(scratch=tmp_path),
    )
    assert facts["threshold"] == pytest.approx(case.expected["threshold"], rel=1e-9)
    assert facts["pixels_inside"] == case.expected["pixels_inside"]
    assert facts["pixels_valid"] == case.expected["pixels_valid"]
    with rasterio.open(tmp_path / "aoa.tif") as written:
        di, inside, lpd = written.read().reshape(3, -1)
    np.testing.assert_allclose(di, case.di, rtol=1e-6, atol=1e-13)
    np.testing.assert_array_equal(inside, case.inside)
    np.testing.assert_array_equal(lpd, case.lpd)
