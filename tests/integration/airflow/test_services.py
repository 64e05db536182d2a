"""Airflow's services as Muster starts them, and the client of its REST API."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
import urllib.request
from pathlib import Path

import psutil
import psycopg2
import pytest

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.laptop.airflow_api import wait_until
from muster.laptop.processes import StartFailed, check_listeners
from muster.laptop.services import Wishes
from tests.airflow_client import AirflowClient
from tests.conftest import fresh_database
from tests.integration.live_airflow import start_live_airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


@pytest.fixture
def live(muster):
    return muster.live


@pytest.fixture
def dags(tmp_path):
    """Folder with one DAG file, for an Airflow of a test's own."""
    folder = tmp_path / "dags"
    folder.mkdir()
    shutil.copy(Path(__file__).parent / "dags" / "echo.py", folder)
    return folder


def find_by_title(live, text) -> set[int]:
    found = set()
    for process in live.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if text in " ".join(process.cmdline()):
                found.add(process.pid)
    return found


def test_run_is_triggered_and_its_log_read(live):
    run_id = live.api.trigger("echo", {"words": ["tree", "bad"]}, run_id="first")
    assert live.api.wait_for_run("echo", run_id).state == "failed"
    say = {
        task.label: task
        for task in live.api.task_instances("echo", "first")
        if task.task_id == "say"
    }
    assert {label: task.state for label, task in say.items()} == {
        "tree": "success",
        "bad": "failed",
    }
    assert "the word is tree" in live.api.task_log("echo", "first", ("say", say["tree"].map_index))
    assert "a bad word" in live.api.task_log("echo", "first", ("say", say["bad"].map_index))


def test_tasks_are_marked_and_cleared(live):
    run_id = live.api.trigger("echo", {"words": ["leaf", "bad"]})
    assert live.api.wait_for_run("echo", run_id).state == "failed"
    live.api.set_task_state("echo", run_id, ("say", 1), "success")
    cleared = live.api.clear("echo", run_id, [("say", 0)])
    assert cleared == [("say", 0)]
    assert live.api.wait_for_run("echo", run_id).state == "success"
    tries = {
        task.map_index: task.try_number
        for task in live.api.task_instances("echo", run_id)
        if task.task_id == "say"
    }
    assert tries == {0: 2, 1: 1}


def test_wrong_requests_are_told_apart(live):
    with pytest.raises(MissingInput, match="no_such_dag"):
        live.api.trigger("no_such_dag")
    with pytest.raises(InvalidInput, match="words"):
        live.api.trigger("echo", {"words": "not a list"})
    stranger = AirflowClient(live.api.address, "admin", "guess")
    with pytest.raises(InvalidInput, match="does not accept the login"):
        stranger.has_dag("echo")
    assert stranger.health()["metadatabase"]["status"] == "healthy"


def test_pools_of_the_site_are_there_once(live):
    before = live.api.call("GET", "pools/local")
    assert before["include_deferred"] is True
    wanted = {name: before[name] for name in ("slots", "description", "include_deferred")}
    try:
        live.api.set_pools({"local": {**wanted, "slots": 7}})
        assert live.api.call("GET", "pools/local")["slots"] == 7
    finally:
        live.api.set_pools({"local": wanted})


def test_nothing_listens_beyond_loopback(live):
    assert len(live.processes()) > 4
    assert check_listeners(live.processes()) == []
    ports = set()
    for process in live.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # tasks come and go
            ports |= {
                connection.laddr.port
                for connection in process.net_connections(kind="tcp")
                if connection.status == psutil.CONN_LISTEN
            }
    assert ports == {live.installation.port}


def test_listener_on_all_interfaces_is_found():
    with socket.socket() as wide, socket.socket() as narrow:
        wide.bind(("0.0.0.0", 0))
        wide.listen()
        narrow.bind(("127.0.0.1", 0))
        narrow.listen()
        problems = check_listeners([psutil.Process()])
        assert any(str(wide.getsockname()[1]) in problem for problem in problems)
        assert not any(str(narrow.getsockname()[1]) in problem for problem in problems)


def test_secrets_are_the_owners_alone(live):
    for name in ("passwords.json", "secrets.json"):
        assert (live.home / name).stat().st_mode & 0o077 == 0
    for log in live.home.joinpath("logs").glob("*.log"):
        assert live.installation.secrets.admin_password not in log.read_text()
        assert live.installation.secrets.jwt_secret not in log.read_text()


