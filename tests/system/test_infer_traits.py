"""One trait's trouble is its own: the others are whole, and the verdict says which lacks what."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import TRAITS, write_stack
from tests.system.desk import Desk, Ran, assert_says_once, files_of, read_bands, say_states

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.slow


def verdict_on(trait: str, ran: Ran) -> str:
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith(f"{trait}: ")]
    return line


def spoil_manifest(bundle: Path, **changes: object) -> None:
    path = bundle / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def test_a_trait_without_a_model_is_named_and_counts_against_nobody(
    desk: Desk, mapped: Desk
) -> None:
    desk.borrow_bands(mapped, "leaf_area")
    desk.write_params(["seed_mass", "leaf_area"])
    ran = desk.invoke_infer()
    assert ran.code == 0
    line = verdict_on("seed_mass", ran)
    assert line.startswith("seed_mass: missing_input: predict missing_input, cov missing_input")
    for part in ("no model bundle", str(desk.region / "models" / "seed_mass"), "do: train one"):
        assert part in line
    assert "1 of 1 succeeded" in ran.stdout
    assert "1 without their input" in ran.stdout
    assert desk.states(ran.run_id) == {
        "inputs": {"inspect": "succeeded"},
        "leaf_area": say_states("succeeded", bands="reused"),
        "seed_mass": say_states("missing_input"),
    }
    assert desk.status(ran.run_id)["run"]["state"] == "succeeded"
    assert desk.products() == files_of("leaf_area")


def test_when_no_trait_has_a_model_nothing_was_achieved(desk: Desk) -> None:
    desk.write_params(["seed_mass", "height_m"])
    ran = desk.invoke_infer("--json")
    assert ran.code == 1
    report = ran.json()
    assert report["good"] is False
    assert [t["state"] for t in report["traits"]] == ["missing_input", "missing_input"]
    assert [t["product"] for t in report["traits"]] == [None, None]
    assert desk.status(report["run"])["run"]["state"] == "failed"
    assert not desk.products()


def test_an_unknown_trait_or_trait_set_is_refused_before_anything_runs(desk: Desk) -> None:
    desk.write_params(TRAITS, trait_sets=["observed", "imputed"])
    for arguments, parts in (
        (["--traits", "leaf_area", "leaf_aera"], ("unknown trait", "got: leaf_aera", "leaf_area")),
        (["--trait-set", "imputd"], ("unknown trait set", "got: imputd", "observed, imputed")),
        (["--traits", "leaf_area", "leaf_area"], ("traits: named twice: leaf_area",)),
    ):
        ran = desk.invoke_infer(*arguments)
        assert ran.code == 65
        assert_says_once(ran, *parts)
    assert desk.invoke("status").stdout == "no runs yet\n"


def test_bad_bundles_are_invalid_and_the_others_whole(desk: Desk, mapped: Desk) -> None:
    """A model cut short, one of another trait, and one that no longer is what its manifest says."""
    models = desk.folder / "models"
    for trait in ("leaf_area", "cut", "other", "gone", "garbled"):
        shutil.copytree(desk.region / "models" / "leaf_area", models / trait)
        if trait not in ("leaf_area", "other"):
            spoil_manifest(models / trait, trait=trait)
    text = (models / "cut" / "model.txt").read_bytes()
    (models / "cut" / "model.txt").write_bytes(text[: len(text) // 2])
    (models / "gone" / "fold_1.txt").unlink()
    (models / "garbled" / "bundle.json").write_bytes(b"\xff\xfe{")
    desk.borrow_bands(mapped, "leaf_area")
    desk.write_params(["cut", "leaf_area", "other", "gone", "garbled"], models="models")

    ran = desk.invoke_infer()

    assert ran.code == 1
    assert "1 of 4 succeeded" in ran.stdout
    states = desk.states(ran.run_id)
    assert states["leaf_area"] == say_states("succeeded", bands="reused")
    for trait, parts in {
        "cut": ("sha256", str(models / "cut" / "model.txt")),
        "other": ("leaf_area", str(models / "other")),
        "garbled": (str(models / "garbled" / "bundle.json"),),
    }.items():
        assert states[trait] == say_states("invalid_input")
        for part in parts:
            assert part in verdict_on(trait, ran)
    assert set(states["gone"].values()) <= {"invalid_input", "missing_input"}
    assert str(models / "gone" / "fold_1.txt") in verdict_on("gone", ran)
    assert desk.products() == files_of("leaf_area")
    desk.assert_nothing_half_written()


def test_a_model_without_its_predictor_band_says_which_and_where(desk: Desk) -> None:
    write_stack(desk.folder / "lacks.tif", names=("rain", "warmth"))
    desk.write_params(["leaf_area"], predictors="lacks.tif")
    ran = desk.invoke_infer()
    assert ran.code == 1
    line = verdict_on("leaf_area", ran)
    for part in (
        "predictors lack height",
        str(desk.folder / "lacks.tif"),
        str(desk.region / "models" / "leaf_area"),
        "rain, warmth",
    ):
        assert part in line
    assert desk.states(ran.run_id)["leaf_area"] == say_states("invalid_input")
    assert not desk.products()


@pytest.mark.thorough
def test_predictors_are_matched_by_name_in_any_order_and_number_of_files(
    desk: Desk, mapped: Desk
) -> None:
    write_stack(desk.folder / "a.tif", names=("height", "warmth"))
    write_stack(desk.folder / "b.tif", names=("rain",))
    desk.write_params(["leaf_area"], predictors=["a.tif", "b.tif"])
    assert desk.invoke_infer("--predict-only").code == 0
    ours = read_bands(desk.stage("leaf_area", "predict"))
    theirs = read_bands(mapped.stage("leaf_area", "predict"))
    (name,) = ours
    assert (ours[name].filled(-1) == theirs[name].filled(-1)).all()
