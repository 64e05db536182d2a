from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import rasterio
from pyproj import Transformer
from rasterio.transform import Affine

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.model.step import StepContext
from muster.traits.aoa.aoa import fit_aoa
from muster.traits.bundle.bundle import Bundle, read_bundle
from muster.traits.bundle.training_table import read_training_table
from muster.traits.predicting.boosting import open_booster
from muster.traits.training.blocks import assign_blocks, assign_folds, choose_block_size
from muster.traits.training.importance import measure_importance
from muster.traits.training.plot_predictors import PredictorSource
from muster.traits.training.plots import Coordinates
from muster.traits.training.train import TrainSettings, measure_errors, train_traits

REFERENCE = Path(__file__).parents[4] / "shared" / "reference" / "splot_chile"
QUICK = {"num_iterations": 30, "num_leaves": 7}
FROM_CSV = PredictorSource(names=("temp", "rain", "noise"), from_csv=True)


def plots(count: int = 200) -> dict[str, Any]:
    """Plots whose trait follows temp, and rain a little; noise and flat say nothing."""
    rng = np.random.default_rng(11)
    temp, rain, noise = rng.normal(size=(3, count))
    return {
        "lon": rng.uniform(-75, -66, count),
        "lat": rng.uniform(-55, -18, count),
        "height": np.exp(temp + 0.3 * rain + 0.05 * rng.normal(size=count)),
        "temp": temp,
        "rain": rain,
        "noise": noise,
        "flat": np.full(count, 3.5),
    }


def write(path: Path, columns: dict[str, Any]) -> Path:
    pa.csv.write_csv(pa.table(columns), path)
    return path


def train(
    tmp_path: Path,
    columns: dict[str, Any] | None = None,
    *,
    source: PredictorSource = FROM_CSV,
    traits: tuple[str, ...] = ("height",),
    threads: int = 1,
    out: str = "bundles",
    coordinates: Coordinates | None = None,
    **settings: Any,
) -> dict[str, Any]:
    path = write(tmp_path / "plots.csv", columns if columns is not None else plots())
    return train_traits(
        path,
        traits,
        str(tmp_path / out),
        source=source,
        coordinates=coordinates,
        settings=TrainSettings(**{"lightgbm": QUICK, **settings}),
        context=StepContext(threads=threads),
    )


def bundle_of(tmp_path: Path, trait: str = "height", out: str = "bundles") -> Bundle:
    return read_bundle(str(tmp_path / out / trait), tmp_path)


def test_bundle_holds_what_mapping_needs(tmp_path: Path) -> None:
    facts = train(tmp_path, transform="log", units={"height": "m"}, seed=3)
    bundle = bundle_of(tmp_path)

    assert facts["height"]["bundle"] == str(tmp_path / "bundles" / "height")
    assert (bundle.unit, bundle.seed, bundle.crs) == ("m", 3, "EPSG:4326")
    assert bundle.transform.kind == "log"
    table = read_training_table(bundle.training_path, bundle.predictors)
    np.testing.assert_array_equal(table.target, plots()["height"])
    np.testing.assert_array_equal(table.values[:, 1], plots()["rain"])
    np.testing.assert_array_equal(table.x, plots()["lon"])
    assert np.bincount(table.fold).min() >= 36, "folds hold about equal numbers"

    temp, rain, noise = bundle.importance
    assert temp > 0.5 > rain > abs(noise) + 0.02
    assert bundle.cv["r2"] > 0.5

    # Held out means held out: the metrics are those of the fold models on their own fold, in m.
    predicted = np.empty(200)
    for fold, path in enumerate(bundle.fold_paths):
        model = open_booster(path.read_text())
        held_out = table.fold == fold
        predicted[held_out] = np.exp(model.predict(table.values[held_out]))
    assert measure_errors(table.target, predicted) == dict(bundle.cv)
    everything = open_booster(bundle.model_path.read_text()).predict(table.values)
    assert np.mean((np.exp(everything) - table.target) ** 2) < bundle.cv["rmse"] ** 2


