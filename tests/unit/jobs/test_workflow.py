"""What a workflow makes of a run's parameters, and the order of its batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from muster.errors import ConfigError, MissingInput
from muster.jobs.planning.freeze import Group
from muster.jobs.planning.workflow import load_workflow
from muster.resampling.config.params import ResamplingParams
from muster.traits.params import TASKS
from tests.batches import add_steps_to_path

if TYPE_CHECKING:
    from pathlib import Path

RESAMPLING = load_workflow("resampling")
TRAITS = load_workflow("trait_inference")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    data = {
        "target": {"crs": "EPSG:4326", "resolution": 0.1, "extent": [5, 45, 10, 50]},
        "datasets": [{"name": "wind", "path": "in/wind.tif", "method": "average"}],
        "output": "out",
        "memory": "1GiB",
        "overwrite": True,
    }
    path = tmp_path / "resampling.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def parse(**data: Any) -> ResamplingParams:
    params = RESAMPLING.parse_params(data)
    assert isinstance(params, ResamplingParams)
    return params


def test_a_file_says_what_the_params_leave_out(config: Path) -> None:
    """As the form sends them: everything, and most of it empty."""
    empty: dict[str, Any] = dict.fromkeys(("memory", "window_px", "overwrite", "merge"))
    params = parse(config=str(config), target={}, datasets=[], resources={}, output="", **empty)
    assert params.memory == 1024
    assert params.overwrite
    assert params.output == str(config.parent / "out")
    assert params.datasets[0].path == str(config.parent / "in" / "wind.tif")
    assert "config" not in params.model_dump()


def test_what_the_params_say_goes_before_the_file(config: Path) -> None:
    params = parse(config=str(config), memory="2GiB", output="/elsewhere", overwrite=False)
    assert (params.memory, params.output, params.overwrite) == (2048, "/elsewhere", False)


def test_what_was_checked_is_the_same_when_it_is_checked_again(config: Path) -> None:
    params = parse(config=str(config))
    assert RESAMPLING.parse_params(params.model_dump(mode="json")) == params


def test_a_file_hides_no_key_that_nobody_knows(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key.*got: memroy"):
        parse(config=str(config), memroy="2GiB")
    with config.open("a") as file:
        file.write("windows: 3\n")
    with pytest.raises(ConfigError, match=r"unknown key.*resampling\.yaml.*got: windows"):
        parse(config=str(config))


def test_a_file_that_is_not_there(config: Path) -> None:
    with pytest.raises(MissingInput, match=r"none\.yaml"):
        parse(config=str(config.with_name("none.yaml")))
    for config_path in ("resampling.yaml", "s3://here/resampling.yaml", 3):
        with pytest.raises(ConfigError, match="config is no absolute path"):
            parse(config=config_path)


def test_without_a_file_everything_is_said(config: Path) -> None:
    with pytest.raises(ConfigError, match="a key is missing"):
        parse(target={}, datasets=[], output="/out")


def test_a_workflow_without_such_a_file_knows_nothing_of_it(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_steps_to_path(monkeypatch)
    with pytest.raises(ConfigError, match=r"unknown key.*got: config"):
        load_workflow("census").parse_params({"config": str(config)})


TRAITS_FILE = """
traits: {names: [SLA, height]}
trait_sets: [gbif, splot]
predictors: rasters/
models: models/{trait_set}
output: /maps
engines: {aoa: tree}
"""


def parse_traits(file: Path, **said: Any) -> Any:
    return TRAITS.parse_params({"config": str(file), **said})


def test_a_run_of_traits_takes_from_its_file_what_nobody_says(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(TRAITS_FILE)
    params = parse_traits(file, traits=[], engines={}, local_point_density=None, overwrite=True)
    assert (params.traits, params.trait_set, params.tasks) == (("SLA", "height"), "gbif", TASKS)
    assert params.predictor_uris() == [f"{tmp_path}/rasters/"]
    assert params.bundle_uri("SLA") == f"{tmp_path}/models/gbif/SLA"
    assert (params.engines.aoa, params.overwrite) == ("tree", True)
    said = parse_traits(file, traits=["height"], trait_set="splot", models="/m", tasks=["aoa"])
    assert (said.traits, said.trait_set, said.models) == (("height",), "splot", "/m")
    assert said.tasks == ("aoa",)


def test_a_trait_that_the_file_does_not_have_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(TRAITS_FILE)
    with pytest.raises(ConfigError, match=r"unknown trait; .*got: N; expected: SLA, height"):
        parse_traits(file, traits=["N"])
    with pytest.raises(ConfigError, match=r"unknown trait set; .*got: own"):
        parse_traits(file, trait_set="own")
    with pytest.raises(ConfigError, match=r"unknown key"):
        parse_traits(file, trait_sets=["own"])


RUN = {
    "inputs": {"resampling.inspect": "i"},
    "ndvi": {"resampling.resample": "n"},
    "merge": {"resampling.merge": "m"},
    "wind": {"resampling.resample": "w"},
}
TRAIT = {
    "inputs": {"traits.inspect": "i"},
    "a": {f"traits.{s}": f"a-{s}" for s in ("predict", "aoa", "build")},
    "b": {f"traits.{s}": f"b-{s}" for s in ("predict", "aoa", "build")},
}


def test_what_gathers_comes_after_all_groups_and_needs_none() -> None:
    assert RESAMPLING.batches_before("merge", "resampling.merge", RUN) == (["n", "w"], [])
    assert RESAMPLING.batches_before("ndvi", "resampling.resample", RUN) == ([], [])


def test_a_later_stage_comes_after_the_earlier_of_its_own_group() -> None:
    assert TRAITS.batches_before("a", "traits.build", TRAIT) == (
        ["a-predict", "a-aoa"],
        ["a-predict"],
    )
    assert TRAITS.batches_before("a", "traits.aoa", TRAIT) == ([], [])


def test_a_group_that_is_not_to_run_is_told_from_the_others_too() -> None:
    ndvi = Group("ndvi", "run", {}, {"resampling.resample": "reused: there"})
    merge = Group("merge", "run", {}, {"resampling.merge": "missing_input: no wind"})
    assert RESAMPLING.split_groups([merge, ndvi]) == ([ndvi], [merge])


def test_steps_are_in_the_order_of_a_run() -> None:
    assert RESAMPLING.steps == ("resampling.inspect", "resampling.resample", "resampling.merge")
    assert TRAITS.steps[-1] == "traits.build"
    assert TRAITS.making == {"traits.build"}
    assert RESAMPLING.making == {"resampling.resample", "resampling.merge"}


def test_keys_that_no_file_has_are_told_from_those_that_it_has(config: Path) -> None:
    with config.open("a") as file:
        file.write("1: 3\n")
    with pytest.raises(
        ConfigError, match=r"unknown key.*got: 1; expected: datasets, memory, merge"
    ):
        parse(config=str(config))
    config.write_text(config.read_text().replace("1: 3", "window_overlap: 3"))
    with pytest.raises(ConfigError, match="window_overlap: "):
        parse(config=str(config))
