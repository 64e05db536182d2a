"""Only what changed: bands are kept wherever they lie, and no product mixes strangers."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.model.plan import Decision
from muster.traits.engine_names import RECORDED_AOA_ENGINES
from tests.unit.traits.test_inspect import Run, decisions, element

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.traits.conftest import Stack

pytestmark = pytest.mark.slow

BANDS = ("predict", "cov", "aoa")
SCALES, OFFSETS = (0.01, 0.0005, 1.0), (3.0, 0.2, 0.0)
OLDER = ("X50 (mean)", "Coefficient of Variation", "Area of Applicability mask")


@pytest.fixture
def run(tmp_path: Path, stack: Stack, make_bundle: Callable[..., str]) -> Run:
    make_bundle(folds=3, name="models/X50")
    return Run(tmp_path, stack.uri)


def product(run: Run) -> Path:
    return run.folder / "maps" / "X50.tif"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_bands(path: Path) -> dict[str, Any]:
    with rasterio.open(path) as dataset:
        return {
            name: (dataset.read(number), dataset.scales[number - 1], dataset.offsets[number - 1])
            for number, name in enumerate(dataset.descriptions, start=1)
        }


def forget_stages(run: Run) -> None:
    shutil.rmtree(run.folder / "bands", ignore_errors=True)


def write_older(run: Run, names: tuple[str, ...] = OLDER, **profile: Any) -> dict[str, Any]:
    """Write a product of the older kind on the predictors' grid; return its stored numbers."""
    rng = np.random.default_rng(2)
    stored = {
        OLDER[0]: rng.integers(-30_000, 30_000, (300, 190)).astype(np.int16),
        OLDER[1]: rng.integers(-300, 3000, (300, 190)).astype(np.int16),
        OLDER[2]: (rng.random((300, 190)) < 0.3).astype(np.int16),
    }
    for layer in stored.values():
        layer[40:70, 100:140] = -32768
    product(run).parent.mkdir(exist_ok=True)
    with rasterio.open(
        product(run),
        "w",
        **{
            "driver": "GTiff",
            "dtype": "int16",
            "nodata": -32768,
            "count": len(names),
            "height": 300,
            "width": 190,
            "crs": "EPSG:6933",
            "transform": Affine(1000, 0, -7_000_000, 0, -1000, 3_000_000),
            "compress": "zstd",
            **profile,
        },
    ) as dataset:
        for number, name in enumerate(names, start=1):
            layer = stored.get(name, stored[OLDER[0]])
            dataset.write(layer[: profile.get("height", 300)], number)
            dataset.set_band_description(number, name)
        dataset.scales = SCALES[: len(names)]
        dataset.offsets = OFFSETS[: len(names)]
    return stored


@pytest.fixture
def whole(run: Run) -> str:
    """The sha256 of the product that one full run makes; nothing is left of that run."""
    run.execute(run.plan())
    digest = sha256(product(run))
    shutil.rmtree(run.folder / "maps")
    forget_stages(run)
    return digest


COVERING = {
    (("predict", "cov", "aoa"), False),
    (("aoa", "cov", "predict"), False),
    (("cov", "predict", "aoa"), True),
    (("aoa", "predict", "cov"), True),
}
"""Each band comes first or last once, with and without the stages of the others."""


@pytest.mark.parametrize(
    ("order", "forgetful"),
    [
        pytest.param(
            order,
            forgetful,
            id=f"{'-'.join(order)}, stages {'forgotten' if forgetful else 'kept'}",
            marks=[] if (order, forgetful) in COVERING else pytest.mark.thorough,
        )
        for order in permutations(BANDS)
        for forgetful in (False, True)
    ],
)
def test_bands_one_by_one_in_any_order_equal_a_full_build_to_the_bit(
    run: Run, whole: str, order: tuple[str, ...], *, forgetful: bool
) -> None:
    for task in order:
        run.execute(run.plan(tasks=[task]))
        if forgetful and product(run).exists():
            forget_stages(run)
    assert sha256(product(run)) == whole
    assert run.decisions() == "reused reused reused reused"