def test_errors_in_a_hand_made_case() -> None:
    metrics = measure_errors(np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 2.0, 5.0, np.nan]))
    low, high = np.quantile([1.0, 2.0, 3.0], [0.01, 0.99])
    rmse = np.sqrt(4 / 3)
    assert metrics == pytest.approx(
        {"r2": -1.0, "rmse": rmse, "mae": 2 / 3, "n": 3, "nrmse": rmse / (high - low)}
    )


def test_same_seed_same_bytes_on_any_number_of_threads(tmp_path: Path) -> None:
    train(tmp_path, out="one", seed=5)
    train(tmp_path, out="two", seed=5, threads=2)
    train(tmp_path, out="three", seed=6)
    one, two, three = (bundle_of(tmp_path, out=name) for name in ("one", "two", "three"))
    assert one.sha256 == two.sha256
    assert one.model_sha256 != three.model_sha256


def test_rows_without_values_are_dropped_and_counted(tmp_path: Path) -> None:
    columns = plots()
    columns["height"][:7] = np.nan
    columns["rain"][5:10] = np.nan
    columns["other"] = np.where(np.arange(200) < 150, columns["temp"], np.nan)
    facts = train(tmp_path, columns, traits=("height", "other"))
    assert facts["height"]["without_target"] == 7
    assert facts["height"]["dropped_nodata"] == 5
    assert facts["height"]["used"] == 190
    assert facts["other"]["used"] == 145
    assert len(read_training_table(bundle_of(tmp_path).training_path, ("temp",)).target) == 190


def test_constant_predictor_is_left_out_and_said(tmp_path: Path) -> None:
    source = PredictorSource(names=("flat", "temp", "rain"), from_csv=True)
    facts = train(tmp_path, source=source)
    bundle = bundle_of(tmp_path)
    assert facts["height"]["dropped_predictors"] == ["flat"]
    assert bundle.predictors == ("temp", "rain")
    table = read_training_table(bundle.training_path, bundle.predictors)
    fit_aoa(table.values, np.array(bundle.importance), table.fold.astype(np.int64))


def test_fold_column_is_taken_as_it_is(tmp_path: Path) -> None:
    columns = plots()
    columns["site"] = np.array(["north", "south", "", "east"] * 50)
    del columns["lon"], columns["lat"]
    train(tmp_path, columns, fold_column="site")
    bundle = bundle_of(tmp_path)
    table = read_training_table(bundle.training_path, bundle.predictors)
    # east, north, south; a plot without a site is never held out.
    np.testing.assert_array_equal(table.fold, [1, 2, -1, 0] * 50)
    assert len(bundle.fold_paths) == 3
    assert bundle.cv["n"] == 150
    assert table.x is None


def stack(tmp_path: Path) -> tuple[Path, Any]:
    """Two bands in an equal-area CRS, asymmetric, packed, with a hole."""
    height, width, size = 60, 40, 50_000.0
    rows, cols = np.mgrid[:height, :width]
    temp = (10 * rows + 3 * cols).astype(np.int16)
    rain = (7 * cols - 2 * rows + 500).astype(np.int16)
    temp[30, 12] = -9999
    x0, y0 = -7_000_000.0, -2_000_000.0
    path = tmp_path / "stack.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=2, dtype="int16",
        crs="EPSG:6933", transform=Affine(size, 0, x0, 0, -size, y0), nodata=-9999,
    ) as target:  # fmt: skip
        target.write(np.stack([rain, temp]))
        target.descriptions = ("rain", "temp")
        target.scales = (1.0, 0.1)
        target.offsets = (0.0, -20.0)
    return path, (x0, y0, size, temp * 0.1 - 20.0, rain.astype(float))


