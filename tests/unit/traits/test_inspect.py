from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.model.plan import Decision, Plan, PlannedElement
from muster.model.step import StepContext, call_step, load_step
from muster.traits.bundle.bundle import read_bundle
from muster.traits.plan.fingerprint import METHODS, fingerprint_band
from muster.traits.plan.inspect import inspect_traits
from muster.traits.plan.predictor_files import inspect_predictors
from tests.unit.traits.conftest import make_values, write_raster

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.traits.conftest import Stack

STEPS = ("predict", "cov", "aoa", "build")


class Run:
    """Plans of one small region, and the running of what they plan."""

    def __init__(self, folder: Path, predictors: str) -> None:
        self.folder = folder
        self.params: dict[str, Any] = {
            "traits": ["X50"],
            "predictors": [predictors],
            "models": str(folder / "models"),
            "output": str(folder / "maps"),
        }
        self.facts: dict[str, Any] = {}

    def plan(self, gpus: dict[str, int] | None = None, **changes: Any) -> Plan:
        path = self.folder / "plan.json"
        self.facts = inspect_traits(
            params={**self.params, **changes},
            bands=str(self.folder / "bands"),
            plan=path,
            gpus=gpus,
            context=StepContext(scratch=self.folder),
        )
        return Plan.model_validate_json(path.read_text())

    def decisions(self, **changes: Any) -> str:
        """Render the decisions of X50, in the order of the steps."""
        return decisions(self.plan(**changes))

    def execute(self, plan: Plan, leave_out: tuple[str, ...] = ()) -> None:
        for element in plan.elements:
            if element.decision is Decision.RUN and element.step not in leave_out:
                outputs = {name: Path(uri) for name, uri in element.outputs.items()}
                for path in outputs.values():
                    path.parent.mkdir(parents=True, exist_ok=True)
                context = StepContext(scratch=self.folder)
                call_step(load_step(element.step), element.inputs, outputs, context)


def decisions(plan: Plan, trait: str = "X50") -> str:
    found = {e.step: e.decision.value for e in plan.elements if e.group == trait}
    return " ".join(found[f"traits.{step}"] for step in STEPS)


def element(plan: Plan, step: str) -> PlannedElement:
    return next(e for e in plan.elements if e.step == step)


@pytest.fixture
def run(tmp_path: Path, stack: Stack, make_bundle: Callable[..., str]) -> Run:
    make_bundle(folds=3, name="models/X50")
    return Run(tmp_path, stack.uri)


def test_first_run_does_everything_and_the_second_nothing(run: Run) -> None:
    plan = run.plan()
    assert decisions(plan) == "run run run run"
    assert plan.workflow == "trait_inference"
    assert [(e.name, e.group) for e in plan.elements] == [("X50", "X50")] * 4
    assert plan.products == {"X50": str(run.folder / "maps" / "X50.tif")}
    assert run.facts["pixels"] == 300 * 190
    assert run.facts["traits"] == 1
    assert run.facts["predictor_bands"] == 4
    assert run.facts["decisions"] == {f"traits.{step}": {"run": 1} for step in STEPS}
    bands = element(plan, "traits.build").inputs["bands"]
    for band, step in {"prediction": "predict", "cov": "cov", "aoa": "aoa"}.items():
        planned = element(plan, f"traits.{step}")
        assert planned.outputs == {band: bands[band]}
        name = f"bands/default/static/X50/{step}-{planned.inputs['fingerprint'][:16]}.tif"
        assert bands[band] == str(run.folder / name)

    run.execute(plan)
    assert run.decisions() == "reused reused reused reused"
    assert "up to date" in element(run.plan(), "traits.build").reason
    assert run.decisions(overwrite=True) == "run run run run"


def test_bands_are_reused_without_their_product_and_the_product_without_its_bands(
    run: Run,
) -> None:
    run.execute(run.plan())
    (run.folder / "maps" / "X50.png").unlink()
    plan = run.plan()
    assert decisions(plan) == "reused reused reused run"
    run.execute(plan)
    for path in (run.folder / "bands").rglob("*.tif"):
        path.unlink()
    assert run.decisions() == "reused reused reused reused"
    assert run.decisions(tasks=["build"]) == "not_asked not_asked not_asked reused"
    # One band that is new leaves the others as the product holds them.
    assert run.decisions(local_point_density=True) == "reused reused run run"


def test_failed_aoa_is_made_up_for(run: Run) -> None:
    run.execute(run.plan(), leave_out=("traits.aoa",))
    assert run.decisions() == "reused reused run run"


def test_changed_parameter_or_model_computes_what_depends_on_it(
    run: Run, make_bundle: Callable[..., str]
) -> None:
    run.execute(run.plan())
    assert run.decisions(local_point_density=True) == "reused reused run run"

    manifest = run.folder / "models" / "X50" / "bundle.json"
    data = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**data, "importance": [1.0, 2.0, 1.0, 1.0]}))
    assert run.decisions() == "reused reused run run"
    manifest.write_text(json.dumps({**data, "unit": "m"}))
    assert run.decisions() == "run run run run"
    manifest.write_text(json.dumps({**data, "cv": {"r2": 0.9}}))
    assert run.decisions() == "reused reused reused reused"


