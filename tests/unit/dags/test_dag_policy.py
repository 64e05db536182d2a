"""Every DAG is held to one policy: documented, owned, retried, quick to parse, no I/O at parse."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
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
    if event == "open" and isinstance(arguments[0], str) and not (
        arguments[0].endswith(".py") or ".pyc" in arguments[0]
    ):
        opened.append(arguments[0])
    if event in ("socket.connect", "subprocess.Popen", "os.system"):
        connected.append(event)
sys.addaudithook(watch)
started = time.process_time()
found = runpy.run_path(sys.argv[1])
took = time.process_time() - started
dags = [d for d in found.values() if isinstance(d, airflow.sdk.DAG)]
print(json.dumps({
    "pod_operator": "airflow.providers.cncf.kubernetes.operators.pod" in sys.modules,
    "seconds": took, "opened": opened, "connected": connected,
    "dags": [{
        "id": d.dag_id, "most_runs": d.max_active_runs, "paused": d.is_paused_upon_creation,
        "start": d.start_date,
        "cron": getattr(d.timetable, "expression", getattr(d.timetable, "_expression", None)),
        "at_once": str(getattr(d.timetable, "run_immediately", None)),
        "tags": sorted(d.tags), "doc": d.doc_md or "", "catchup": d.catchup,
        "tasks": [{
            "id": t.task_id, "owner": t.owner, "retries": t.retries, "pool": t.pool,
            "doc": t.doc_md or t.doc or (t.python_callable.__doc__ if hasattr(t, "python_callable")
                                         else type(t).__doc__) or "",
            "rule": t.trigger_rule.value, "after": sorted(t.upstream_task_ids),
            "mapped": type(t).__name__.startswith("Mapped"),
        } for t in d.tasks],
        "leaves": [t.task_id for t in d.leaves],
        "params": {k: {"schema": v.schema, "description": v.description}
                   for k, v in ((k, d.params.get_param(k)) for k in d.params)},
    } for d in dags],
}, default=str))
"""


def parse(path: Path, home: Path, **environment: str) -> Any:
    """Parse a DAG file in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", PARSE, str(path)],
        cwd=home,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{REPOSITORY / 'plugins'}:{REPOSITORY}",
            "AIRFLOW_HOME": str(home),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=DAG_FILES, ids=lambda p: p.stem)
def parsed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return parse(request.param, tmp_path_factory.mktemp("airflow"))


def test_there_are_dags() -> None:
    assert {"trait_inference", "resampling", "maintenance"} <= {path.stem for path in DAG_FILES}


def test_it_parses_in_under_a_second(parsed: Any) -> None:
    assert parsed["seconds"] < 1.0


def test_it_loads_nothing_of_kubernetes_where_no_step_is_placed_there(parsed: Any) -> None:
    assert not parsed["pod_operator"]


@pytest.mark.thorough
def test_a_site_on_kubernetes_pays_for_the_provider_and_no_more(tmp_path: Path) -> None:
    """Its import alone takes 0.7 CPU seconds of a quiet machine."""
    site = REPOSITORY / "config" / "sites" / "gke.toml"
    found = parse(REPOSITORY / "dags" / "trait_inference.py", tmp_path, MUSTER_SITE=str(site))
    print(f"{found['seconds']:.2f} CPU seconds")
    assert found["pod_operator"]
    assert found["seconds"] < 2.0
    assert not found["connected"]


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


@pytest.mark.parametrize("parsed", [REPOSITORY / "dags" / "resampling.py"], indirect=True)
def test_resampling_goes_by_months_dataset_by_dataset_and_merges_whatever_became_of_them(
    parsed: Any,
) -> None:
    (dag,) = parsed["dags"]
    assert (dag["id"], dag["cron"]) == ("resampling", "0 0 1 * *")
    assert dag["start"].startswith("1980-01-01")
    tasks = {task["id"]: task for task in dag["tasks"]}
    assert {name: task["after"] for name, task in tasks.items()} == {
        "open": [],
        "inspect": ["open"],
        "plan": ["inspect"],
        "resample": ["plan"],
        "merge": ["resample"],
        "verdict": ["merge"],
    }
    assert [name for name, task in tasks.items() if task["mapped"]] == ["resample"]
    assert tasks["merge"]["rule"] == "all_done"
    assert tasks["resample"]["rule"] == "all_success"
    assert dag["params"]["month"]["schema"]["maximum"] == 12


@pytest.mark.parametrize("parsed", [REPOSITORY / "dags" / "maintenance.py"], indirect=True)
def test_maintenance_runs_by_itself_once_a_day_and_never_at_the_first_start(
    parsed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.timetables import trigger
    from airflow.timetables.base import DataInterval, TimeRestriction
    from pendulum import datetime

    (dag,) = parsed["dags"]
    assert dag["id"] == "muster_maintenance"
    assert [task["id"] for task in dag["tasks"]] == ["reconcile", "clean"]
    assert dag["leaves"] == ["clean"]
    assert (dag["most_runs"], dag["paused"], dag["start"]) == (1, False, None)
    assert dag["at_once"] == "0:00:00"

    # Airflow's own arithmetic, at an hour when it would start what it has just missed
    timetable = trigger.CronTriggerTimetable(
        dag["cron"], timezone="UTC", run_immediately=timedelta(0)
    )
    monkeypatch.setattr(trigger, "utcnow", lambda: datetime(2026, 5, 7, 3, 40))
    whenever = TimeRestriction(earliest=None, latest=None, catchup=dag["catchup"])
    first = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=whenever)
    assert first is not None
    assert first.run_after == datetime(2026, 5, 8, 3, 23)
    last = DataInterval.exact(datetime(2026, 5, 3, 3, 23))
    later = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=whenever)
    assert later is not None
    assert later.run_after == datetime(2026, 5, 7, 3, 23), "once, not once a day that was missed"
