"""How fast a COG is written window by window, beside GDAL's own COG driver called alone.

Both start from the same tiled GeoTIFF of three int16 bands and end with a COG of the same
compression, level and blocks.  Ours reads it in windows, writes drafts, builds overviews by
average and by mode, copies, and looks at the result; the peer is one call of GDAL's COG driver,
which averages all bands, classes too.  Each run is a process of its own, the two take turns, and
CPU seconds (user + system, all threads) and peak memory are those that the kernel counted.

    python benchmarks/cog.py               8192² × 3
    python benchmarks/cog.py --size 2048   a quick look
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from _side_by_side import describe_run, measure_in_turn
from rasterio.transform import Affine

from muster.raster.grid import Band, Grid
from muster.raster.windows import plan_windows
from muster.raster.write.cog import CogFormat, write_cog

NODATA = -32768
BANDS = (
    Band("prediction", "mm", 0.01),
    Band("coefficient of variation", "1", 0.001),
    Band("area of applicability", "1", overview="mode"),
)
FORMAT = CogFormat("int16", NODATA)


def make_input(folder: Path, size: int, seed: int) -> None:
    """Write two smooth fields with noise and one of classes, a fifth of it nodata."""
    rng = np.random.default_rng(seed)
    col = np.arange(size) / size
    with rasterio.open(
        folder / "source.tif",
        "w",
        driver="GTiff",
        dtype="int16",
        nodata=NODATA,
        count=3,
        height=size,
        width=size,
        crs="EPSG:6933",
        transform=Affine(1000, 0, -7_000_000, 0, -1000, 3_000_000),
        tiled=True,
        blockxsize=512,
        blockysize=512,
        interleave="band",
    ) as dataset:
        for start in range(0, size, 512):
            rows = min(512, size - start)
            row = (start + np.arange(rows))[:, None] / size
            field = np.sin(12 * row) * np.cos(9 * col) * 15_000
            values = np.stack(
                [
                    field + rng.normal(scale=40, size=field.shape),
                    np.abs(field) / 30 + rng.normal(scale=8, size=field.shape),
                    field + rng.normal(scale=1000, size=field.shape) > 0,
                ]
            ).astype(np.int16)
            values[:, np.sin(5 * row) + np.cos(11 * col) < -0.9] = NODATA
            dataset.write(values, window=((start, start + rows), (0, size)))


def run_ours(folder: Path, threads: int) -> None:
    """Write the COG as build does."""
    with rasterio.open(folder / "source.tif") as dataset:
        grid = Grid.from_dataset(dataset)
        with write_cog(folder / "ours.tif", grid, BANDS, FORMAT, threads=threads) as cog:
            for window in plan_windows(grid, dataset.block_shapes[0], 1 << 21):
                cog.write(window, dataset.read(window=window.ranges))


def run_peer(folder: Path, threads: int) -> None:
    """Call GDAL's COG driver."""
    with rasterio.Env(GDAL_NUM_THREADS=threads, GDAL_CACHEMAX=192 << 20):
        rasterio.shutil.copy(
            folder / "source.tif",
            folder / "peer.tif",
            driver="COG",
            compress="ZSTD",
            level=FORMAT.level,
            predictor="YES",
            blocksize=FORMAT.block_px,
            overview_resampling="AVERAGE",
            num_threads=threads,
        )


def check_equal(folder: Path) -> bool:
    """Say whether both hold the source's pixels."""
    paths = [folder / f"{name}.tif" for name in ("source", "ours", "peer")]
    source, ours, peer = (rasterio.open(path) for path in paths)
    with source, ours, peer:
        return all(
            np.array_equal(source.read(window=window), ours.read(window=window))
            and np.array_equal(source.read(window=window), peer.read(window=window))
            for _, window in source.block_windows(1)
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=8192, help="rows and columns")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=20240501)
    parser.add_argument("--folder", type=Path, help="where files are kept from run to run")
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
        make_input(folder, arguments.size, arguments.seed)
        runs, medians = measure_in_turn(
            __file__, folder, threads=arguments.threads, repeat=arguments.repeat
        )
        answer = {
            "benchmark": "cog",
            **describe_run(),
            "size": arguments.size,
            "bands": len(BANDS),
            **{key: getattr(arguments, key) for key in ("threads", "repeat", "seed")},
            "zstd_level": FORMAT.level,
            "median": medians,
            "runs": runs,
            "pixels_equal": check_equal(folder),
            "ratio_cpu": round(medians["ours"]["cpu_s"] / medians["peer"]["cpu_s"], 3),
            "ratio_wall": round(medians["ours"]["wall_s"] / medians["peer"]["wall_s"], 3),
        }
    print(json.dumps(answer))
    print(
        f"| COG, {arguments.size}² × {len(BANDS)} int16, ZSTD {FORMAT.level} "
        f"| {medians['ours']['cpu_s']:.1f} CPU-s, {medians['ours']['rss_mib']:.0f} MiB "
        f"| GDAL's driver {medians['peer']['cpu_s']:.1f} CPU-s, "
        f"{medians['peer']['rss_mib']:.0f} MiB | {answer['ratio_cpu']:.2f} × |"
    )


if __name__ == "__main__":
    main()
