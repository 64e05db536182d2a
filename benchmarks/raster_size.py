"""Whether memory and time per pixel stay flat as rasters grow, and what sea costs.

The same model maps stacks of 4, 25 and 100 megapixels with 12 bands, and one of 100 of which three
quarters are sea; a raster of 100 pixels tells what starting costs.  Each step is a process of its
own; CPU seconds and peak memory are the kernel's.

    python benchmarks/raster_size.py                     all sizes
    python benchmarks/raster_size.py --sides 1000 2000   a quick look
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import rasterio
from _side_by_side import describe_run, measure
from rasterio.transform import Affine

from muster.model.step import StepContext
from muster.traits.bundle.bundle import BundleContents, write_bundle
from muster.traits.bundle.training_table import TrainingTable
from muster.traits.predicting.cov import calculate_cov_trait
from muster.traits.predicting.predict import predict_trait
from muster.traits.product.build import build_final_product_trait

if TYPE_CHECKING:
    from collections.abc import Callable

BANDS = 12
STRIP = 512
NAMES = tuple(f"predictor_{number}" for number in range(BANDS))


def make_bundle(folder: Path, trees: int, folds: int) -> None:
    rng = np.random.default_rng(4)
    values = np.round(10 * rng.uniform(-1.3, 1.3, (5000, BANDS)), 1)
    target = values[:, 0] * values[:, 1] / 10 + values[:, 2:].sum(axis=1)
    fold = (np.arange(len(values)) % folds).astype(np.int32)

    def train(keep: Any) -> str:
        parameters = {"objective": "regression", "num_leaves": 31, "verbosity": -1, "seed": 1}
        data = lightgbm.Dataset(values[keep], target[keep], feature_name=list(NAMES))
        text: str = lightgbm.train(parameters, data, trees).model_to_string()
        return text

    write_bundle(
        str(folder / "bundle"),
        BundleContents(
            trait="benchmark",
            predictors=NAMES,
            importance=(1.0,) * BANDS,
            model_text=train(slice(None)),
            fold_texts=tuple(train(fold != number) for number in range(folds)),
            training=TrainingTable(values, fold, target),
        ),
    )


def make_stack(path: Path, side: int, sea: bool) -> None:
    """Write smooth fields with noise, strip by strip; the sea, where there is any, in bays."""
    rng = np.random.default_rng(side)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="float32",
        nodata=-9999,
        count=BANDS,
        height=side,
        width=side,
        crs="EPSG:6933",
        transform=Affine(1000, 0, -7_000_000, 0, -1000, 3_000_000),
        tiled=True,
        blockxsize=512,
        blockysize=512,
        interleave="band",
        compress="zstd",
        zstd_level=1,
        bigtiff="YES",
        num_threads=2,
    ) as dataset:
        dataset.descriptions = NAMES
        col = np.arange(side) / 1000
        for top in range(0, side, STRIP):
            row = (np.arange(top, min(top + STRIP, side)) / 1000)[:, None]
            # Of many waves a quarter lies above this.
            land = np.sin(5 * row) + np.sin(5 * col) > (0.723 if sea else -9)
            for band in range(BANDS):
                field = 10 * np.sin(row * (3 + band) + col * (14 - band) + band)
                field = np.round(field + rng.normal(size=field.shape), 1)
                strip = np.where(land, field, -9999).astype(np.float32)
                place = ((top, top + len(row)), (0, side))
                dataset.write(strip, band + 1, window=place)


def steps(folder: Path, threads: int) -> dict[str, Callable[[], dict[str, Any]]]:
    context = StepContext(threads=threads, scratch=folder)
    bundle, stack = str(folder / "bundle"), [str(folder / "stack.tif")]
    inputs: dict[str, Any] = {"bundle": bundle, "predictors": stack, "context": context}
    return {
        "predict": lambda: predict_trait(prediction=folder / "p.tif", engine="quantised", **inputs),
        "cov": lambda: calculate_cov_trait(cov=folder / "c.tif", engine="quantised", **inputs),
        "build": lambda: build_final_product_trait(
            bundle=bundle,
            bands={"prediction": str(folder / "p.tif"), "cov": str(folder / "c.tif")},
            product=folder / "product.tif",
            quicklook=folder / "product.png",
            context=context,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[10, 2000, 5000, 10_000])
    parser.add_argument("--sea-side", type=int, default=10_000)
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the files go; a temporary one else")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        facts = steps(arguments.folder, arguments.threads)[arguments.run]()
        (arguments.folder / f"{arguments.run}.json").write_text(json.dumps(facts))
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="muster-benchmark-", dir=arguments.folder) as name:
        folder = Path(name)
        make_bundle(folder, arguments.trees, arguments.folds)
        for side, sea in [*((side, False) for side in arguments.sides), (arguments.sea_side, True)]:
            make_stack(folder / "stack.tif", side, sea)
            row: dict[str, Any] = {"mpx": side**2 / 1e6, "sea": sea}
            for step in ("predict", "cov", "build"):
                found = measure(__file__, step, folder, arguments.threads)
                row |= {f"{step}_{key}": round(value, 2) for key, value in found.items()}
            facts = json.loads((folder / "predict.json").read_text())
            row["land_share"] = round(facts["pixels_with_predictors"] / side**2, 3)
            cpu_s = sum(row[f"{step}_cpu_s"] for step in ("predict", "cov", "build"))
            row["us_per_land_pixel"] = round(1e6 * cpu_s / facts["pixels_with_predictors"], 3)
            row["cpu_s"] = round(cpu_s, 2)
            row["rss_mib"] = max(row[f"{step}_rss_mib"] for step in ("predict", "cov", "build"))
            rows.append(row)
            print(json.dumps(row), flush=True)
    print(json.dumps({"benchmark": "raster_size", **describe_run(), "rows": rows}))
    for row in rows:
        print(
            f"| {row['mpx']:g} Mpx × {BANDS}, {row['land_share']:.0%} land | {row['cpu_s']} CPU-s "
            f"| {row['us_per_land_pixel']} µs a land pixel | {row['rss_mib']:.0f} MiB |"
        )


if __name__ == "__main__":
    main()
