"""The daily maintenance in a live Airflow: it waits for its hour, and does what it says."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from muster.store import runs
from muster.store.records import RunState

if TYPE_CHECKING:
    from tests.integration.airflow.conftest import Muster

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(400)]

DAG_ID = "muster_maintenance"


def test_it_cleans_when_it_is_run_and_has_not_started_with_airflow(muster: Muster) -> None:
    muster.api.wait_for_dag(DAG_ID)
    assert muster.api.call("GET", f"dags/{DAG_ID}")["is_paused"] is False
    assert muster.api.runs(DAG_ID) == []
    work = muster.live.home / "work"
    for name, days in (("old", 31), ("abandoned", 31)):
        folder = work / "runs" / name
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text("{}")
        runs.open_run(muster.db, name, workflow="test", params={}, work_uri=str(folder))
        with muster.db.transaction() as cursor:
            cursor.execute(
                "UPDATE run SET created_at = now() - %s WHERE id = %s",
                (timedelta(days=days), name),
            )
    runs.end_run(muster.db, "old", RunState.SUCCEEDED, "over")
    with muster.db.transaction() as cursor:
        cursor.execute("UPDATE run SET ended_at = created_at WHERE id = 'old'")

    run_id = muster.api.trigger(DAG_ID)
    ended = muster.api.wait_for_run(DAG_ID, run_id, 240)
    logs = {
        task: muster.api.task_log(DAG_ID, run_id, (task, -1)) for task in ("reconcile", "clean")
    }
    assert ended.state == "success", logs
    assert "abandoned: ended, nobody went on with it" in logs["reconcile"]
    assert runs.read_run(muster.db, "abandoned").state == RunState.CANCELLED
    assert "runs/old: its run ended 31 days ago" in logs["clean"]
    assert not (work / "runs" / "old").exists()
    assert (work / "runs" / "abandoned" / "plan.json").exists(), "it has only now ended"
