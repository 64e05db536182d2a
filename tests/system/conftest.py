"""A small region with trained models, and desks at which a person maps it."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.warp import transform

from tests.conftest import fresh_database
from tests.shared_fixtures import make_once
from tests.system.desk import Desk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOSTILE = """$(touch x) 'a' "b" ü;&|*?"""
TRAITS = ("leaf_area", HOSTILE)
WIDTH_PX, HEIGHT_PX = 160, 120
PIXEL_M = 1000.0
LEFT_M, TOP_M = 410_000.0, 5_630_000.0
PLOT_COUNT = 150


def make_predictors(seed: int) -> tuple[dict[str, np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Make rough fields, (row, col), that no flip or transpose leaves as they are, and the land."""
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX]
    rough = rng.normal(size=(3, HEIGHT_PX, WIDTH_PX))
    predictors = {
        "warmth": 20 - 0.08 * row + 0.02 * col + rough[0],
        "rain": 900 + 2.5 * col - row + 10 * np.sin(row / 5) + 30 * rough[1],
        "height": 300 + 2 * row * np.cos(col / 20) + 20 * rough[2],
    }
    return predictors, row + col > 30


def write_stack(path: Path, seed: int = 5, **profile: Any) -> None:
    """Write the predictors as one tiled raster."""
    predictors, land = make_predictors(seed)
    names = profile.pop("names", tuple(predictors))
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": len(names),
        "width": WIDTH_PX,
        "height": HEIGHT_PX,
        "crs": "EPSG:6933",
        "transform": Affine(PIXEL_M, 0, LEFT_M, 0, -PIXEL_M, TOP_M),
        "nodata": -9999,
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
    } | profile
    with rasterio.open(path, "w", **profile) as dataset:
        for band, name in enumerate(names, start=1):
            values = np.where(land, predictors[name], -9999)
            dataset.write(values[: profile["height"]].astype("float32"), band)
            dataset.set_band_description(band, name)


def write_plots(path: Path) -> None:
    """Write plots on the western half: the east must leave the area of applicability."""
    predictors, land = make_predictors(seed=5)
    rng = np.random.default_rng(6)
    sampled = np.flatnonzero(land & (np.arange(WIDTH_PX) < WIDTH_PX // 2))
    rows, cols = np.unravel_index(rng.choice(sampled, PLOT_COUNT, replace=False), land.shape)
    at = {name: values[rows, cols] for name, values in predictors.items()}
    targets = {
        "leaf_area": 5 + 0.3 * at["warmth"] + rng.normal(0, 0.2, PLOT_COUNT),
        HOSTILE: 2 + 0.01 * at["height"] + rng.normal(0, 0.2, PLOT_COUNT),
    }
    x_m, y_m = LEFT_M + (cols + 0.5) * PIXEL_M, TOP_M - (rows + 0.5) * PIXEL_M
    lon, lat = transform("EPSG:6933", "EPSG:4326", x_m, y_m)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["lon", "lat", *targets])
        writer.writerows(zip(lon, lat, *targets.values(), strict=True))


@pytest.fixture(scope="session")
def region(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictors, plots, and a bundle for each of the traits; not to be changed."""
    return make_once(tmp_path_factory, "region", make_region)


def make_region(folder: Path) -> None:
    """Write the inputs into a folder and train the models."""
    write_stack(folder / "stack.tif")
    write_plots(folder / "plots.csv")
    desk = Desk(folder / "trainer", "postgresql://nobody@127.0.0.1:1/none", folder)
    named = [part for trait in TRAITS for part in ("--traits", trait)]
    trained = desk.muster(
        "traits", "train", "--plots", "../plots.csv", "--predictors", "../stack.tif", *named,
        "--output", "../models", "--folds", "3", "--block-size", "0.1",
        "--unit", "leaf_area=mm²", "--threads", "1",
    )  # fmt: skip
    assert trained.code == 0, trained.stderr


@pytest.fixture(scope="session")
def open_desk(
    store_url: str, migrated_template: str, region: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Desk]]:
    """Make desks that last as long as the tests; for fixtures that several tests look at."""
    from contextlib import ExitStack

    with ExitStack() as stores:

        def open_one() -> Desk:
            url = stores.enter_context(fresh_database(store_url, migrated_template))
            return Desk(tmp_path_factory.mktemp("desk") / "at", url, region)

        yield open_one


@pytest.fixture
def desk(tmp_path: Path, store_url: str, migrated_template: str, region: Path) -> Iterator[Desk]:
    """A desk of the test's own."""
    with fresh_database(store_url, migrated_template) as url:
        yield Desk(tmp_path / "at", url, region)


@pytest.fixture(scope="session")
def mapped(open_desk: Callable[[], Desk]) -> Desk:
    """A desk at which all traits are mapped already; not to be changed."""
    desk = open_desk()
    desk.write_params(TRAITS)
    ran = desk.infer()
    assert ran.code == 0, ran.stderr
    return desk