def test_second_start_leaves_what_runs(live):
    before = live.services.running()
    live.services.start()
    assert live.services.running() == before


def test_other_settings_are_refused_while_something_runs(live, monkeypatch):
    other = Wishes(live.services.wishes.dags_folder.parent, live.services.wishes.plugins_folder)
    monkeypatch.setattr(live.services, "wishes", other)
    with pytest.raises(ConfigError, match=r"DAGS_FOLDER.*make stop"):
        live.services.start()


def test_page_is_served(live):
    with urllib.request.urlopen(live.installation.page) as page:
        assert b"<html" in page.read()


@pytest.mark.thorough
def test_killed_scheduler_is_started_again_and_runs_go_on(live):
    run_id = live.api.trigger("echo", {"words": ["slow"], "nap_s": 8})

    def running():
        return any(
            task.task_id == "say" and task.state == "running"
            for task in live.api.task_instances("echo", run_id)
        )

    assert wait_until(running, 60)
    others = live.services.running()
    before = find_by_title(live, "LocalExecutor: <idle>")
    live.kill("scheduler")
    live.restart("scheduler")
    assert len(before) > 1
    assert not before & find_by_title(live, "LocalExecutor")
    now = live.services.running()
    assert now.pop("scheduler") != others.pop("scheduler")
    assert now == others
    assert live.api.wait_for_run("echo", run_id).state == "success"
    run_id = live.api.trigger("echo", {"words": ["after"]})
    assert live.api.wait_for_run("echo", run_id).state == "success"


@pytest.mark.thorough
def test_stop_ends_jobs_too_and_start_takes_up_the_run(live):
    run_id = live.api.trigger("echo", {"words": ["long"], "nap_s": 3600})

    assert wait_until(lambda: find_by_title(live, "time.sleep(3600)"), 60)
    live.kill("triggerer")
    before = live.processes()
    port = live.installation.port
    began = time.monotonic()
    live.services.stop()
    assert time.monotonic() - began < 60
    assert live.services.running() == {}
    assert [process for process in before if process.is_running()] == []
    assert live.processes() == []
    assert not [
        process.info
        for process in psutil.process_iter(["pid", "cmdline"])
        if str(live.home) in " ".join(process.info["cmdline"] or [])
    ]
    live.services.stop()  # nothing to do is no error

    again = live.services.start()
    assert again.port == port
    assert live.api.run("echo", run_id).state == "running"
    live.api.set_run_state("echo", run_id, "failed")


@pytest.mark.thorough
def test_own_databases_are_used_and_no_postgres_is_started(dags, tmp_path_factory, store_url):
    with fresh_database(store_url) as airflow_url, fresh_database(store_url) as own_store_url:
        own = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": airflow_url.replace(":", "+psycopg2:", 1),
            "MUSTER_STORE_URL": own_store_url,
        }
        home = tmp_path_factory.mktemp("own")
        with start_live_airflow(home, Wishes(dags), own) as live:
            assert "postgres" not in live.services.running()
            assert not (live.home / "postgres").exists()
            live.api.wait_for_dag("echo")
        for url, table in ((airflow_url, "dag_run"), (own_store_url, "attempt")):
            connection = psycopg2.connect(url)
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT to_regclass(%s)", (table,))
                assert cursor.fetchone() == (table,)
            connection.close()


@pytest.mark.thorough
def test_taken_port_is_an_error_in_one_line(tmp_path_factory):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with (
            pytest.raises(ConfigError, match=rf"another program has the port.*{port}"),
            start_live_airflow(tmp_path_factory.mktemp("taken"), environment={"MUSTER_PORT": port}),
        ):
            pytest.fail("started")


@pytest.mark.thorough
def test_component_that_does_not_start_is_named_with_its_log(dags, tmp_path_factory):
    settings = {"AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "often"}
    wishes = Wishes(dags, settings=settings)
    with (
        pytest.raises(StartFailed, match=r"triggerer") as failed,
        start_live_airflow(tmp_path_factory.mktemp("broken"), wishes),
    ):
        pytest.fail("started")
    assert failed.value.component == "triggerer"
    assert "JOB_HEARTBEAT_SEC" in failed.value.tail