def test_aoa_is_added_and_the_other_bands_stay_as_they_are(run: Run) -> None:
    run.execute(run.plan(tasks=["predict", "cov", "build"]))
    before = read_bands(product(run))
    forget_stages(run)
    plan = run.plan(tasks=["aoa"])
    assert decisions(plan) == "not_asked not_asked run run"
    assert (
        "new: aoa; prediction, cov as in the product there" in element(plan, "traits.build").reason
    )
    run.execute(plan)
    after = read_bands(product(run))
    assert set(after) == {*before, "area of applicability"}
    for name, (stored, scale, offset) in before.items():
        np.testing.assert_array_equal(after[name][0], stored)
        assert after[name][1:] == (scale, offset)


def test_saturated_pixels_are_still_told_of_a_band_that_was_taken_over(run: Run) -> None:
    run.execute(run.plan(tasks=["predict", "cov"]))
    with rasterio.open(product(run), "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.update_tags(MUSTER_SATURATED_PIXELS="17")
    forget_stages(run)
    run.execute(run.plan(tasks=["aoa"]))
    with rasterio.open(product(run)) as dataset:
        assert dataset.tags()["MUSTER_SATURATED_PIXELS"] == "17"


def replace_files(run: Run, other: Path, *names: str) -> None:
    """Put files of another bundle into the trait's own, and say so in its manifest."""
    mine = run.folder / "models" / "X50"
    manifest = json.loads((mine / "bundle.json").read_text())
    theirs = json.loads((other / "bundle.json").read_text())
    for name in names:
        shutil.copy(other / name, mine / name)
        manifest["sha256"][name] = theirs["sha256"][name]
    (mine / "bundle.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("forgetful", [False, True], ids=["stages kept", "stages forgotten"])
def test_retrained_model_computes_prediction_and_variation_and_of_new_points_the_area(
    run: Run, make_bundle: Callable[..., str], *, forgetful: bool
) -> None:
    run.execute(run.plan())
    old = read_bands(product(run))
    other = Path(make_bundle(folds=5, name="other"))
    if forgetful:
        forget_stages(run)
    replace_files(run, other, "fold_0.txt")
    assert run.decisions() == "reused run reused run"
    replace_files(run, other, "fold_0.txt", "fold_1.txt", "fold_2.txt")
    (run.folder / "models" / "X50" / "model.txt").write_text(
        (other / "fold_3.txt").read_text()  # any other model
    )
    manifest = run.folder / "models" / "X50" / "bundle.json"
    data = json.loads(manifest.read_text())
    data["sha256"]["model.txt"] = sha256(run.folder / "models" / "X50" / "model.txt")
    manifest.write_text(json.dumps(data))
    plan = run.plan()
    assert decisions(plan) == "run run reused run"
    assert "changed since it was made: model" in element(plan, "traits.predict").reason
    run.execute(plan)
    new = read_bands(product(run))
    assert not np.array_equal(old["X50 prediction"][0], new["X50 prediction"][0])
    np.testing.assert_array_equal(old["area of applicability"][0], new["area of applicability"][0])
    replace_files(run, other, "training.parquet")
    assert run.decisions() == "reused reused run run"


def test_bands_of_an_older_model_are_never_beside_new_ones(
    run: Run, make_bundle: Callable[..., str]
) -> None:
    run.execute(run.plan())
    forget_stages(run)
    replace_files(run, Path(make_bundle(folds=5, name="other")), "fold_0.txt")
    plan = run.plan(tasks=["aoa"], overwrite=True)
    assert decisions(plan) == "not_asked not_asked run run"
    assert (
        "cov of the product there is outdated and left out" in element(plan, "traits.build").reason
    )
    run.execute(plan)
    assert list(read_bands(product(run))) == ["X50 prediction", "area of applicability"]
    before = sha256(product(run))
    (run.folder / "models" / "X50" / "model.txt").write_text("tree\nbroken")
    assert run.decisions() == " ".join(["invalid_input"] * 4)
    assert sha256(product(run)) == before


def test_other_engine_computes_again_only_when_it_is_asked_for(run: Run) -> None:
    run.execute(run.plan(engines={"predict": "lightgbm", "aoa": "blocks"}))
    digest = sha256(product(run))
    assert run.decisions() == "reused reused reused reused"
    assert run.decisions(engines={"predict": "lightgbm"}) == "reused reused reused reused"
    plan = run.plan(engines={"predict": "quantised"})
    assert decisions(plan) == "run reused reused run"
    assert element(plan, "traits.predict").inputs["engine"] == "quantised"
    assert "changed since it was made: engine" in element(plan, "traits.predict").reason
    before = read_bands(product(run))
    run.execute(plan)
    after = read_bands(product(run))
    for name, (stored, *packing) in before.items():
        np.testing.assert_array_equal(after[name][0], stored)
        assert list(after[name][1:]) == packing
    assert sha256(product(run)) != digest  # its tags say which engine it was
    assert run.decisions() == "reused reused reused reused"


def test_chosen_engine_and_its_reason_are_in_the_plan(run: Run) -> None:
    predict = element(run.plan(), "traits.predict")
    assert predict.inputs["engine"] == "quantised"
    assert "by quantised, tried on 2048 plots, for 57000 pixels: quantised" in predict.reason
    aoa = element(run.plan(), "traits.aoa")
    assert (aoa.inputs["engine"], aoa.reason) == ("blocks", "not there yet")


def test_many_plots_in_few_dimensions_are_searched_by_a_tree(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a rule alone: the same plots give the same engine wherever the plan is made."""
    for module in ("traits.aoa.neighbours", "traits.plan.choose_aoa_engine"):
        monkeypatch.setattr(f"muster.{module}.TREE_PLOTS", 10)
    aoa = element(run.plan(), "traits.aoa")
    assert aoa.inputs["engine"] == "tree"
    assert "by tree, " in aoa.reason
    monkeypatch.setattr("muster.traits.aoa.neighbours.KD_TREE_DIMENSIONS", 0.9)
    assert element(run.plan(), "traits.aoa").inputs["engine"] == "blocks"


@pytest.mark.parametrize("recorded", RECORDED_AOA_ENGINES)
def test_a_band_that_any_engine_has_made_is_up_to_date(
    run: Run, monkeypatch: pytest.MonkeyPatch, recorded: str
) -> None:
    """Whatever engine is asked for now: all give the same bits."""
    with monkeypatch.context() as patch:
        patch.setattr("muster.traits.plan.inspect.RECORDED_AOA_ENGINES", (recorded,))
        run.execute(run.plan(engines={"aoa": "brute"}))
    for asked in ("auto", "tree", "faiss"):
        assert run.decisions(engines={"aoa": asked}) == "reused reused reused reused"
    forget_stages(run)
    assert run.decisions() == "reused reused reused reused", "as the product holds it"


def test_a_product_made_from_another_band_than_the_cache_has_is_up_to_date(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two bands that are right the one in the product counts."""
    for recorded in ("blocks", "tree"):
        with monkeypatch.context() as patch:
            patch.setattr("muster.traits.plan.inspect.RECORDED_AOA_ENGINES", (recorded,))
            run.execute(run.plan())
    assert run.decisions() == "reused reused reused reused"


def test_item_never_names_an_engine_that_did_not_make_the_band(run: Run) -> None:
    def engine() -> str | None:
        item = json.loads(product(run).with_suffix(".json").read_text())
        said: str | None = item["properties"]["muster:engines"].get("aoa")
        return said

    run.execute(run.plan(engines={"aoa": "brute"}))
    assert engine() == "brute"
    (run.folder / "traits.csv").write_text("name,description\nX50,Another\n")
    plan = run.plan(trait_table=str(run.folder / "traits.csv"))
    assert decisions(plan) == "reused reused reused run"
    run.execute(plan)
    assert engine() == "brute", "as the product's item says of what the product holds"
    product(run).unlink()
    run.execute(run.plan())
    assert engine() is None, "a band raster is the same file whichever engine made it"


def test_params_that_name_a_removed_engine_run_with_a_warning(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    plan = run.plan(engines={"aoa": "faiss"})
    assert "the engine faiss was removed: auto takes its place" in caplog.text
    aoa = element(plan, "traits.aoa")
    assert (aoa.decision, aoa.inputs["engine"]) == (Decision.RUN, "blocks")
    run.execute(plan)
    assert run.decisions() == "reused reused reused reused"


def test_gpu_engine_is_taken_where_the_step_has_one_and_refused_where_there_is_none(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan may be made where there is no GPU, or where there is one and the step has none."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: real("numpy") if name == "cupy" else real(name)
    )
    assert element(run.plan(), "traits.aoa").inputs["engine"] != "cupy"
    plan = run.plan(gpus={"traits.aoa": 2})
    assert element(plan, "traits.aoa").inputs["engine"] == "cupy"
    assert "2 GPUs" in element(plan, "traits.aoa").reason
    monkeypatch.undo()
    if real("cupy") is None:
        plan = run.plan(gpus={"traits.aoa": 2})
        assert element(plan, "traits.aoa").inputs["engine"] != "cupy"
        refused = element(run.plan(engines={"aoa": "cupy"}), "traits.aoa")
        assert refused.decision is Decision.INVALID_INPUT
        assert "CuPy is not installed" in refused.reason


def test_a_build_that_failed_is_made_up_for_by_the_same_task(run: Run) -> None:
    run.execute(run.plan(tasks=["predict"]))
    run.execute(run.plan(tasks=["aoa"]), leave_out=("traits.build",))
    plan = run.plan(tasks=["aoa"])
    assert decisions(plan) == "not_asked not_asked reused run"
    run.execute(plan)
    assert list(read_bands(product(run))) == ["X50 prediction", "area of applicability"]
    assert run.decisions(tasks=["aoa"]) == "not_asked not_asked reused not_asked"


def test_settings_of_a_task_that_is_not_asked_for_throw_no_band_away(run: Run) -> None:
    run.execute(run.plan())
    forget_stages(run)
    plan = run.plan(
        tasks=["predict"],
        engines={"aoa": "brute", "cov": "lightgbm"},
        local_point_density=True,
        overwrite=True,
    )
    assert decisions(plan) == "run not_asked not_asked run"
    run.execute(plan)
    assert len(read_bands(product(run))) == 3


def test_a_band_that_vanishes_after_the_plan_is_no_quiet_loss(run: Run) -> None:
    run.execute(run.plan())
    forget_stages(run)
    (run.folder / "maps" / "X50.png").unlink()
    plan = run.plan()
    assert decisions(plan) == "reused reused reused run"
    product(run).unlink()
    with pytest.raises(MissingInput, match=r"bands have gone.*prediction, cov, aoa|not there"):
        run.execute(plan)
    run.execute(run.plan(tasks=["predict"]))
    with pytest.raises(MissingInput, match=r"bands have gone since.*cov, aoa"):
        run.execute(plan)


def test_bands_of_another_model_that_came_since_the_plan_are_not_taken_over(
    run: Run, make_bundle: Callable[..., str]
) -> None:
    run.execute(run.plan(tasks=["predict", "cov"]))
    forget_stages(run)
    plan = run.plan(tasks=["aoa"])
    replace_files(run, Path(make_bundle(folds=5, name="other")), "fold_0.txt")
    run.execute(run.plan(tasks=["predict", "cov"]))
    forget_stages(run)
    before = sha256(product(run))
    with pytest.raises(MissingInput, match=r"bands have gone since.*got: cov"):
        run.execute(plan)
    assert sha256(product(run)) == before


def test_a_broken_bundle_leaves_the_other_traits_alone(
    run: Run, make_bundle: Callable[..., str]
) -> None:
    other = run.folder / "models" / "broken"
    shutil.copytree(run.folder / "models" / "X50", other)
    data = json.loads((other / "bundle.json").read_text())
    for name, content in (
        ("training.parquet", "no parquet"),
        ("model.txt", (other / "model.txt").read_text().partition("\nTree=0")[0]),
    ):
        (other / name).write_text(content)
        data["sha256"][name] = sha256(other / name)
        (other / "bundle.json").write_text(json.dumps({**data, "trait": "broken"}))
        plan = run.plan(traits=["broken", "X50"])
        assert decisions(plan, "broken") == " ".join(["invalid_input"] * 4)
        assert decisions(plan) == "run run run run"


def test_item_of_a_former_making_is_noticed_though_it_is_as_long(run: Run) -> None:
    table = run.folder / "traits.csv"
    folder = run.folder / "maps"
    table.write_text("name,description,try_id\nX50,Leaf A,50\n")
    run.execute(run.plan(trait_table=str(table)))
    former = (folder / "X50.json").read_text()
    table.write_text("name,description,try_id\nX50, Leaf B ,51\n")
    run.execute(run.plan(trait_table=str(table)))
    assert run.decisions(trait_table=str(table)) == "reused reused reused reused"
    (folder / "X50.json").write_text(former)  # as after a kill behind the product
    assert run.decisions(trait_table=str(table)) == "reused reused reused run"


def test_another_trait_set_labels_the_product_anew(run: Run) -> None:
    run.execute(run.plan())
    plan = run.plan(trait_set="gbif")
    assert decisions(plan) == "reused reused reused run"
    run.execute(plan)
    with rasterio.open(product(run)) as dataset:
        assert dataset.tags()["TRAIT_SET"] == "gbif"


def test_stages_that_vanish_after_the_plan_are_taken_from_the_product(run: Run) -> None:
    run.execute(run.plan())
    digest = sha256(product(run))
    (run.folder / "maps" / "X50.png").unlink()
    plan = run.plan()
    assert decisions(plan) == "reused reused reused run"
    forget_stages(run)
    run.execute(plan)
    assert sha256(product(run)) == digest


def test_build_that_is_tried_again_after_it_published_gives_the_same(run: Run) -> None:
    run.execute(run.plan(tasks=["predict", "cov"]))
    forget_stages(run)
    plan = run.plan(tasks=["aoa"])
    run.execute(plan)
    digest = sha256(product(run))
    run.execute(plan)
    assert sha256(product(run)) == digest


def test_picture_or_item_of_another_product_are_made_again(run: Run) -> None:
    run.execute(run.plan())
    item = run.folder / "maps" / "X50.json"
    said = json.loads(item.read_text())
    for broken in (None, "no json", json.dumps({**said, "assets": {}})):
        if broken is None:
            item.unlink()
        else:
            item.write_text(broken)
        assert run.decisions() == "reused reused reused run"
    run.execute(run.plan())
    assert run.decisions() == "reused reused reused reused"


# -- products of the older kind -----------------------------------------------------------------


def test_older_product_is_converted_and_its_mask_turned_round(run: Run) -> None:
    stored = write_older(run)
    plan = run.plan(tasks=["build"])
    assert decisions(plan) == "not_asked not_asked not_asked run"
    assert "of the older kind, and is converted" in element(plan, "traits.build").reason
    run.execute(plan)
    bands = read_bands(product(run))
    assert list(bands) == ["X50 prediction", "coefficient of variation", "area of applicability"]
    for name, older, scale, offset in zip(bands, OLDER[:2], SCALES, OFFSETS, strict=False):
        np.testing.assert_array_equal(bands[name][0], stored[older])
        assert bands[name][1:] == (scale, offset)
    mask = stored[OLDER[2]]
    turned = np.where(mask == -32768, -32768, 1 - mask)
    np.testing.assert_array_equal(bands["area of applicability"][0], turned)
    with rasterio.open(product(run)) as dataset:
        assert "1 = inside" in dataset.tags(3)["meaning"]
        assert "older kind" in dataset.tags(2)["meaning"]
        assert json.loads(dataset.tags()["MUSTER_MADE_FROM"]) == {}
        # Which model it was nobody knows: not the bundle's.
        assert "MUSTER_MODEL_SHA256" not in dataset.tags()
        assert json.loads(dataset.tags()["MUSTER_CV"]) == {}
    # Converted once, it is ours; and what it was made from stays unknown.
    assert run.decisions(tasks=["build"]) == "not_asked not_asked not_asked reused"
    digest = sha256(product(run))
    run.execute(plan)
    assert sha256(product(run)) == digest
    assert run.decisions() == "run run run run"


def test_older_product_gets_our_area_beside_its_own_bands(run: Run) -> None:
    stored = write_older(run, OLDER[:2])
    plan = run.plan(tasks=["aoa"])
    assert decisions(plan) == "not_asked not_asked run run"
    assert (
        "prediction, cov of the older product there is taken over"
        in element(plan, "traits.build").reason
    )
    run.execute(plan)
    bands = read_bands(product(run))
    np.testing.assert_array_equal(bands["X50 prediction"][0], stored[OLDER[0]])
    assert set(np.unique(bands["area of applicability"][0])) <= {-32768, 0, 1}
    forget_stages(run)
    # The area is right; the others are of the older kind, and are computed when asked for.
    plan = run.plan()
    assert decisions(plan) == "run run reused run"
    assert "of the older kind" in element(plan, "traits.cov").reason
    run.execute(plan)
    assert run.decisions() == "reused reused reused reused"


def test_older_bands_are_kept_only_beside_the_older_prediction(run: Run) -> None:
    write_older(run)
    plan = run.plan(tasks=["predict"])
    assert decisions(plan) == "run not_asked not_asked run"
    assert (
        "aoa, cov of the product there is outdated and left out"
        in element(plan, "traits.build").reason
    )
    run.execute(plan)
    assert list(read_bands(product(run))) == ["X50 prediction"]


def test_full_run_takes_nothing_from_an_older_product(run: Run, whole: str) -> None:
    write_older(run)
    plan = run.plan()
    assert decisions(plan) == "run run run run"
    assert element(plan, "traits.build").inputs["former"]["held"] == {}
    run.execute(plan)
    assert sha256(product(run)) == whole


@pytest.mark.parametrize(
    "names",
    [
        ("X50 (std)", *OLDER[1:]),
        ("X51 (mean)", *OLDER[1:]),
        ("X50 (mean)", "coefficient of variation", OLDER[2]),
        ("X50 (mean)", "X50 (mean)", OLDER[2]),
        ("elevation", "rain"),
    ],
    ids=["another statistic", "another trait", "mixed names", "twice", "somebody's raster"],
)
def test_a_raster_that_is_no_product_of_the_trait_is_never_replaced(
    run: Run, names: tuple[str, ...]
) -> None:
    write_older(run, names)
    for changes in ({}, {"tasks": ["build"]}, {"overwrite": True}):
        plan = run.plan(**changes)
        assert element(plan, "traits.build").decision is Decision.INVALID_INPUT
        reason = element(plan, "traits.build").reason
        assert "no product of this trait lies where its product goes" in reason
        assert names[0] in reason
        assert "move it away" in reason


def test_what_cannot_be_used_of_the_product_there_is_said_and_replaced(run: Run) -> None:
    write_older(run, OLDER, height=200)
    plan = run.plan(tasks=["build"])
    assert decisions(plan) == "not_asked not_asked not_asked missing_input"
    assert "the product there lies on 200 rows" in element(plan, "traits.build").reason
    assert element(plan, "traits.build").inputs["former"]["held"] == {}
    run.execute(run.plan())
    whole = product(run).read_bytes()
    forget_stages(run)
    for length, why in ((3000, "cannot be read"), (len(whole) // 2, "is cut"), (0, "be read")):
        product(run).write_bytes(whole[:length])
        plan = run.plan(tasks=["aoa"])
        assert decisions(plan) == "not_asked not_asked run not_asked"
        assert "the product there" in element(plan, "traits.build").reason
        assert why in element(plan, "traits.build").reason
    run.execute(run.plan())
    assert run.decisions() == "reused reused reused reused"


def test_outdated_prediction_is_named_where_one_is_missing(
    run: Run, make_bundle: Callable[..., str]
) -> None:
    run.execute(run.plan())
    forget_stages(run)
    make_bundle(folds=5, name="other")
    (run.folder / "models" / "X50" / "model.txt").write_bytes(
        (run.folder / "other" / "fold_0.txt").read_bytes()
    )
    manifest = run.folder / "models" / "X50" / "bundle.json"
    data = json.loads(manifest.read_text())
    data["sha256"]["model.txt"] = sha256(run.folder / "models" / "X50" / "model.txt")
    manifest.write_text(json.dumps(data))
    before = sha256(product(run))
    plan = run.plan(tasks=["aoa"], overwrite=True)
    assert decisions(plan) == "not_asked not_asked run not_asked"
    reason = element(plan, "traits.build").reason
    assert "prediction of the product there is outdated and left out (changed: model)" in reason
    run.execute(plan)
    assert sha256(product(run)) == before


def test_engine_that_cannot_evaluate_a_model_is_refused_in_the_plan(run: Run) -> None:
    manifest = run.folder / "models" / "X50" / "bundle.json"
    model = manifest.with_name("model.txt")
    model.write_text(model.read_text().replace("objective=regression", "objective=poisson"))
    data = json.loads(manifest.read_text())
    data["sha256"]["model.txt"] = sha256(model)
    manifest.write_text(json.dumps(data))
    assert element(run.plan(), "traits.predict").inputs["engine"] == "lightgbm"
    plan = run.plan(engines={"predict": "quantised"})
    assert decisions(plan) == "invalid_input run run missing_input"
    assert "objective poisson" in element(plan, "traits.predict").reason
    with pytest.raises(ConfigError, match="'fastest' is none of auto, quantised, lightgbm"):
        run.plan(engines={"predict": "fastest"})


def test_older_mask_with_other_values_is_refused_and_left_as_it_is(run: Run) -> None:
    write_older(run)
    with rasterio.open(product(run), "r+") as dataset:
        mask = dataset.read(3)
        mask[0, 0] = 2
        dataset.write(mask, 3)
    before = sha256(product(run))
    plan = run.plan(tasks=["build"])
    build = element(plan, "traits.build")
    # As the runner does it: to a temporary name.
    build = build.model_copy(
        update={"outputs": {k: str(run.folder / f"{k}.part") for k in build.outputs}}
    )
    assert build.decision is Decision.RUN
    with pytest.raises(InvalidInput, match=r"other values than 0 and 1; .*X50\.tif"):
        run.execute(plan.model_copy(update={"elements": (build,)}))
    assert sha256(product(run)) == before


def test_older_product_in_floats_is_packed_as_ours(run: Run) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(300, 190)).astype(np.float32)
    values[:20] = np.nan
    write_older(run, ("X50 (mean)",), dtype="float32", nodata=float("nan"))
    with rasterio.open(product(run), "r+") as dataset:
        dataset.write(values, 1)
        dataset.scales, dataset.offsets = (1.0,), (0.0,)
    run.execute(run.plan(tasks=["build"]))
    ((stored, scale, offset),) = read_bands(product(run)).values()
    assert stored.dtype == np.int16
    found = np.where(stored == -32768, np.nan, stored * scale + offset)
    np.testing.assert_allclose(found, values, atol=scale)


# -- the trait table ----------------------------------------------------------------------------


def test_trait_table_labels_the_product_and_a_new_label_computes_nothing(run: Run) -> None:
    table = run.folder / "traits.csv"
    table.write_text("name,unit,description,try_id\nX50,mm²/mg,Leaf nitrogen per area,50\n")
    run.execute(run.plan(trait_table=str(table)))
    before = read_bands(product(run))
    with rasterio.open(product(run)) as dataset:
        tags = dataset.tags()
        assert tags["MUSTER_DESCRIPTION"] == "Leaf nitrogen per area"
        assert tags["MUSTER_TRY_ID"] == "50"
    item = json.loads((run.folder / "maps" / "X50.json").read_text())
    assert item["properties"]["muster:try_id"] == "50"
    assert run.decisions(trait_table=str(table)) == "reused reused reused reused"
    forget_stages(run)
    table.write_text("name,description\nX50,Another name\n")
    plan = run.plan(trait_table=str(table))
    assert decisions(plan) == "reused reused reused run"
    assert "labels have changed" in element(plan, "traits.build").reason
    run.execute(plan)
    after = read_bands(product(run))
    for name, (stored, *_) in before.items():
        np.testing.assert_array_equal(after[name][0], stored)


def test_unit_of_the_table_must_be_that_of_the_bundle(run: Run) -> None:
    table = run.folder / "traits.csv"
    table.write_text("name,unit\nX50,g\n")
    plan = run.plan(trait_table=str(table))
    assert decisions(plan) == " ".join(["invalid_input"] * 4)
    assert "another unit than the trait table" in element(plan, "traits.predict").reason