def test_plots_are_sampled_from_a_stack_in_another_crs(tmp_path: Path) -> None:
    path, (x0, y0, size, temp, rain) = stack(tmp_path)
    rng = np.random.default_rng(2)
    row, col = rng.integers(0, 60, 300), rng.integers(0, 40, 300)
    row[0], col[0] = 30, 12  # the hole
    row[1], col[1] = 59, 39
    to_degrees = Transformer.from_crs("EPSG:6933", "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(x0 + (col + 0.2) * size, y0 - (row + 0.9) * size)
    lon[2], lat[2] = 0.0, 0.0  # outside
    columns = {"lon": lon, "lat": lat, "height": temp[row, col] + rain[row, col]}
    facts = train(tmp_path, columns, source=PredictorSource((str(path),)))

    bundle = bundle_of(tmp_path)
    assert bundle.predictors == ("rain", "temp")
    assert (facts["height"]["dropped_outside"], facts["height"]["dropped_nodata"]) == (1, 1)
    table = read_training_table(bundle.training_path, bundle.predictors)
    np.testing.assert_allclose(table.values[:, 0], np.delete(rain[row, col], [0, 2]))
    np.testing.assert_allclose(table.values[:, 1], np.delete(temp[row, col], [0, 2]))


def test_projected_plots_name_their_crs(tmp_path: Path) -> None:
    path, (x0, y0, size, temp, _) = stack(tmp_path)
    row, col = np.divmod(np.arange(400), 39)
    columns = {
        "x": x0 + (col + 0.5) * size,
        "y": y0 - (row + 0.5) * size,
        "height": temp[row, col] ** 2,
    }
    columns["height"][:] += np.arange(400)
    source = PredictorSource((str(path),), names=("temp",))
    train(tmp_path, columns, source=source, coordinates=Coordinates("x", "y", "EPSG:6933"))
    table = read_training_table(bundle_of(tmp_path).training_path, ("temp",))
    np.testing.assert_allclose(table.values[:, 0], temp[row, col])


def test_no_plot_on_the_stack_names_both_extents(tmp_path: Path) -> None:
    path, _ = stack(tmp_path)
    columns = plots() | {"lon": np.full(200, 10.5), "lat": np.linspace(48, 49, 200)}
    with pytest.raises(
        InvalidInput,
        match=r"no plot lies.*x 10\.5 to 10\.5, y 48 to 49 of EPSG:4326.*x -7e\+06.*EPSG:6933",
    ):
        train(tmp_path, columns, source=PredictorSource((str(path),)))


def changed(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (plots() | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        (changed(height=None), {}, r"lack columns for traits: height.*lon, lat, temp"),
        (changed(rain=None), {}, r"lack columns for predictors: rain"),
        (changed(lat=None), {}, r"lack columns for coordinates: lat"),
        (changed(), {"fold_column": "site"}, r"lack columns for folds: site"),
        (changed(temp=["1,5"] + ["2"] * 199), {}, r"no number.*column temp, row 1.*'1,5'"),
        (changed(height=["a"] * 200), {}, r"no number.*column height, row 1 "),
        (changed(temp=np.r_[np.inf, np.ones(199)]), {}, r"infinite.*column temp, row 1 "),
        (changed(lat=np.full(200, 91.0)), {}, r"no longitude and latitude.*lat 91"),
        (
            changed(height=np.full(200, 2.0)),
            {},
            r"height does not vary; where: plots.csv; got: 2 in every plot",
        ),
        (changed(height=np.arange(200.0)), {"transform": "log"}, r"height.*1 of 200 values"),
        (changed(height=np.r_[1.0, np.full(199, np.nan)]), {}, r"too few.*1 of 200.*199 without"),
        (changed(), {"fold_count": 51}, r"too few plots.*at least 204"),
        (changed(), {"block_size": 1000.0}, r"fewer spatial blocks than folds.*1 blocks"),
        (changed(lon=np.zeros(200), lat=np.zeros(200)), {}, r"too close together"),
        (
            changed(temp=np.ones(200), rain=np.ones(200), noise=np.ones(200)),
            {},
            r"no predictor varies",
        ),
        (changed(site=["a"] * 200), {"fold_column": "site"}, r"fewer than two folds"),
    ],
)
def test_table_that_cannot_be_used_says_why(
    tmp_path: Path, columns: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        train(tmp_path, columns, **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": PredictorSource(from_csv=True)}, "nothing says which the predictors are"),
        ({"traits": ("temp",)}, "a trait cannot be its own predictor; got: temp"),
        ({"traits": ("height", "height")}, "named twice"),
        ({"lightgbm": {"num_threads": 3}}, "cannot be set; got: num_threads"),
        ({"lightgbm": {"num_leaves": -3}}, "LightGBM refused"),
    ],
)
def test_wrong_configuration_is_refused(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, **arguments)


def test_one_bad_trait_leaves_the_others_alone(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"1 of 2 traits were not trained.*flat: .*not vary"):
        train(tmp_path, traits=("flat", "height"))
    assert bundle_of(tmp_path).trait == "height"
    assert not (tmp_path / "bundles" / "flat").exists()


def test_existing_bundle_is_found_before_any_training(tmp_path: Path) -> None:
    train(tmp_path)
    before = bundle_of(tmp_path).sha256
    with pytest.raises(InvalidInput, match=r"bundles already.*height"):
        train(tmp_path, seed=9)
    assert bundle_of(tmp_path).sha256 == before


def test_absent_or_broken_table(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="no table of plots"):
        train_traits(tmp_path / "x.csv", ["a"], str(tmp_path), source=FROM_CSV)
    (tmp_path / "x.csv").write_text("a,b\n1\n")
    with pytest.raises(InvalidInput, match="cannot be read"):
        train_traits(tmp_path / "x.csv", ["a"], str(tmp_path), source=FROM_CSV)
    (tmp_path / "x.csv").write_text("a,a\n1,2\n")
    with pytest.raises(InvalidInput, match=r"column twice; .*got: a"):
        train_traits(tmp_path / "x.csv", ["a"], str(tmp_path), source=FROM_CSV)


def test_blocks_are_a_grid_and_folds_are_even() -> None:
    x = np.array([0.1, 9.9, 10.1, -0.1, 0.2])
    y = np.array([0.0, 9.0, 0.0, 0.0, 25.0])
    block = assign_blocks(x, y, 10.0)
    assert block[0] == block[1]
    assert len(set(block[[0, 2, 3, 4]])) == 4, "a block's edge is at each multiple of its size"

    many = np.random.default_rng(0).integers(0, 60, 1000)
    folds = assign_folds(many, 5, seed=1)
    assert np.ptp(np.bincount(folds)) <= 12
    assert all(len(set(folds[many == number])) == 1 for number in range(60))
    np.testing.assert_array_equal(folds, assign_folds(many, 5, seed=1))
    assert (folds != assign_folds(many, 5, seed=2)).any()


def test_chosen_blocks_are_enough_for_the_folds() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1e5, 500), rng.normal(0, 10.0, 500)
    size = choose_block_size(x, y, 5)
    assert assign_blocks(x, y, size).max() + 1 >= 20
    assert assign_blocks(x, y, 2 * size).max() + 1 < 20 or size == np.ptp(x) / 10


