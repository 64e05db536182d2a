"""Every DAG is held to one policy: documented, owned, retried, quick to parse, no I/O at parse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
DAG_FILES = sorted((REPOSITORY / "dags").glob("*.py"))

PARSE = """
import json, runpy, sys, time, warnings
warnings.simplefilter("ignore")
import airflow.sdk, airflow.timetables.interval
opened, connected = [], []
def watch(event, arguments):
    # A module is read as .py or .pyc, and its byte code is written as .pyc.NUMBER.
    if event == "open" and isinstance(arguments[0], str) and ".py" not in arguments[0][-24:]:
        opened.append(arguments[0])
    if event in ("socket.connect", "subprocess.Popen", "os.system"):
        connected.append(event)
sys.addaudithook(watch)
started = time.process_time()
found = runpy.run_path(sys.argv[1])
took = time.process_time() - started
dags = [d for d in found.values() if isinstance(d, airflow.sdk.DAG)]
print(json.dumps({
    "seconds": took, "opened": opened, "connected": connected,
    "dags": [{
        "id": d.dag_id, "tags": sorted(d.tags), "doc": d.doc_md or "", "catchup": d.catchup,
        "tasks": [{
            "id": t.task_id, "owner": t.owner, "retries": t.retries, "pool": t.pool,
            "doc": t.doc_md or t.doc or (t.python_callable.__doc__ if hasattr(t, "python_callable")
                                         else type(t).__doc__) or "",
            "rule": t.trigger_rule.value,
        } for t in d.tasks],
        "leaves": [t.task_id for t in d.leaves],
        "params": {k: {"schema": v.schema, "description": v.description}
                   for k, v in ((k, d.params.get_param(k)) for k in d.params)},
    } for d in dags],
}, default=str))
"""  # noqa: E501


@pytest.fixture(scope="module", params=DAG_FILES, ids=lambda p: p.stem)
def parsed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("airflow")
    ended = subprocess.run(
        [sys.executable, "-c", PARSE, str(request.param)],
        cwd=home,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(REPOSITORY / "plugins"),
            "AIRFLOW_HOME": str(home),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_there_are_dags() -> None:
    assert "trait_inference" in {path.stem for path in DAG_FILES}


def test_it_parses_in_under_a_second(parsed: Any) -> None:
    assert parsed["seconds"] < 1.0


def test_it_reads_the_site_file_and_nothing_else(parsed: Any) -> None:
    read = [p for p in parsed["opened"] if "/site-packages/" not in p and "/lib/python" not in p]
    assert {Path(p).suffix for p in read} <= {".toml"}, read
    assert not parsed["connected"]


def test_it_is_documented_tagged_and_owned(parsed: Any) -> None:
    for dag in parsed["dags"]:
        assert "muster" in dag["tags"]
        assert len(dag["doc"]) > 200
        assert dag["catchup"] is False
        assert all(task["owner"] == "muster" for task in dag["tasks"])
        assert all(task["doc"].strip() for task in dag["tasks"])
        assert all(p["description"] for p in dag["params"].values())


def test_every_task_survives_a_fault_of_airflow(parsed: Any) -> None:
    for dag in parsed["dags"]:
        assert all(task["retries"] >= 1 for task in dag["tasks"])


def test_the_verdict_is_the_only_leaf_and_runs_always(parsed: Any) -> None:
    for dag in parsed["dags"]:
        if any(task["id"] == "verdict" for task in dag["tasks"]):
            assert dag["leaves"] == ["verdict"]
            verdict = next(task for task in dag["tasks"] if task["id"] == "verdict")
            assert verdict["rule"] == "all_done"
