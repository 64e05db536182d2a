"""The form of a workflow: what Airflow's page shows, and what of a conf is refused at once."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import Field, create_model

from muster.config import SizeMib
from muster.frozen import Frozen
from muster.jobs.planning.form import FormField, make_form
from muster.jobs.planning.params import OneOrMore, RunParams
from muster.jobs.planning.workflow import WORKFLOWS, NoInterval, Workflow, load_workflow
from tests.batches import add_steps_to_path


@pytest.fixture(params=[*WORKFLOWS, "census"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, FormField]:
    add_steps_to_path(monkeypatch)
    return make_form(load_workflow(request.param))


@pytest.fixture
def census(monkeypatch: pytest.MonkeyPatch) -> dict[str, FormField]:
    add_steps_to_path(monkeypatch)
    return make_form(load_workflow("census"))


def test_every_default_is_one_that_its_own_field_takes(form: dict[str, FormField]) -> None:
    """Airflow refuses a DAG with a timetable whose defaults are none."""
    for field in form.values():
        jsonschema.validate(field.default, field.schema)


def test_the_file_of_a_campaign_is_called_so() -> None:
    mocks = make_form(load_workflow("mock_campaign"))["config"].schema
    assert mocks["title"] == "Campaign file"
    assert "Definition" in mocks["description"]
    assert make_form(load_workflow("resampling"))["config"].schema["title"] == "Params file"


def test_every_field_is_named_and_described(form: dict[str, FormField]) -> None:
    for name, field in form.items():
        assert field.schema["title"], name
        assert field.schema["description"].endswith("."), name


def test_a_schema_is_flat(form: dict[str, FormField]) -> None:
    for name, field in form.items():
        assert not {"$ref", "anyOf", "properties", "additionalProperties"} & {*field.schema}, name
        assert set(field.schema.get("items", {})) <= {"type", "enum"}, name


def test_the_interval_is_not_asked_for_by_its_ends(form: dict[str, FormField]) -> None:
    assert not [name for name in form if name.startswith("interval_")]


@pytest.mark.parametrize(
    ("name", "asked"),
    [("trait_inference", {"year"}), ("resampling", {"year", "month"}), ("census", set())],
)
def test_year_and_month_are_asked_for_where_a_run_stands_for_them(
    name: str, asked: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_steps_to_path(monkeypatch)
    assert {"year", "month"} & {*make_form(load_workflow(name))} == asked


@pytest.mark.parametrize("name", list(WORKFLOWS))
def test_what_a_params_file_may_say_need_not_be_said(name: str) -> None:
    workflow = load_workflow(name)
    form = make_form(workflow)
    for key in ("config", *workflow.params_model.FILE_KEYS):
        assert form[key].default is None, key
        assert form[key].schema["type"][0] == "null", key


def test_a_star_is_where_nothing_else_can_say_it(census: dict[str, FormField]) -> None:
    """Airflow gives one to what may not be null."""
    starred = {n for n, field in census.items() if "null" not in field.schema["type"]}
    assert starred == {"texts", "folder"}
    assert {n: census[n].default for n in starred} == {"texts": [], "folder": ""}
    assert "config" not in census


@pytest.mark.parametrize(
    ("key", "schema"),
    [
        ("texts", {"type": ["array", "string"], "items": {"type": "string"}}),
        ("folder", {"type": "string"}),
        ("least_words", {"type": ["null", "integer"], "minimum": 0, "title": "Least words"}),
        ("longest", {"type": ["null", "string"], "title": "Longest"}),
    ],
)
def test_fields_say_what_a_person_may_write(
    census: dict[str, FormField], key: str, schema: dict[str, Any]
) -> None:
    assert census[key].schema.items() >= schema.items()


def test_defaults_are_as_a_person_writes_them(census: dict[str, FormField]) -> None:
    assert {n: census[n].default for n in ("least_words", "longest", "quorum")} == {
        "least_words": 1, "longest": "1MiB", "quorum": 1.0,
    }  # fmt: skip
    pattern = {"type": "string", "pattern": census["longest"].schema["pattern"]}
    for good in ("512MiB", "1.5 GiB", " 2TiB "):
        jsonschema.validate(good, pattern)
    for bad in ("512", "2GB", "MiB", "1 MiB each"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, pattern)


def test_choices_are_offered() -> None:
    tasks = make_form(load_workflow("trait_inference"))["tasks"]
    assert tasks.schema["examples"] == tasks.default == ["predict", "cov", "aoa", "build"]
    assert tasks.schema["items"] == {"type": "string", "enum": tasks.default}
    for wrong in ([], ["predict", "predict"], ["all"], "predict and cov"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, tasks.schema)


CONFS = [
    ("trait_inference", {"traits": ["SLA"], "predictors": ["/p.tif"], "models": "/m",
                         "output": "/o", "trait_set": "default", "tasks": ["aoa"],
                         "overwrite": True, "local_point_density": True, "trait_table": "/t.csv",
                         "engines": {"aoa": "tree"}, "resources": {"traits.aoa": {"cpus": 2}},
                         "year": 2020, "quorum": 0.5}),
    ("trait_inference", {"traits": [], "predictors": [], "engines": {}, "resources": {},
                         "year": None, "models": None}),
    ("resampling", {"config": "/r.yaml", "memory": "1.5 GiB", "window_px": 64, "overwrite": False,
                    "month": 2, "year": 2020, "merge": {"table": "all"}, "target": {"like": "/g"},
                    "datasets": [{"name": "a"}], "output": "/o", "quorum": 1}),
    ("resampling", {"target": {}, "datasets": [], "merge": None, "memory": None}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "conf"), CONFS)
def test_a_conf_that_was_taken_by_the_forms_of_before_is_taken(
    name: str, conf: dict[str, Any]
) -> None:
    form = make_form(load_workflow(name))
    for key, value in conf.items():
        jsonschema.validate(value, form[key].schema)


class Colour(StrEnum):
    RED = "red"


class Disc(Frozen):
    kind: Literal["disc"] = "disc"


class Ring(Frozen):
    kind: Literal["ring"] = "ring"


KINDS_OF_FIELDS: list[tuple[Any, Any, list[Any]]] = [
    (Literal["a", "b"], "a", ["a", "b"]),
    (Literal["a", "b"] | None, None, ["a"]),
    (Literal["a", "b"] | int, "a", ["b", 3]),
    (Literal["a", 1], "a", [1]),
    (Colour, Colour.RED, ["red"]),
    (Any, None, [1, "x", [1.5]]),
    (float, 1, [1, 1.5]),
    (Annotated[int, Field(ge=0)] | Annotated[int, Field(le=-5)], 0, [3, -7]),
    (SizeMib, 512, ["8GiB"]),
    (tuple[float, float], (0.0, 1.0), [[0.5, 2]]),
    (tuple[tuple[int, ...], ...], ((1,),), [[[1, 2]]]),
    (tuple[Any, ...], (), [[1, "a"]]),
    (tuple[int | str, ...], (), [[1, "a"]]),
    (tuple[int | None, ...], (), [[None, 1]]),
    (Annotated[tuple[Literal["x", "y"], ...], OneOrMore], ("x",), ["x", ["y"]]),
    (dict[str, int], {}, [{"a": 1}]),
    (Annotated[Disc | Ring, Field(discriminator="kind")], Disc(), [{"kind": "ring"}]),
]


def make_workflow(params: type[RunParams], monkeypatch: pytest.MonkeyPatch) -> Workflow:
    monkeypatch.setattr(f"{__name__}.Made", params, raising=False)
    return Workflow(
        name="made",
        inspect="made.inspect",
        stages=(("made.make",),),
        params=f"{__name__}:Made",
        interval=NoInterval("of no time"),
    )


@pytest.mark.parametrize("in_file", [False, True], ids=["alone", "in a file"])
@pytest.mark.parametrize(("kind", "default", "values"), KINDS_OF_FIELDS)
def test_what_a_type_takes_its_field_takes(
    kind: Any, default: Any, values: list[Any], *, in_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Params(RunParams):
        FILE_KEYS = frozenset({"x"} if in_file else ())

    made = create_model("Made", __base__=Params, x=(kind, default))
    made.__doc__ = "Parameters.\n\nAttributes\n----------\nx : any\n    One."
    field = make_form(make_workflow(made, monkeypatch))["x"]
    for value in (field.default, None, *values):
        jsonschema.validate(value, field.schema)
    for value in values:
        made.model_validate({"x": value})


@pytest.mark.parametrize("kind", [int, Literal["a", "b"], bool])
def test_what_must_be_said_and_has_no_empty_value_is_null_until_it_is(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow refuses a default that its own field refuses; the run refuses what was not said."""
    made = create_model("Made", __base__=RunParams, x=(kind, ...))
    made.__doc__ = "Parameters.\n\nAttributes\n----------\nx : any\n    One."
    field = make_form(make_workflow(made, monkeypatch))["x"]
    assert field.default is None
    jsonschema.validate(None, field.schema)