def test_importance_is_the_drop_of_r2_when_shuffled() -> None:
    class Doubled:
        """A model that is right, and uses the first predictor alone."""

        def predict(self, values: Any, num_threads: int) -> Any:
            return 2 * values[:, 0]

    values = np.random.default_rng(1).normal(size=(4000, 2))
    folds = np.repeat([0, 1], 2000)
    found = measure_importance(
        [Doubled(), Doubled()], values, 2 * values[:, 0], folds, repeats=3, seed=0, threads=1
    )
    # Shuffled, prediction and truth are independent: the error's mean square is 2 variances.
    assert found[0] == pytest.approx(2.0, rel=0.05)
    assert found[1] == 0.0


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no reference data at {REFERENCE}")
def test_real_plots_of_south_america_with_predictors_of_their_own(tmp_path: Path) -> None:
    facts = train_traits(
        REFERENCE / "plots.csv",
        ["species_richness"],
        str(tmp_path),
        # The rasters cover Chile alone; here they only say which columns are predictors.
        source=PredictorSource((str(REFERENCE / "predictors.tif"),), from_csv=True),
        settings=TrainSettings(transform="log", units={"species_richness": "species"}),
        context=StepContext(threads=2),
    )["species_richness"]
    assert facts["used"] == 703
    assert facts["cv"]["r2"] > 0.3
    bundle = bundle_of(tmp_path, "species_richness", out=".")
    assert bundle.predictors[0] == "bio_1"
    assert len(bundle.predictors) == 11
    assert max(bundle.importance) > 0.1
