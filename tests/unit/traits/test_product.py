"""Product: the bands that there are, packed, described, and traceable to what made them."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine
from rio_cogeo.cogeo import cog_validate

import muster
from muster.errors import ConfigError, InvalidInput, MissingInput, MusterError
from muster.model.step import StepContext
from muster.raster.grid import Band, Grid
from muster.raster.write.cog import CogFormat, write_cog
from muster.traits.bundle.bundle import read_bundle
from muster.traits.product.build import build_final_product_trait

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

GRID = Grid(CRS.from_epsg(6933), Affine(1000, 0, -7_000_000, 0, -500, 3_000_000), 700, 1100)
STAGE = CogFormat("float64", math.nan, block_px=256, overviews=False, sparse=True)


def write_band_raster(path: Path, grid: Grid = GRID, fingerprint: str = "", **layers: Any) -> str:
    """Write a band raster: description (with _ for a blank) → (row, col)."""
    bands = [Band(name.replace("_", " ")) for name in layers]
    tags = {"MUSTER_FINGERPRINT": fingerprint} if fingerprint else {}
    with write_cog(path, grid, bands, STAGE, tags=tags) as cog:
        cog.write(grid.whole, np.stack(list(layers.values())))
    return str(path)


@pytest.fixture
def layers() -> dict[str, Any]:
    """Values of the three bands, (row, col), with holes that differ."""
    row, col = np.mgrid[0 : GRID.height, 0 : GRID.width]
    prediction = np.sin(row / 90) * 40 + col / 11
    cov = np.abs(np.cos(col / 70)) * 0.4
    aoa = (row + col > 900).astype(float)
    for layer in (prediction, cov, aoa):
        layer[100:180, 300:760] = np.nan
    cov[0, :5] = [32.9, -40.0, 32.767, np.nan, np.nan]
    return {"prediction": prediction, "cov": cov, "aoa": aoa}


@pytest.fixture
def stages(layers: dict[str, Any], tmp_path: Path) -> dict[str, str]:
    """The band rasters of the three bands."""
    folder = tmp_path / "stages"
    folder.mkdir()
    return {
        "prediction": write_band_raster(
            folder / "p.tif", fingerprint="one", X50_prediction=layers["prediction"]
        ),
        "cov": write_band_raster(
            folder / "c.tif", fingerprint="two", coefficient_of_variation=layers["cov"]
        ),
        "aoa": write_band_raster(
            folder / "a.tif",
            fingerprint="three",
            dissimilarity_index=layers["aoa"] * 0.3,
            area_of_applicability=layers["aoa"],
        ),
    }


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for the product."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def build(bundle: str, bands: dict[str, str], out: Path, **options: Any) -> dict[str, Any]:
    """Build a product into a folder."""
    return build_final_product_trait(
        bundle=bundle,
        bands=bands,
        product=out / "X50.tif",
        quicklook=out / "X50.png",
        **options,
    )


def test_holds_its_stages_within_half_a_step(
    make_bundle: Callable[..., str],
    stages: dict[str, str],
    layers: dict[str, Any],
    out: Path,
) -> None:
    facts = build(make_bundle(), stages, out)
    with rasterio.open(out / "X50.tif") as dataset:
        stored = dataset.read()
        scales, offsets = dataset.scales, dataset.offsets
        assert dataset.dtypes == ("int16",) * 3
        assert dataset.nodata == -32768
        assert Grid.from_dataset(dataset) == GRID
    low, high = np.nanmin(layers["prediction"]), np.nanmax(layers["prediction"])
    assert scales == ((high - low) / 65534, 0.001, 1.0)
    assert offsets == ((high + low) / 2, 0.0, 0.0)
    for index, name in enumerate(("prediction", "cov", "aoa")):
        values = stored[index] * scales[index] + offsets[index]
        np.testing.assert_array_equal(stored[index] == -32768, np.isnan(layers[name]))
        fits = np.isfinite(layers[name]) & (
            np.abs(layers[name]) <= 32.767 * (name == "cov") + 1e6 * (name != "cov")
        )
        assert np.abs(values - layers[name])[fits].max() <= scales[index] * 0.500001
    assert stored[1, 0, :2].tolist() == [32767, -32767]
    assert stored[0].min() == -32768
    assert stored[0][stored[0] > -32768].min() == -32767
    assert stored[0].max() == 32767
    assert facts["saturated_pixels"] == 2
    assert facts["bytes"] == (out / "X50.tif").stat().st_size
    inside = layers["aoa"][np.isfinite(layers["aoa"])]
    assert facts["inside_fraction"] == pytest.approx(inside.mean())


def test_says_what_it_is_and_what_made_it(
    make_bundle: Callable[..., str], stages: dict[str, str], out: Path, tmp_path: Path
) -> None:
    bundle = make_bundle()
    build(bundle, stages, out, tags={"CAMPAIGN": "globe 2020"})
    assert cog_validate(out / "X50.tif", strict=True) == (True, [], [])
    model = read_bundle(bundle, tmp_path)
    with rasterio.open(out / "X50.tif") as dataset:
        assert dataset.descriptions == (
            "X50 prediction",
            "coefficient of variation",
            "area of applicability",
        )
        assert dataset.units == ("mm²/mg", "1", "1")
        assert dataset.tags(3)["meaning"] == "1 = inside the area of applicability, 0 = outside"
        tags = dataset.tags()
        assert dataset.overviews(3) == [2, 4]
    with rasterio.open(out / "X50.tif", overview_level=1) as overview:
        # Neither averaged nor without its hole.
        assert set(np.unique(overview.read(3))) == {-32768, 0, 1}
    assert tags["MUSTER_TRAIT"] == "X50"
    assert tags["MUSTER_UNIT"] == "mm²/mg"
    assert tags["MUSTER_DESCRIPTION"] == "Specific leaf area"
    assert tags["MUSTER_VERSION"] == muster.__version__
    assert tags["MUSTER_MODEL_SHA256"] == model.model_sha256
    assert tags["MUSTER_MODEL_SHA256"] == hashlib.sha256(model.model_path.read_bytes()).hexdigest()
    assert tags["MUSTER_BUNDLE_SHA256"] == model.sha256
    assert json.loads(tags["MUSTER_CV"]) == {"r2": 0.5, "rmse": 1.25}
    assert tags["MUSTER_SATURATED_PIXELS"] == "2"
    assert json.loads(tags["MUSTER_FINGERPRINTS"]) == {
        "prediction": "one",
        "cov": "two",
        "aoa": "three",
    }
    assert tags["CAMPAIGN"] == "globe 2020"


@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        ({"aoa"}, ("X50 prediction", "coefficient of variation")),
        ({"cov"}, ("X50 prediction", "area of applicability")),
        ({"cov", "aoa"}, ("X50 prediction",)),
    ],
)
@pytest.mark.parametrize("how", ["not asked for", "not there"])
def test_a_band_that_is_not_there_is_left_out(
    make_bundle: Callable[..., str],
    stages: dict[str, str],
    out: Path,
    left_out: set[str],
    expected: tuple[str, ...],
    how: str,
) -> None:
    for name in left_out:
        if how == "not there":
            Path(stages[name]).unlink()
        else:
            del stages[name]
    facts = build(make_bundle(), stages, out)
    assert facts["bands"] == list(expected)
    assert cog_validate(out / "X50.tif", strict=True) == (True, [], [])
    with rasterio.open(out / "X50.tif") as dataset:
        assert dataset.descriptions == expected
        assert set(json.loads(dataset.tags()["MUSTER_FINGERPRINTS"])) == set(stages) - left_out
        assert ("MUSTER_SATURATED_PIXELS" in dataset.tags()) == ("cov" not in left_out)
    assert ("inside_fraction" in facts) == ("aoa" not in left_out)
    assert (out / "X50.png").stat().st_size > 0


def test_is_the_same_file_each_time(
    make_bundle: Callable[..., str], stages: dict[str, str], out: Path
) -> None:
    bundle = make_bundle()
    digests = set()
    for context in (StepContext(), StepContext(memory_mib=64), StepContext(threads=3)):
        build(bundle, stages, out, context=context)
        digests.add(
            tuple(
                hashlib.sha256((out / name).read_bytes()).hexdigest()
                for name in ("X50.tif", "X50.png")
            )
        )
    assert len(digests) == 1
    assert sorted(path.name for path in out.iterdir()) == ["X50.png", "X50.tif"]


def test_a_constant_prediction(make_bundle: Callable[..., str], out: Path) -> None:
    grid = Grid(GRID.crs, GRID.transform, 40, 60)
    values = np.full((40, 60), 4.25)
    values[3, 7] = np.nan
    stage = write_band_raster(out / "p.tif", grid, X50_prediction=values)
    build(make_bundle(), {"prediction": stage}, out)
    with rasterio.open(out / "X50.tif") as dataset:
        stored = dataset.read(1)
        assert (stored * dataset.scales[0] + dataset.offsets[0])[0, 0] == 4.25
        assert (stored == -32768).sum() == 1
        assert dataset.overviews(1) == []
    assert cog_validate(out / "X50.tif", strict=True) == (True, [], [])


def test_a_range_that_the_values_leave_is_refused(
    make_bundle: Callable[..., str], stages: dict[str, str], out: Path
) -> None:
    with rasterio.open(stages["prediction"], "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.update_tags(MUSTER_RANGES="[[0, 1]]")
    error = refused(make_bundle(), stages, out)
    assert isinstance(error, InvalidInput)
    assert "outside the range that it records" in str(error)
    assert "expected: 0 to 1" in str(error)


def refused(bundle: str, bands: dict[str, str], out: Path, **options: Any) -> MusterError:
    """Build a product that must be refused, and look that nothing is left."""
    before = set(out.iterdir()) if out.exists() else set()
    with pytest.raises(MusterError) as caught:
        build(bundle, bands, out, **options)
    assert "\n" not in str(caught.value)
    assert (set(out.iterdir()) if out.exists() else set()) == before
    return caught.value


def test_without_the_prediction_there_is_no_product(
    make_bundle: Callable[..., str], stages: dict[str, str], out: Path
) -> None:
    bundle = make_bundle()
    Path(stages["prediction"]).unlink()
    error = refused(bundle, stages, out)
    assert isinstance(error, MissingInput)
    assert stages["prediction"] in str(error)
    del stages["prediction"]
    assert isinstance(refused(bundle, stages, out), MissingInput)


def test_what_is_wrong_is_said_in_one_line(
    make_bundle: Callable[..., str], stages: dict[str, str], out: Path, tmp_path: Path
) -> None:
    bundle = make_bundle()
    error = refused(bundle, {**stages, "shade": "x.tif"}, out)
    assert isinstance(error, ConfigError)
    assert "shade" in str(error)
    error = refused(bundle, stages, out, tags={"MUSTER_TRAIT": "other"})
    assert isinstance(error, ConfigError)
    assert isinstance(refused(bundle, stages, tmp_path / "absent"), InvalidInput)
    assert isinstance(refused(bundle, stages, Path("/proc")), InvalidInput)
    swapped = {**stages, "cov": stages["aoa"]}
    error = refused(bundle, swapped, out)
    assert isinstance(error, InvalidInput)
    assert "expected: coefficient of variation" in str(error)
    other = Grid(GRID.crs, GRID.transform, 30, 40)
    small = write_band_raster(
        tmp_path / "small.tif", other, coefficient_of_variation=np.ones((30, 40))
    )
    error = refused(bundle, {**stages, "cov": small}, out)
    assert isinstance(error, InvalidInput)
    assert "different grids (size)" in str(error)
    data = Path(stages["cov"]).read_bytes()
    Path(stages["cov"]).write_bytes(data[: len(data) * 2 // 3])
    error = refused(bundle, stages, out)
    assert isinstance(error, InvalidInput)
    assert stages["cov"] in str(error)
