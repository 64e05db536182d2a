"""How much a block average costs beside decoding its source, and beside gdalwarp.

The source is a global float32 raster in lon/lat, tiled, ZSTD, with a part of it nodata.  It is only
decoded; averaged to cells of half a degree and to half its resolution, once for the values alone
and once into a COG as the step does; and warped by ``gdalwarp -multi -r average`` (Debian:
gdal-bin) into a GeoTIFF, and into a compressed, tiled one.  Each run is a process of its own, all
take turns, and CPU seconds (user + system, all threads) and peak memory are those that the kernel
counted.

    python benchmarks/resampling.py                21,600 × 43,200, and smaller ones for memory
    python benchmarks/resampling.py --rows 5400    a quick look
    python benchmarks/resampling.py --predictor 1  a source that costs less to decode
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from _side_by_side import Figures, describe_run, measure
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.windows import Window

from muster.model.step import StepContext
from muster.raster.grid import Grid
from muster.resampling.compute.plan_stream import Demand, prepare
from muster.resampling.compute.source import look_at_source
from muster.resampling.config.datasets import Dataset
from muster.resampling.layer import GridSpec, Layer
from muster.resampling.resample import resample_dataset

if TYPE_CHECKING:
    from muster.resampling.compute.plan_stream import Prepared

BLOCK = 512
BUDGET_MIB = 512
DECODE = "decode"
WORKS = ("average", "gdalwarp", "cog", "gdalwarp-zstd")


def make_source(path: Path, rows: int, predictor: int) -> None:
    """Write a smooth field with noise of 1/16, a fifth of it nodata."""
    cols = 2 * rows
    rng = np.random.default_rng(0)
    x = np.arange(cols, dtype=np.float32) * np.float32(43.2 / cols)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=rows,
        width=cols,
        count=1,
        dtype="float32",
        crs="EPSG:4326",
        transform=from_origin(-180, 90, 360 / cols, 180 / rows),
        nodata=np.nan,
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        compress="zstd",
        zstd_level=1,
        predictor=predictor,
        num_threads=os.cpu_count(),
        bigtiff="yes",
    ) as dataset:
        for top in range(0, rows, BLOCK):
            count = min(BLOCK, rows - top)
            y = (np.arange(top, top + count, dtype=np.float32) * np.float32(21.6 / rows))[:, None]
            noise = rng.integers(0, 64, (count, cols), dtype=np.uint8).astype(np.float32) / 16
            values = 20 * np.sin(x)[None] * np.cos(y) + noise
            values[np.sin(x * 0.7)[None] + np.cos(y * 1.3) > 0.9] = np.nan
            dataset.write(values.astype(np.float32), 1, window=Window(0, top, cols, count))


def decode(path: Path) -> None:
    """Read every block once and do nothing with it."""
    with rasterio.Env(GDAL_CACHEMAX=64 << 20), rasterio.open(path) as dataset:
        rows = np.empty((BLOCK, dataset.width), dtype=np.float32)
        for top in range(0, dataset.height, BLOCK):
            count = min(BLOCK, dataset.height - top)
            dataset.read(1, window=((top, top + count), (0, dataset.width)), out=rows[:count])


def plan(path: Path, rows: int, threads: int) -> tuple[Prepared, Dataset, Grid]:
    """Prepare the average to so many rows."""
    grid = Grid(CRS.from_epsg(4326), from_origin(-180, 90, 180 / rows, 180 / rows), rows, 2 * rows)
    dataset = Dataset(name="field", path=str(path), method="average")
    source = look_at_source([str(path)])
    return prepare(source, grid, dataset, Demand(BUDGET_MIB, threads)), dataset, grid


def average(path: Path, rows: int, threads: int) -> None:
    """Compute every window, and let it go."""
    prepared, _, _ = plan(path, rows, threads)
    for _ in prepared.stream.windows():
        pass


def average_to_cog(path: Path, rows: int, threads: int) -> None:
    """Run the step."""
    prepared, dataset, grid = plan(path, rows, threads)
    layer = Layer(
        key="field",
        dataset=dataset,
        sources=(str(path),),
        grid=GridSpec.of(grid),
        dtype="float32",
        kind=prepared.fit.kind,
        reason=prepared.fit.reason,
        fingerprint="benchmark",
        cog="cog",
    )
    resample_dataset(
        layer=layer.model_dump(mode="json"),
        memory_mib=BUDGET_MIB,
        cog=path.parent / "ours.tif",
        context=StepContext(threads=threads, scratch=path.parent),
    )


def warp(path: Path, rows: int, threads: int, *, compressed: bool = False) -> None:
    """Become gdalwarp."""
    size = repr(180 / rows)
    output = path.parent / "peer.tif"
    output.unlink(missing_ok=True)
    command = ["gdalwarp", "-q", "-multi", "-wo", f"NUM_THREADS={threads}", "-r", "average"]
    command += ["-ovr", "NONE", "-tr", size, size, "-te", "-180", "-90", "180", "90"]
    if compressed:
        command += ["-co", "COMPRESS=ZSTD", "-co", "TILED=YES"]
    os.execvp(command[0], [*command, str(path), str(output)])


def register(path: Path) -> None:
    """Take a raster that lies on the grid, as the step does."""
    source = look_at_source([str(path)])
    dataset = Dataset(name="field", path=str(path), method="average", store="register")
    prepared = prepare(source, source.grid, dataset)
    layer = Layer(
        key="field",
        dataset=dataset,
        sources=(str(path),),
        grid=GridSpec.of(source.grid),
        dtype="float32",
        kind=prepared.fit.kind,
        reason=prepared.fit.reason,
        fingerprint="benchmark",
        registered=True,
    )
    resample_dataset(layer=layer.model_dump(mode="json"))


def run(work: str, folder: Path, threads: int) -> None:
    """Do one of the works: ``NAME:SOURCE[:ROWS[:PREDICTOR]]``."""
    name, source, *rows = work.split(":")
    path = folder / source
    if name == DECODE:
        decode(path)
    elif name == "register":
        register(path)
    elif name == "make":
        make_source(path, *map(int, rows))
    elif name == "check":
        (folder / "different").write_text(repr(check_equal(folder)))
    else:
        {
            "average": average,
            "cog": average_to_cog,
            "gdalwarp": warp,
            "gdalwarp-zstd": partial(warp, compressed=True),
        }[name](path, int(rows[0]), threads)


def check_equal(folder: Path) -> float:
    """Return the greatest difference of the last two results, in units of the values."""
    greatest = 0.0
    with rasterio.open(folder / "ours.tif") as ours, rasterio.open(folder / "peer.tif") as peer:
        for _, window in ours.block_windows(1):
            a, b = ours.read(1, window=window), peer.read(1, window=window)
            if (np.isnan(a) != np.isnan(b)).any():
                return float("inf")
            if not np.isnan(a).all():
                greatest = max(greatest, float(np.nanmax(np.abs(a - b))))
    return greatest


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=21_600)
    parser.add_argument("--predictor", type=int, default=3, help="Of TIFF: 3, or 1 for none.")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--run")
    options = parser.parse_args()
    if options.run:
        run(options.run, options.folder, options.threads)
        return
    with tempfile.TemporaryDirectory(prefix="muster-benchmark-", dir=options.folder) as name:
        folder = Path(name)
        sizes = {share: int((2 * share) ** 0.5 * options.rows / 2**0.5) // 360 * 360
                 for share in (1.0, 0.5, 0.1)}  # fmt: skip
        # What this process takes at its peak would count for those that it starts.
        for share, rows in sizes.items():
            work = f"make:{share}.tif:{rows}:{options.predictor}"
            measure(__file__, work, folder, options.threads)
        works = [f"{DECODE}:1.0.tif"]
        for rows in (360, options.rows // 2):
            works += [f"{name}:1.0.tif:{rows}" for name in WORKS]
        works += [f"average:{share}.tif:360" for share in (0.5, 0.1)]
        works += [f"register:{share}.tif" for share in sizes]
        runs: dict[str, list[Figures]] = {work: [] for work in works}
        different = 0.0
        for _ in range(options.repeat):
            for work, found in runs.items():
                found.append(measure(__file__, work, folder, options.threads))
                if work.startswith("gdalwarp-"):
                    measure(__file__, "check:peer.tif", folder, options.threads)
                    different = max(different, float((folder / "different").read_text()))
        medians = {
            work: {key: round(statistics.median(r[key] for r in found), 2) for key in found[0]}
            for work, found in runs.items()
        }
        cost = medians[works[0]]["cpu_s"]
        ratios = {work: round(figures["cpu_s"] / cost, 2) for work, figures in medians.items()}
        said = {
            **describe_run(),
            "pixels": 2 * options.rows**2,
            "predictor": options.predictor,
            "budget_mib": BUDGET_MIB,
            "megapixels": {f"{s}.tif": round(2 * r**2 / 1e6) for s, r in sizes.items()},
            "medians": medians,
            "cpu_to_decode": ratios,
            "greatest_difference_from_gdalwarp": different,
        }
        print(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
