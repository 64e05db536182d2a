"""A small region to try the traits workflow on, made up from a seed: no download, no licence.

It has what real data has and a first look should show: a coast (pixels without data), predictors
that hang together (temperature falls with height), plots that were not laid out evenly (few in the
mountains, where the area of applicability must end), and gaps in the trait columns.

Run as ``python -m muster.laptop.example_region FOLDER --seed 0``: it needs the compute packages,
which the services do without.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import rasterio
from rasterio import Affine
from rasterio.warp import transform as transform_coordinates
from scipy.ndimage import gaussian_filter

from muster import storage
from muster.laptop.request import EXAMPLE_TRAITS, PLOTS_NAME, PREDICTORS_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDTH_PX, HEIGHT_PX = 240, 180
PIXEL_M = 1000.0
CRS = "EPSG:6933"
LEFT_M, TOP_M = 410_000.0, 5_630_000.0
NODATA = -9999.0
PLOT_COUNT = 900

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def make_predictors(seed: int) -> tuple[dict[str, FloatArray], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Make the predictors of an island.

    Parameters
    ----------
    seed : int
        Equal seeds make equal islands.

    Returns
    -------
    dict of str to ndarray, (row, col)
        bio_1 (mean annual temperature, °C), bio_4 (its seasonality, standard deviation × 100, °C),
        bio_12 (annual precipitation, mm), bio_15 (its seasonality, coefficient of variation, %),
        elev (m), soil_ph (pH).
    ndarray, (row, col), bool
        True on land.
    """
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : HEIGHT_PX * 1j, 0 : 1 : WIDTH_PX * 1j]

    def smooth_noise(scale_px: float) -> FloatArray:
        noise = gaussian_filter(generator.standard_normal((HEIGHT_PX, WIDTH_PX)), scale_px)
        return np.asarray(noise / noise.std())

    # Off the middle, its ridge in the north-east: no axis can be taken for another.
    distance = np.hypot((x - 0.46) / 0.42, (y - 0.53) / 0.38)
    height = 1.05 - distance + 0.16 * smooth_noise(9)
    land = height > 0.12
    ridge = np.exp(-(((x - 0.62) / 0.13) ** 2) - ((y - 0.36) / 0.17) ** 2)
    elev = np.maximum(1.0, 260.0 * height + 1900.0 * ridge + 70.0 * smooth_noise(4))
    bio_1 = 15.5 - 0.0062 * elev + 4.0 * (y - 0.5) + 0.35 * smooth_noise(6)
    bio_4 = 520.0 + 190.0 * (x - 0.4) + 45.0 * smooth_noise(10)
    bio_12 = np.maximum(180.0, 1150.0 - 700.0 * x + 0.42 * elev + 120.0 * smooth_noise(8))
    bio_15 = np.clip(30.0 + 26.0 * (y - 0.3) - 0.006 * elev + 5.0 * smooth_noise(9), 4.0, 95.0)
    soil_ph = np.clip(7.3 - 0.0014 * bio_12 + 0.45 * smooth_noise(5), 3.5, 8.6)
    predictors = {
        "bio_1": bio_1,
        "bio_4": bio_4,
        "bio_12": bio_12,
        "bio_15": bio_15,
        "elev": elev,
        "soil_ph": soil_ph,
    }
    return predictors, land


def make_plots(
    predictors: Mapping[str, FloatArray], land: np.ndarray[Any, np.dtype[np.bool_]], seed: int
) -> list[dict[str, str]]:
    """Lay out plots, mostly in the lowlands and in the west, and measure traits on them.

    Returns
    -------
    list of dict
        Rows of the plots file: lon, lat in degrees, and the traits with their units in their
        names; an empty text where a trait was not measured.
    """
    generator = np.random.default_rng([seed, 1])
    columns = np.arange(WIDTH_PX)[np.newaxis, :] / WIDTH_PX
    weight = land * np.exp(-predictors["elev"] / 260.0) * (1.15 - columns)
    pixels = generator.choice(land.size, PLOT_COUNT, replace=False, p=weight.ravel() / weight.sum())
    rows, cols = np.unravel_index(np.sort(pixels), land.shape)
    at = {name: values[rows, cols] for name, values in predictors.items()}

    warmth = (at["bio_1"] - 12.0) / 4.0
    rain = (at["bio_12"] - 900.0) / 300.0
    acid = 6.2 - at["soil_ph"]
    noise = generator.standard_normal((3, PLOT_COUNT))
    traits = {
        "leaf_area_mm2": np.exp(6.6 + 0.45 * rain + 0.3 * np.tanh(warmth) + 0.12 * noise[0]),
        "wood_density_g_cm3": 0.58 - 0.07 * rain + 0.05 * warmth + 0.02 * noise[1],
        "plant_height_m": np.exp(1.5 + 0.35 * rain - 0.25 * acid + 0.12 * noise[2]),
    }
    measured = generator.random((len(traits), PLOT_COUNT)) > 0.08

    x_m = LEFT_M + (cols + generator.uniform(0.1, 0.9, PLOT_COUNT)) * PIXEL_M
    y_m = TOP_M - (rows + generator.uniform(0.1, 0.9, PLOT_COUNT)) * PIXEL_M
    lon, lat = transform_coordinates(CRS, "EPSG:4326", x_m, y_m)
    return [
        {
            "lon": f"{lon[plot]:.6f}",
            "lat": f"{lat[plot]:.6f}",
            **{
                name: f"{values[plot]:.4g}" if measured[number, plot] else ""
                for number, (name, values) in enumerate(traits.items())
            },
        }
        for plot in range(PLOT_COUNT)
    ]


def write_example(folder: Path, seed: int) -> None:
    """Write the predictor stack and the plots of the example into a folder."""
    predictors, land = make_predictors(seed)
    stack = storage.stage(str(folder / PREDICTORS_NAME))
    profile = {
        "driver": "GTiff",
        "width": WIDTH_PX,
        "height": HEIGHT_PX,
        "count": len(predictors),
        "dtype": "float32",
        "crs": CRS,
        "transform": Affine(PIXEL_M, 0.0, LEFT_M, 0.0, -PIXEL_M, TOP_M),
        "nodata": NODATA,
        "tiled": True,
        "blockxsize": 128,
        "blockysize": 128,
        "compress": "ZSTD",
    }
    with rasterio.open(stack.path, "w", **profile) as raster:
        for band, (name, values) in enumerate(predictors.items(), start=1):
            raster.write(np.where(land, values, NODATA).astype("float32"), band)
            raster.set_band_description(band, name)
    stack.publish()

    text = io.StringIO()
    writer = csv.DictWriter(text, ["lon", "lat", *EXAMPLE_TRAITS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(make_plots(predictors, land, seed))
    storage.write_text(str(folder / PLOTS_NAME), text.getvalue())


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(folder: Path, seed: int) -> None:
    """Write the example region into FOLDER."""
    write_example(folder, seed)


if __name__ == "__main__":
    main()