def test_changed_predictor_computes_everything(run: Run, stack: Stack) -> None:
    run.execute(run.plan())
    path = Path(stack.uri)
    path.write_bytes(path.read_bytes())
    assert run.decisions() == "run run run run"


def test_file_behind_a_vrt_counts_as_the_predictors(tmp_path: Path, stack: Stack) -> None:
    from rasterio.shutil import copy

    copy(stack.uri, tmp_path / "all.vrt", driver="VRT")
    before = inspect_predictors([str(tmp_path / "all.vrt")])
    assert [Path(v["uri"]).name for v in before.versions] == ["all.vrt", "stack.tif"]
    path = Path(stack.uri)
    path.write_bytes(path.read_bytes())
    after = inspect_predictors([str(tmp_path / "all.vrt")])
    assert after.versions[0] == before.versions[0]
    assert after.versions[1] != before.versions[1]


def test_tasks_that_were_not_asked_for(run: Run) -> None:
    plan = run.plan(tasks=["aoa"])
    assert decisions(plan) == "not_asked not_asked run not_asked"
    assert (
        "no prediction by this model is there; aoa is kept" in element(plan, "traits.build").reason
    )
    assert plan.products == {}
    run.execute(plan)
    plan = run.plan(tasks=["predict"])
    assert decisions(plan) == "run not_asked not_asked run"
    assert plan.products == {"X50": str(run.folder / "maps" / "X50.tif")}
    run.execute(plan)
    assert run.decisions(tasks=["predict", "build"]) == "reused not_asked not_asked reused"
    assert run.decisions(tasks=["predict"]) == "reused not_asked not_asked not_asked"
    plan = run.plan(tasks=["cov"])
    assert decisions(plan) == "not_asked run not_asked run"
    run.execute(plan)
    assert run.decisions(tasks=["build"]) == "not_asked not_asked not_asked reused"


def test_build_without_a_prediction_says_what_to_do(run: Run) -> None:
    plan = run.plan(tasks=["cov", "build"])
    assert decisions(plan) == "not_asked run not_asked missing_input"
    assert "run the task predict" in element(plan, "traits.build").reason


def test_trait_without_a_model_leaves_the_other_alone(run: Run) -> None:
    plan = run.plan(traits=["X99", "X50"])
    assert decisions(plan, "X99") == " ".join(["missing_input"] * 4)
    assert decisions(plan) == "run run run run"
    reason = element(plan, "traits.predict").reason
    assert str(run.folder / "models" / "X99") in reason
    assert "muster traits train" in reason
    assert list(plan.products) == ["X50"]
    assert run.facts["decisions"]["traits.aoa"] == {"missing_input": 1, "run": 1}
    partly = run.plan(traits=["X99"], tasks=["aoa"])
    assert decisions(partly, "X99") == "not_asked not_asked missing_input not_asked"


def test_model_without_its_predictor_band_names_it(
    run: Run, make_bundle: Callable[..., str]
) -> None:
    path = write_raster(
        run.folder / "two.tif", make_values(2, 10, 8), descriptions=("rain", "sand")
    )
    plan = run.plan(predictors=path)
    assert decisions(plan) == " ".join(["invalid_input"] * 4)
    assert "predictors lack temperature, height; they hold rain, sand" in plan.elements[0].reason


def test_broken_bundle_and_bundle_of_another_trait_are_invalid(
    run: Run, make_bundle: Callable[..., str]
) -> None:
    make_bundle(name="models/X55")
    plan = run.plan(traits=["X55"])
    assert "is of trait 'X50'" in plan.elements[0].reason
    with (run.folder / "models" / "X50" / "fold_1.txt").open("a") as file:
        file.write("#")
    plan = run.plan()
    assert decisions(plan) == " ".join(["invalid_input"] * 4)
    assert "fold_1.txt" in plan.elements[3].reason


def test_bundle_without_folds_gives_a_product_without_cov(
    run: Run, make_bundle: Callable[..., str]
) -> None:
    make_bundle(folds=0, name="plain/X50")
    plan = run.plan(models=str(run.folder / "plain"), tasks=["predict", "cov", "build"])
    assert decisions(plan) == "run missing_input not_asked run"
    assert "0 fold models" in element(plan, "traits.cov").reason
    run.execute(plan)
    again = run.plan(models=str(run.folder / "plain"), tasks=["predict", "cov", "build"])
    assert decisions(again) == "reused missing_input not_asked reused"


def test_bundle_without_importance_gives_a_product_without_aoa(run: Run) -> None:
    manifest = run.folder / "models" / "X50" / "bundle.json"
    data = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**data, "importance": [0.0, -1.0, 0.0, 0.0]}))
    plan = run.plan()
    assert decisions(plan) == "run run invalid_input run"
    assert "importance above zero" in element(plan, "traits.aoa").reason


