"""Alerts of a live Airflow: a failed run by its DAG's callback, one that stands still by a DAG."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from muster.laptop.airflow_api import wait_until
from muster.laptop.services import Wishes
from muster.store import runs
from muster.store.database import Database
from tests.integration.live_airflow import start_live_airflow
from tests.unit.jobs.test_webhook import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.live_airflow import LiveAirflow

pytestmark = [pytest.mark.airflow, pytest.mark.thorough, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[3]
SITE = """
[pools]
local = { backend = "local", slots = 1 }
[placement]
"resampling.inspect" = { pool = "local" }
"resampling.resample" = { pool = "local" }
"resampling.merge" = { pool = "local" }
[notify.ops]
kind = "webhook"
url_variable = "MUSTER_TEST_HOOK"
no_progress_minutes = 60
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver.running() as running:
        yield running


@pytest.fixture(scope="module")
def live(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAirflow]:
    folder = tmp_path_factory.mktemp("alerts")
    (folder / "dags").mkdir()
    for name in ("alerts.py", "resampling.py"):
        shutil.copy(REPOSITORY / "dags" / name, folder / "dags")
    (folder / "site.toml").write_text(SITE)
    environment = {
        "MUSTER_SITE": str(folder / "site.toml"),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY)]),
        "MUSTER_TEST_HOOK": f"{receiver.url}/hook",
    }
    with start_live_airflow(folder / "home", Wishes(dags_folder=folder / "dags"), environment) as a:
        for dag_id in ("muster_alerts", "resampling"):
            a.api.wait_for_dag(dag_id)
        yield a


def test_a_run_that_fails_is_told_by_its_dag_and_never_again(
    live: LiveAirflow, receiver: Receiver
) -> None:
    run_id = live.api.trigger("resampling", {"config": "/nowhere/datasets.yaml"})
    assert live.api.wait_for_run("resampling", run_id, 240).state == "failed"
    assert wait_until(lambda: bool(receiver.got), 120, 0.2), live.tails()
    live.api.wait_for_run("muster_alerts", live.api.trigger("muster_alerts"), 120)
    failures = [told for _, _, told in receiver.got if told["kind"] == "failure"]
    assert [told["run"] for told in failures] == [f"resampling.{run_id}"]
    assert failures[0]["notifier"] == "ops"


def test_a_run_that_stands_still_is_told_by_the_dag(live: LiveAirflow, receiver: Receiver) -> None:
    db = Database(live.installation.store_url)
    runs.open_run(db, "resampling.still", workflow="resampling", params={}, work_uri="/nowhere")
    with db.transaction() as cursor:
        cursor.execute(
            "UPDATE run SET created_at = now() - interval '2 hours' WHERE id = 'resampling.still'"
        )
    db.close()
    run = live.api.wait_for_run("muster_alerts", live.api.trigger("muster_alerts"), 120)
    assert run.state == "success", live.tails()
    idle = [told for _, _, told in receiver.got if told["kind"] == "no_progress"]
    assert [told["run"] for told in idle] == ["resampling.still"]
    assert "for 120 minutes" in idle[0]["text"]
