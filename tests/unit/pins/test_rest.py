"""What is said to Airflow over REST: by the docs, and by ``make run`` and the tests."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jsonschema
import pytest

from muster.errors import MusterError
from muster.jobs.planning.workflow import load_workflow
from muster.laptop.request import example_request
from tests.airflow_client import AirflowClient
from tests.unit.pins.golden_files import check_golden, check_literal, read_golden, render_json
from tests.unit.pins.parsed_dags import parse_dags
from tests.unit.pins.recording_airflow import recording_airflow
from tests.unit.pins.sources import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

USER = "is in users' scripts, which the docs have told to send it"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
OF_THE_RUN = {"year", "month", "quorum"}
"""Params that say something of the run itself, and are no part of the workflow's own."""


def documented_calls() -> list[dict[str, Any]]:
    """List all that the docs call curl with."""
    calls = []
    for page in PAGES:
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL):
            for line in re.split(r"\n(?=curl )", block.replace("\\\n", " ")):
                if line.startswith("curl "):
                    calls.append({"page": page.name, **read_curl(line)})
    return calls


def read_curl(line: str) -> dict[str, Any]:
    words = shlex.split(line, comments=True)[1:]
    said: dict[str, Any] = {"headers": [], "body": None}
    while words:
        word = words.pop(0)
        if word == "-X":
            said["method"] = words.pop(0)
        elif word == "-H":
            said["headers"].append(words.pop(0))
        elif word == "-d":
            said["body"] = json.loads(words.pop(0))
        elif word.startswith("http"):
            said["url"] = word
        else:
            assert word == "-s", f"{word} of curl is not known to this test"
    return said


def test_the_docs_say_these_calls() -> None:
    check_golden("docs-rest.json", render_json(documented_calls()), USER)


def test_the_docs_name_these_routes() -> None:
    """Some of them in prose alone."""
    named = {
        route
        for page in PAGES
        for route in re.findall(r"/(?:api/v2|auth)/[\w/]+", page.read_text())
    }
    kept = [
        "/api/v2/backfills",
        "/api/v2/dags/resampling/dagRuns",
        "/api/v2/dags/trait_inference/dagRuns",
        "/auth/token",
    ]
    check_literal("routes in the docs", sorted(named), kept, USER)


def pinned_runs() -> list[tuple[str, dict[str, Any]]]:
    """List the DAG and the conf of each run, or backfill, that the docs start."""
    runs = []
    for call in json.loads(read_golden("docs-rest.json")):
        if "conf" in (call["body"] or {}):
            runs.append((urlsplit(call["url"]).path.split("/")[4], call["body"]["conf"]))
        elif "dag_run_conf" in (call["body"] or {}):
            runs.append((call["body"]["dag_id"], call["body"]["dag_run_conf"]))
    return runs


def test_the_docs_start_runs_of_these_dags() -> None:
    found = [dag_id for dag_id, _ in pinned_runs()]
    check_literal("runs in the docs", found, ["trait_inference", "resampling", "resampling"], USER)


def check_conf(dag_id: str, conf: Mapping[str, Any]) -> None:
    params = parse_dags()[dag_id]["params"]
    for name, value in conf.items():
        check_literal(f"param {name} of {dag_id}", name in params, True, USER)
        jsonschema.validate(value, params[name]["schema"])


@pytest.mark.parametrize(("dag_id", "conf"), pinned_runs())
def test_a_documented_conf_is_one_that_the_dag_takes(dag_id: str, conf: dict[str, Any]) -> None:
    check_conf(dag_id, conf)


@pytest.mark.parametrize(("dag_id", "conf"), pinned_runs())
def test_a_documented_conf_is_one_that_the_workflow_takes(
    dag_id: str, conf: dict[str, Any], tmp_path: Path
) -> None:
    """With the defaults of the form, as Airflow adds them; and with the file of the docs."""
    params = {name: param["default"] for name, param in parse_dags()[dag_id]["params"].items()}
    own = {**params, **conf}
    own = {n: value for n, value in own.items() if n not in OF_THE_RUN and value is not None}
    if "config" in own:
        page = (REPOSITORY / "docs" / "resampling.md").read_text()
        file = tmp_path / "resampling.yaml"
        file.write_text(page.split("```yaml\n")[1].split("```")[0])
        own["config"] = str(file)
    try:
        typed = load_workflow(dag_id).parse_params(own)
    except MusterError as error:
        pytest.fail(f"the docs' conf is refused: {error}. It {USER}: keep it", pytrace=False)
    assert typed.relative_locations() == []
    if "memory" in conf:
        check_literal("memory", typed.model_dump()["memory"], 1024, USER)


