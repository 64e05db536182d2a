"""How fast a trait and its coefficient of variation are mapped, beside LightGBM's own predict.

Ours runs the two steps as a job does, with the engine that a plan chooses at this size: models
read, windows read, predicted, written and looked at.  The peer reads the same windows once, calls
``Booster.predict`` for each model and keeps the results in memory-mapped arrays.  Each run is a
process of its own, the two take turns, and CPU seconds (user + system, all threads) and peak memory
are those that the kernel counted for it.

    python benchmarks/predict_cov.py                        1 megapixel
    python benchmarks/predict_cov.py --side 400 --trees 50  a quick look
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import rasterio
from _side_by_side import describe_run, measure_in_turn
from rasterio.transform import Affine

from muster.model.step import StepContext
from muster.raster.predictors import open_predictors
from muster.traits.bundle.bundle import BundleContents, read_bundle, write_bundle
from muster.traits.bundle.training_table import TrainingTable
from muster.traits.predicting.cov import calculate_cov_trait
from muster.traits.predicting.predict import predict_trait

PLOTS = 20_000
EPSILON = 1e-6


def make_inputs(folder: Path, arguments: argparse.Namespace) -> None:
    """Write a predictor stack of smooth fields with noise, a third of it sea, and a bundle."""
    rng = np.random.default_rng(arguments.seed)
    side, count = arguments.side, arguments.features
    names = tuple(f"predictor_{number}" for number in range(count))
    row, col = np.mgrid[0:side, 0:side] / side
    sea = np.sin(9 * row) + np.cos(7 * col) < -0.4
    with rasterio.open(
        folder / "stack.tif",
        "w",
        driver="GTiff",
        dtype="float32",
        nodata=float("nan"),
        count=count,
        height=side,
        width=side,
        crs="EPSG:6933",
        transform=Affine(1000, 0, -7_000_000, 0, -1000, 3_000_000),
        tiled=True,
        blockxsize=512,
        blockysize=512,
        interleave="band",
    ) as dataset:
        dataset.descriptions = names
        for band in range(count):
            field = np.sin(row * rng.uniform(2, 20) + col * rng.uniform(2, 20) + band)
            field += 0.3 * rng.normal(size=field.shape)
            field[sea] = np.nan
            dataset.write(field.astype(np.float32), band + 1)
    values = np.sin(rng.uniform(0, 6, (PLOTS, count))) + 0.3 * rng.normal(size=(PLOTS, count))
    target = 10 + values[:, 0] * values[:, 1] + values[:, 2:].sum(axis=1) / 4
    target += rng.normal(size=PLOTS) / 4
    fold = (np.arange(PLOTS) % arguments.folds).astype(np.int32)

    def train(keep: Any) -> str:
        booster = lightgbm.train(
            {
                "objective": "regression",
                "num_leaves": arguments.leaves,
                "learning_rate": 0.05,
                "num_threads": arguments.threads,
                "verbosity": -1,
                "seed": arguments.seed,
                "deterministic": True,
                "force_row_wise": True,
            },
            lightgbm.Dataset(values[keep], target[keep], feature_name=list(names)),
            num_boost_round=arguments.trees,
        )
        text: str = booster.model_to_string()
        return text

    write_bundle(
        str(folder / "bundle"),
        BundleContents(
            trait="benchmark",
            predictors=names,
            importance=(1.0,) * count,
            model_text=train(slice(None)),
            fold_texts=tuple(train(fold != number) for number in range(arguments.folds)),
            training=TrainingTable(values, fold, target),
        ),
        overwrite=True,
    )


def run_ours(folder: Path, threads: int) -> None:
    """Run both steps as a job does."""
    context = StepContext(threads=threads, scratch=folder)
    inputs: dict[str, Any] = {
        "bundle": str(folder / "bundle"),
        "predictors": [str(folder / "stack.tif")],
        "context": context,
        "engine": "quantised",
    }
    predict_trait(prediction=folder / "prediction.tif", **inputs)
    calculate_cov_trait(cov=folder / "cov.tif", epsilon=EPSILON, **inputs)


def run_peer(folder: Path, threads: int) -> None:
    """Call LightGBM over the same windows, each read once for all models."""
    bundle = read_bundle(str(folder / "bundle"), folder)
    paths = (bundle.model_path, *bundle.fold_paths)
    boosters = [lightgbm.Booster(model_file=str(path)) for path in paths]
    with open_predictors([str(folder / "stack.tif")], bundle.predictors) as stack:
        windows = list(stack.windows())
        shape = (2, stack.grid.height, stack.grid.width)
    results = np.lib.format.open_memmap(folder / "peer.npy", "w+", np.float64, shape)
    results[:] = np.nan
    with rasterio.Env(GDAL_NUM_THREADS=threads), rasterio.open(folder / "stack.tif") as dataset:
        for window in windows:
            layers = dataset.read(window=window.ranges)
            matrix = layers.reshape(len(layers), -1).T.astype(np.float64)
            valid = np.isfinite(matrix).all(axis=1)
            if not valid.any():
                continue
            matrix = np.ascontiguousarray(matrix[valid])
            first, *folds = (booster.predict(matrix, num_threads=threads) for booster in boosters)
            mean, std = np.mean(folds, axis=0), np.std(folds, axis=0, ddof=1)
            (row, row_stop), (col, col_stop) = window.ranges
            made = np.full((2, window.pixels), np.nan)
            made[:, valid] = first, np.where(np.abs(mean) < EPSILON, np.nan, std / mean)
            results[:, row:row_stop, col:col_stop] = made.reshape(2, window.height, window.width)
    results.flush()


def check_equal(folder: Path) -> dict[str, float | bool]:
    """Compare what the two made; the order in which folds are added may differ in the last bit."""
    peer = np.load(folder / "peer.npy", mmap_mode="r")
    with rasterio.open(folder / "prediction.tif") as dataset:
        prediction_equal = bool(np.array_equal(dataset.read(1), peer[0], equal_nan=True))
    with rasterio.open(folder / "cov.tif") as dataset:
        cov = dataset.read(1)
    same_holes = np.array_equal(np.isnan(cov), np.isnan(peer[1]))
    worst = float(np.nanmax(np.abs(cov / peer[1] - 1)))
    return {"prediction_equal": prediction_equal, "holes_equal": same_holes, "cov_error": worst}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=1000, help="rows and columns")
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--leaves", type=int, default=64)
    parser.add_argument("--features", type=int, default=30)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=20240501)
    parser.add_argument("--folder", type=Path, help="where inputs are kept from run to run")
    parser.add_argument("--run", choices=("ours", "peer"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.run:
        {"ours": run_ours, "peer": run_peer}[arguments.run](arguments.folder, arguments.threads)
        return
    with tempfile.TemporaryDirectory(prefix="muster-benchmark-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make_inputs(folder, arguments)
        runs, medians = measure_in_turn(
            __file__, folder, threads=arguments.threads, repeat=arguments.repeat
        )
        answer = {
            "benchmark": "predict_cov",
            **describe_run(),
            "pixels": arguments.side**2,
            **{
                key: getattr(arguments, key)
                for key in ("trees", "leaves", "features", "folds", "threads", "repeat", "seed")
            },
            "median": medians,
            "runs": runs,
            **check_equal(folder),
            "ratio_cpu": round(medians["peer"]["cpu_s"] / medians["ours"]["cpu_s"], 3),
        }
    print(json.dumps(answer))
    print(
        f"| predict + CoV, {answer['pixels'] / 1e6:g} Mpx, {arguments.trees} × {arguments.leaves} "
        f"leaves × {arguments.features}, {arguments.folds} folds "
        f"| {medians['ours']['cpu_s']:.1f} CPU-s, {medians['ours']['rss_mib']:.0f} MiB "
        f"| LightGBM {medians['peer']['cpu_s']:.1f} CPU-s, {medians['peer']['rss_mib']:.0f} MiB "
        f"| {answer['ratio_cpu']:.2f} × |"
    )


if __name__ == "__main__":
    main()