def test_years_have_products_and_bands_of_their_own(run: Run) -> None:
    (run.folder / "2023.tif").write_bytes(Path(run.params["predictors"][0]).read_bytes())
    plan = run.plan(
        predictors=str(run.folder / "{year}.tif"),
        interval_start="2023-01-01T00:00:00Z",
        interval_end="2024-01-01T00:00:00Z",
    )
    assert plan.products["X50"] == str(run.folder / "maps" / "2023" / "X50.tif")
    assert element(plan, "traits.predict").inputs["predictors"] == [str(run.folder / "2023.tif")]
    assert "/bands/default/2023/X50/" in element(plan, "traits.cov").outputs["cov"]
    assert element(plan, "traits.build").inputs["tags"]["INTERVAL"].startswith("2023-01-01T")
    with pytest.raises(MissingInput, match=r"2025\.tif"):
        run.plan(
            predictors=str(run.folder / "{year}.tif"),
            interval_start="2025-01-01T00:00:00Z",
            interval_end="2026-01-01T00:00:00Z",
        )
    with pytest.raises(ConfigError, match=r"\{year\}.*interval"):
        run.plan(output=str(run.folder / "{year}"))


def test_folder_of_predictors(tmp_path: Path, run: Run, stack: Stack) -> None:
    folder = tmp_path / "rasters"
    folder.mkdir()
    for name, layer in zip(stack.names, stack.values, strict=True):
        write_raster(folder / f"{name}.tif", layer[np.newaxis])
    (folder / "readme.txt").write_text("not a raster")
    plan = run.plan(predictors=f"{folder}/")
    assert decisions(plan) == "run run run run"
    assert len(element(plan, "traits.predict").inputs["predictors"]) == 4
    with pytest.raises(MissingInput, match="no predictors in the folder"):
        run.plan(predictors=f"{tmp_path}/models/")


def test_predictors_that_cannot_be_used_fail_the_run(tmp_path: Path, run: Run) -> None:
    stack_uri = run.params["predictors"][0]
    values = make_values(1, 300, 190)
    with pytest.raises(InvalidInput, match="coordinate reference system"):
        run.plan(predictors=write_raster(tmp_path / "a.tif", values, crs=None))
    other = write_raster(tmp_path / "b.tif", values, crs="EPSG:3857")
    with pytest.raises(InvalidInput, match=r"different grids \(CRS\)"):
        run.plan(predictors=[stack_uri, other])
    elsewhere = write_raster(tmp_path / "c.tif", make_values(1, 20, 10))
    with pytest.raises(InvalidInput, match=r"different grids \(size"):
        run.plan(predictors=[stack_uri, elsewhere])
    with pytest.raises(MissingInput, match=r"absent\.tif"):
        run.plan(predictors=str(tmp_path / "absent.tif"))
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(InvalidInput, match=r"text\.tif"):
        run.plan(predictors=str(tmp_path / "text.tif"))
    assert not (tmp_path / "plan.json").exists()


def test_output_that_cannot_be_written_is_found_at_planning(run: Run) -> None:
    (run.folder / "file").write_text("")
    with pytest.raises(InvalidInput, match="output is not a folder"):
        run.plan(output=str(run.folder / "file" / "maps"))
    assert not (run.folder / "maps").exists()


def test_output_on_a_read_only_file_system(run: Run) -> None:
    if not Path("/proc/sys").is_dir():
        pytest.skip("no file system here that even root cannot write")
    with pytest.raises(InvalidInput, match="output cannot be written"):
        run.plan(output="/proc/sys/maps")


def test_unknown_parameter_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"unknown key.*colour"):
        run.plan(colour="red")


def test_fingerprint_knows_what_each_band_depends_on(run: Run) -> None:
    bundle = read_bundle(str(run.folder / "models" / "X50"), run.folder)
    versions = [{"uri": "a", "bytes": 1, "version": "1"}]

    def changed(**changes: Any) -> str:
        other = dataclasses.replace(bundle, **changes)
        return " ".join(
            band
            for band in METHODS
            if fingerprint_band(band, other, versions, {}, "engine")
            != fingerprint_band(band, bundle, versions, {}, "engine")
        )

    def with_file(name: str) -> dict[str, Any]:
        return {"file_sha256": {**bundle.file_sha256, name: "0" * 64}}

    assert changed() == ""
    assert changed(**with_file("model.txt")) == "prediction"
    assert changed(**with_file("fold_2.txt")) == "cov"
    assert changed(**with_file("training.parquet")) == "aoa"
    assert changed(importance=(2.0, 1.0, 1.0, 1.0)) == "aoa"
    assert changed(predictors=bundle.predictors[::-1]) == "prediction cov aoa"
    assert changed(cv={}, description="x", seed=9, uri="elsewhere") == ""
    made = fingerprint_band("cov", bundle, versions, {}, "engine")
    for changes, arguments in {
        "predictors": ([{**versions[0], "version": "2"}], {}, "engine"),
        "parameters": (versions, {"a": 1}, "engine"),
        "engine": (versions, {}, "another"),
    }.items():
        other = fingerprint_band("cov", bundle, *arguments)
        assert other.sha256 != made.sha256
        assert other.changes_since(made.parts) == [changes]
