"""Small asymmetric rasters and tiny LightGBM bundles: swapped axes or bands change every result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from muster.traits.bundle.bundle import BundleContents, write_bundle
from muster.traits.bundle.training_table import TrainingTable
from muster.traits.bundle.transform import NO_TRANSFORM, TargetTransform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NAMES = ("temperature", "rain", "height", "sand")
"""Predictors in the model's order."""

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Stack:
    """A predictor stack on disk and what it holds.

    ``values`` is (band, row, col) in the order of ``names``, NaN for nodata.
    """

    uri: str
    names: tuple[str, ...]
    values: FloatArray

    def matrix(self, names: Sequence[str] = NAMES) -> tuple[FloatArray, np.ndarray[Any, Any]]:
        """Return (pixel, predictor) in another order of names, and which pixels are complete."""
        order = [self.names.index(name) for name in names]
        matrix = np.ascontiguousarray(self.values[order].reshape(len(order), -1).T)
        return matrix, np.isfinite(matrix).all(axis=1)


def make_values(bands: int, height: int, width: int, seed: int = 7) -> FloatArray:
    """Make smooth fields, different along rows and columns and from band to band."""
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[0:height, 0:width]
    values = np.stack(
        [
            10 * np.sin(row / (7 + band)) + 0.05 * col * (band + 1) + rng.normal(size=row.shape)
            for band in range(bands)
        ]
    )
    return values.astype(np.float32).astype(np.float64)


def write_raster(path: Path, values: np.ndarray[Any, Any], **profile: Any) -> str:
    """Write (band, row, col) as GeoTIFF; descriptions, scales and offsets may be in the profile."""
    descriptions = profile.pop("descriptions", None)
    scales, offsets = profile.pop("scales", None), profile.pop("offsets", None)
    profile = {
        "driver": "GTiff",
        "dtype": values.dtype,
        "crs": "EPSG:6933",
        "transform": Affine(1000, 0, -7_000_000, 0, -1000, 3_000_000),
        **profile,
    }
    count, height, width = values.shape
    with rasterio.open(path, "w", count=count, height=height, width=width, **profile) as dataset:
        dataset.write(values)
        if descriptions:
            dataset.descriptions = descriptions
        if scales:
            dataset.scales = scales
        if offsets:
            dataset.offsets = offsets
    return str(path)


@pytest.fixture
def make_raster() -> Callable[..., str]:
    """Write (band, row, col) to a path as GeoTIFF; see :func:`write_raster`."""
    return write_raster


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """A tiled float32 stack of 300 × 190 pixels with holes, bands not in the model's order."""
    names = ("sand", "height", "temperature", "rain")
    values = make_values(4, 300, 190)
    values[0, 20:60, 10:150] = np.nan
    values[2, 250:, :40] = np.nan
    values[3, 5, 7] = np.nan
    uri = write_raster(
        tmp_path / "stack.tif",
        values.astype(np.float32),
        descriptions=names,
        nodata=float("nan"),
        tiled=True,
        blockxsize=64,
        blockysize=64,
        interleave="band",
    )
    return Stack(uri, names, values)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., str]:
    """Write a bundle of a small model and of fold models; return its URI."""

    def make(
        folds: int = 5,
        transform: TargetTransform = NO_TRANSFORM,
        names: tuple[str, ...] = NAMES,
        name: str = "bundle",
    ) -> str:
        values = make_values(len(names), 20, 15, seed=3).reshape(len(names), -1).T
        values = np.ascontiguousarray(values)
        target = values[:, 0] - 0.5 * values[:, 1] * (values[:, -1] > 0) - 3
        fold = (np.arange(len(values)) % max(folds, 2)).astype(np.int32)
        contents = BundleContents(
            trait="X50",
            unit="mm²/mg",
            description="Specific leaf area",
            predictors=names,
            transform=transform,
            importance=(1.0,) * len(names),
            model_text=train(values, target, names),
            fold_texts=tuple(
                train(values[fold != i], target[fold != i], names) for i in range(folds)
            ),
            training=TrainingTable(values, fold, target),
            cv={"r2": 0.5, "rmse": 1.25},
        )
        uri = str(tmp_path / name)
        write_bundle(uri, contents)
        return uri

    return make


def train(values: FloatArray, target: FloatArray, names: Sequence[str]) -> str:
    """Train a small LightGBM model and return its text."""
    booster = lightgbm.train(
        {
            "objective": "regression",
            "num_leaves": 12,
            "min_data_in_leaf": 5,
            "num_threads": 1,
            "deterministic": True,
            "seed": 1,
            "verbosity": -1,
        },
        lightgbm.Dataset(values, target, feature_name=list(names)),
        num_boost_round=12,
    )
    text: str = booster.model_to_string()
    return text