AT = datetime(2020, 1, 1, tzinfo=UTC)
TASK = ("trait.aoa", 3)
CALLS: dict[str, list[Callable[[AirflowClient], Any]]] = {
    "health": [lambda api: api.health()],
    "has_dag": [lambda api: api.has_dag("trait_inference")],
    "import_errors": [lambda api: api.import_errors()],
    "unpause": [lambda api: api.unpause("trait_inference")],
    "trigger": [
        lambda api: api.trigger("trait_inference"),
        lambda api: api.trigger("resampling", {"year": 2020}, "my run", AT),
    ],
    "run": [lambda api: api.run("resampling", "backfill__2020-01-01T00:00:00+00:00")],
    "runs": [lambda api: api.runs("resampling")],
    "wait_for_dag": [lambda api: api.wait_for_dag("resampling")],
    "wait_for_run": [lambda api: api.wait_for_run("resampling", "r")],
    "task_instances": [lambda api: api.task_instances("resampling", "r")],
    "task_log": [
        lambda api: api.task_log("resampling", "r", TASK),
        lambda api: api.task_log("resampling", "r", ("plan", -1), 1),
    ],
    "clear": [
        lambda api: api.clear("resampling", "r", ["plan"]),
        lambda api: api.clear("resampling", "r", [TASK], include_downstream=True, only_failed=True),
    ],
    "set_task_state": [
        lambda api: api.set_task_state("resampling", "r", TASK, "failed"),
        lambda api: api.set_task_state("resampling", "r", ("plan", -1), "success"),
    ],
    "set_run_state": [lambda api: api.set_run_state("resampling", "r", "queued")],
    "delete_run": [lambda api: api.delete_run("resampling", "r")],
    "backfill": [
        lambda api: api.backfill("resampling", (AT, AT)),
        lambda api: api.backfill("resampling", (AT, AT), {"a": 1}, 4, "failed"),
    ],
    "backfill_ended": [lambda api: api.backfill_ended(7)],
    "set_pools": [lambda api: api.set_pools({"local": {"slots": 2, "include_deferred": True}})],
    "call": [lambda api: api.call("GET", "version", query={"a": "b c"})],
}


def test_every_call_to_airflow_is_pinned() -> None:
    public = {n for n, _ in inspect.getmembers(AirflowClient, inspect.isfunction) if n[0] != "_"}
    check_literal("methods of AirflowClient", sorted(public), sorted(CALLS), "talks to Airflow")


def test_what_is_sent_to_airflow_is_what_it_takes() -> None:
    said = []
    with recording_airflow() as (address, asked):
        for name, calls in CALLS.items():
            for number, call in enumerate(calls, start=1):
                asked.clear()
                call(AirflowClient(address, "admin", "secret"))
                login = asked.pop(0) if name != "health" else ""
                said.append(f"{name} {number}")
                said += [f"  {request}" for request in asked]
    said += ["login", f"  {login}", ""]
    check_golden("airflow-api.txt", "\n".join(said), "is Airflow's own contract, API v2")


def test_make_run_starts_a_run_that_the_dag_takes() -> None:
    home: Any = SimpleNamespace(folder=Path("/home/ada/.muster"))
    conf = example_request(home).params()
    there = "/home/ada/.muster/example"
    check_literal(
        "conf of make run",
        conf,
        {
            "traits": ["leaf_area_mm2", "wood_density_g_cm3", "plant_height_m"],
            "predictors": [f"{there}/predictors.tif"],
            "models": f"{there}/models",
            "output": f"{there}/products",
        },
        USER,
    )
    check_conf("trait_inference", conf)
