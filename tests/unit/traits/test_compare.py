"""Comparison of two products: each number against plain NumPy on the whole arrays."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio

from muster.traits.compare.compare import compare_products
from muster.traits.compare.comparison import ClassComparison, ValueComparison
from tests.products import GRID, NODATA, OLDER, OURS, UNITS, FloatArray, Made, make_product

if TYPE_CHECKING:
    from muster.traits.compare.comparison import Comparison


def expect_values(a: FloatArray, b: FloatArray) -> dict[str, Any]:
    """Compute what must come out, from whole arrays."""
    both = np.isfinite(a) & np.isfinite(b)
    d = b[both] - a[both]
    absolute = np.where(both, np.abs(b - a), -1)
    row, col = np.unravel_index(absolute.argmax(), a.shape)
    return {
        "valid_in_both": int(both.sum()),
        "only_a": int((np.isfinite(a) & ~both).sum()),
        "only_b": int((np.isfinite(b) & ~both).sum()),
        "identical_pixels": int((d == 0).sum()),
        "mean_difference": d.mean(),
        "rmsd": math.sqrt((d**2).mean()),
        "mae": np.abs(d).mean(),
        "quantiles": np.quantile(d, [0.05, 0.5, 0.95]),
        "correlation": np.corrcoef(a[both], b[both])[0, 1],
        "greatest": (b[row, col] - a[row, col], row, col),
    }


def check_values(found: Any, a: FloatArray, b: FloatArray) -> None:
    assert isinstance(found, ValueComparison)
    expected = expect_values(a, b)
    for name in ("valid_in_both", "only_a", "only_b", "identical_pixels"):
        assert getattr(found, name) == expected[name], name
    for name in ("mean_difference", "rmsd", "mae", "correlation"):
        assert getattr(found, name) == pytest.approx(expected[name], rel=1e-12), name
    assert list(found.quantiles) == ["0.05", "0.5", "0.95"]
    assert list(found.quantiles.values()) == pytest.approx(list(expected["quantiles"]), rel=1e-8)
    assert found.greatest is not None
    difference, row, col = expected["greatest"]
    assert (found.greatest.row, found.greatest.col) == (row, col)
    assert found.greatest.difference == difference


def check_classes(found: Any, a: FloatArray, b: FloatArray) -> None:
    assert isinstance(found, ClassComparison)
    both = np.isfinite(a) & np.isfinite(b)
    counts = [[int(((a == i) & (b == j))[both].sum()) for j in (1, 0)] for i in (1, 0)]
    assert counts == [
        [found.inside_inside, found.inside_outside],
        [found.outside_inside, found.outside_outside],
    ]
    assert found.valid_in_both == both.sum()
    assert found.only_a == (np.isfinite(a) & ~both).sum()
    assert found.only_b == (np.isfinite(b) & ~both).sum()
    assert found.agreement == pytest.approx((a == b)[both].mean())
    assert found.identical_pixels == (a == b)[both].sum()
    assert found.inside_share_a == pytest.approx(np.nanmean(a))
    assert found.inside_share_b == pytest.approx(np.nanmean(b))


def check_all(found: Comparison, a: Made, b: Made) -> None:
    for name in ("prediction", "cov"):
        check_values(found.bands[name], a.values[name], b.values[name])
    check_classes(found.bands["aoa"], a.values["aoa"], b.values["aoa"])


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Made, Made]:
    """Two products that differ in values, holes, packing and order of bands."""
    a = make_product(tmp_path / "a.tif", 1)
    b = make_product(
        tmp_path / "b.tif",
        2,
        names={name: OURS[name] for name in ("aoa", "prediction", "cov")},
        packing={"prediction": (0.0131, 5.0), "cov": (0.002, -0.01), "aoa": (1.0, 0.0)},
        block=16,
    )
    return a, b


def test_every_number_is_that_of_the_whole_arrays(pair: tuple[Made, Made]) -> None:
    a, b = pair
    found = compare_products(a.uri, b.uri)
    check_all(found, a, b)
    assert list(found.bands) == ["prediction", "cov", "aoa"]
    assert not any(band.identical_bytes for band in found.bands.values())
    prediction = found.bands["prediction"]
    assert isinstance(prediction, ValueComparison)
    assert prediction.unit == "mm²/mg"
    place = prediction.greatest
    assert place is not None
    assert place.x == -7_000_000 + 1000 * (place.col + 0.5)
    assert place.y == 3_000_000 - 500 * (place.row + 0.5)
    # The equal-area cylinder with 30° as its true latitude.
    assert place.lon == pytest.approx(math.degrees(place.x / (6378137 * 0.866025)), abs=0.2)
    assert place.lat is not None
    assert 23 < place.lat < 25
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["bands"]["aoa"]


@pytest.mark.parametrize("window_px", [1, 7, 16, 33, 100, 1000])
def test_the_windows_do_not_matter(pair: tuple[Made, Made], window_px: int) -> None:
    a, b = pair
    if window_px == 1:
        grid = dataclasses.replace(GRID, height=13, width=17)
        folder = Path(a.uri).parent
        holes = (slice(3, 5), slice(2, 9))
        a = make_product(folder / "c.tif", 1, grid=grid, holes=holes)
        b = make_product(folder / "d.tif", 2, grid=grid, holes=holes[::-1])
    whole = compare_products(a.uri, b.uri)
    found = compare_products(a.uri, b.uri, window_px=window_px, memory_mib=64)
    for name in ("prediction", "cov"):
        one, other = found.bands[name], whole.bands[name]
        assert isinstance(one, ValueComparison)
        assert isinstance(other, ValueComparison)
        for field in ("mean_difference", "rmsd", "mae", "correlation"):
            assert getattr(one, field) == pytest.approx(getattr(other, field), rel=1e-12)
        # Counted, not added up.
        assert one.quantiles == other.quantiles
        assert one.greatest == other.greatest
        assert one.identical_pixels == other.identical_pixels
    assert found.bands["aoa"] == whole.bands["aoa"]


def test_a_product_is_identical_to_itself_to_the_bit(tmp_path: Path) -> None:
    a = make_product(tmp_path / "a.tif", 1)
    found = compare_products(a.uri, a.uri)
    for band in found.bands.values():
        assert band.identical_bytes
        assert band.identical_pixels == band.valid_in_both > 0
        assert band.only_a == band.only_b == 0
    prediction = found.bands["prediction"]
    assert isinstance(prediction, ValueComparison)
    assert prediction.greatest is None
    assert prediction.mean_difference == prediction.rmsd == prediction.mae == 0
    assert set(prediction.quantiles.values()) == {0.0}
    assert prediction.correlation == pytest.approx(1, abs=1e-12)


def test_one_pixel_or_one_hole_less_is_not_identical(tmp_path: Path) -> None:
    a = make_product(tmp_path / "a.tif", 1)
    for name, value in (("b.tif", 7), ("c.tif", NODATA)):
        path = tmp_path / name
        path.write_bytes(Path(a.uri).read_bytes())
        with rasterio.open(path, "r+") as dataset:
            stored = dataset.read(1)
            before = stored[69, 189]
            stored[69, 189] = value
            dataset.write(stored, 1)
        found = compare_products(a.uri, str(path))
        prediction = found.bands["prediction"]
        assert isinstance(prediction, ValueComparison)
        assert not prediction.identical_bytes
        assert found.bands["cov"].identical_bytes
        if value == NODATA:
            assert prediction.only_a == 1
            assert prediction.greatest is None
        else:
            assert prediction.valid_in_both - prediction.identical_pixels == 1
            assert prediction.greatest is not None
            assert (prediction.greatest.row, prediction.greatest.col) == (69, 189)
            assert prediction.greatest.difference == pytest.approx((7 - before) * 0.013)


def test_an_older_products_mask_is_flipped_before_it_is_compared(tmp_path: Path) -> None:
    ours = make_product(tmp_path / "ours.tif", 1)
    older = make_product(tmp_path / "older.tif", 2, names=OLDER, units=dict.fromkeys(UNITS, ""))
    found = compare_products(ours.uri, older.uri)
    check_all(found, ours, older)
    assert (found.a.kind, found.b.kind, found.b.trait) == ("muster", "older", "X50")
    assert "B is of the older kind: its mask (1 = outside) was flipped to 1 = inside" in found.notes
    assert "B does not say its unit" in found.notes
    assert any("coefficient of variation" in note for note in found.notes)
    assert compare_products(older.uri, ours.uri).bands["prediction"].only_a == (
        found.bands["prediction"].only_b
    )
    # The same area, written the other way round: all agree, though the bytes differ.
    same = make_product(tmp_path / "same.tif", 1, names=OLDER)
    area = compare_products(ours.uri, same.uri).bands["aoa"]
    assert isinstance(area, ClassComparison)
    assert area.agreement == 1
    assert area.inside_outside == area.outside_inside == 0
    assert not area.identical_bytes
    both = compare_products(older.uri, same.uri)
    check_all(both, older, same)
    assert sum("flipped" in note for note in both.notes) == 2


def test_a_mask_packed_over_the_whole_range_is_read_as_classes(tmp_path: Path) -> None:
    a = make_product(tmp_path / "a.tif", 1)
    path = tmp_path / "b.tif"
    path.write_bytes(Path(a.uri).read_bytes())
    with rasterio.open(path, "r+") as dataset:
        stored = dataset.read(3)
        packed = np.where(stored == NODATA, NODATA, np.where(stored == 1, 32767, -32767))
        dataset.write(packed.astype(np.int16), 3)
        dataset.scales = [*dataset.scales[:2], 1 / 65534]
        dataset.offsets = [*dataset.offsets[:2], 0.5]
    area = compare_products(a.uri, str(path)).bands["aoa"]
    assert isinstance(area, ClassComparison)
    assert area.agreement == 1
    assert area.inside_inside > 0


def test_nan_and_infinities_in_floats_are_no_values(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(3, 4) ** 2 / 7
    other = values[::-1] * 1.5
    a, b = values.copy(), other.copy()
    a[0, 1], a[2, 3] = np.nan, np.inf
    b[1, 1], b[0, 1] = np.nan, -9999.0
    for name, array, nodata in (("a.tif", a, None), ("b.tif", b, -9999.0)):
        with rasterio.open(
            tmp_path / name,
            "w",
            driver="GTiff",
            dtype="float64",
            count=1,
            height=3,
            width=4,
            crs=GRID.crs,
            transform=GRID.transform,
            nodata=nodata,
        ) as dataset:
            dataset.write(array, 1)
            dataset.descriptions = ["X50 prediction"]
    b[0, 1] = np.nan
    a[2, 3] = np.nan
    found = compare_products(str(tmp_path / "a.tif"), str(tmp_path / "b.tif"))
    check_values(found.bands["prediction"], a, b)


def test_where_nothing_overlaps_nothing_is_claimed(tmp_path: Path) -> None:
    a = make_product(tmp_path / "a.tif", 1, holes=(slice(0, 40), slice(None)))
    b = make_product(tmp_path / "b.tif", 1, holes=(slice(40, None), slice(None)))
    found = compare_products(a.uri, b.uri)
    prediction, area = found.bands["prediction"], found.bands["aoa"]
    assert isinstance(prediction, ValueComparison)
    assert isinstance(area, ClassComparison)
    assert (prediction.valid_in_both, prediction.only_a, prediction.only_b) == (0, 5700, 7600)
    assert prediction.mean_difference is prediction.rmsd is prediction.correlation is None
    assert prediction.greatest is None
    assert set(prediction.quantiles.values()) == {None}
    assert area.agreement is None
    assert area.inside_share_a is not None
    assert "no pixel has a value in both: prediction, cov, aoa" in found.notes


def test_a_band_that_does_not_vary_has_no_correlation(tmp_path: Path) -> None:
    a = make_product(tmp_path / "a.tif", 1)
    b = make_product(
        tmp_path / "b.tif",
        1,
        packing={"prediction": (0.0, 0.1), "cov": (1e-300, 0.7), "aoa": (1.0, 0.0)},
    )
    found = compare_products(a.uri, b.uri, window_px=7)
    for name in ("prediction", "cov"):
        band = found.bands[name]
        assert isinstance(band, ValueComparison)
        assert band.correlation is None
        assert band.rmsd is not None


def test_the_bands_that_both_have_are_compared(tmp_path: Path) -> None:
    a = make_product(tmp_path / "a.tif", 1, names={k: OURS[k] for k in ("prediction", "aoa")})
    b = make_product(tmp_path / "b.tif", 2, names={k: OURS[k] for k in ("cov", "prediction")})
    found = compare_products(a.uri, b.uri)
    assert list(found.bands) == ["prediction"]
    check_values(found.bands["prediction"], a.values["prediction"], b.values["prediction"])
    assert "not in A, so not compared: cov" in found.notes
    assert "not in B, so not compared: aoa" in found.notes


def test_says_what_was_made_from_the_same_things(tmp_path: Path) -> None:
    fingerprints = {"prediction": "p", "cov": "c1", "aoa": ""}
    one = {
        "MUSTER_FINGERPRINTS": json.dumps(fingerprints),
        "MUSTER_MODEL_SHA256": "abc",
        "MUSTER_BUNDLE_SHA256": "b1",
        "MUSTER_VERSION": "0.1.0",
    }
    two = {**one, "MUSTER_FINGERPRINTS": json.dumps({**fingerprints, "cov": "c2"})}
    a = make_product(tmp_path / "a.tif", 1, tags=one)
    b = make_product(tmp_path / "b.tif", 2, tags=two)
    found = compare_products(a.uri, b.uri)
    assert found.model == "equal"
    made_from = {name: band.made_from for name, band in found.bands.items()}
    assert made_from == {"prediction": "equal", "cov": "different", "aoa": "unknown"}
    assert (found.a.model_sha256, found.a.bundle_sha256, found.a.version) == ("abc", "b1", "0.1.0")
    for broken in ("{", "[1]", '{"prediction": 3}'):
        c = make_product(tmp_path / "c.tif", 2, tags={"MUSTER_FINGERPRINTS": broken})
        found = compare_products(a.uri, c.uri)
        assert {band.made_from for band in found.bands.values()} == {"unknown"}
        assert found.model == "unknown"


def test_other_traits_and_statistics_are_said(tmp_path: Path) -> None:
    a = make_product(tmp_path / "a.tif", 1)
    b = make_product(tmp_path / "b.tif", 2, names={**OURS, "prediction": "X51 prediction"})
    assert "different traits: A is X50, B is X51" in compare_products(a.uri, b.uri).notes
    d = make_product(tmp_path / "d.tif", 2, names={**OLDER, "prediction": "X50 (std)"})
    notes = compare_products(a.uri, d.uri).notes
    assert "what is predicted: a model's prediction in A, std in B" in notes
