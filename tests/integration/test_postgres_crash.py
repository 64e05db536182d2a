"""A Postgres of the tests that ends before its time is reported, with what its log says."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psycopg2
import pytest

from muster.laptop.airflow_api import wait_until
from muster.laptop.postgres import connect_patiently, start_postgres, stop_postgres
from tests.conftest import describe_crash

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from muster.laptop.postgres import Postmaster


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Postmaster]]:
    folder = tmp_path_factory.mktemp("pg")
    yield folder, start_postgres(folder)
    stop_postgres(folder)


def test_a_server_that_runs_is_no_crash(server: tuple[Path, Postmaster]) -> None:
    assert describe_crash(*server) is None


def test_a_killed_server_is_reported(server: tuple[Path, Postmaster]) -> None:
    folder, postmaster = server
    os.kill(postmaster.pid, signal.SIGKILL)
    assert wait_until(lambda: describe_crash(folder, postmaster) is not None, 30, 0.1)
    crash = describe_crash(folder, postmaster)
    assert crash is not None
    assert "ended before its tests" in crash
    assert "database system is ready" in crash, "the log"


def test_a_killed_process_of_a_server_that_goes_on_is_reported(
    server: tuple[Path, Postmaster],
) -> None:
    folder, postmaster = server
    connection = psycopg2.connect(postmaster.url("postgres"))
    os.kill(connection.info.backend_pid, signal.SIGKILL)
    connection.close()
    assert wait_until(lambda: describe_crash(folder, postmaster) is not None, 30, 0.1)
    crash = describe_crash(folder, postmaster)
    assert crash is not None
    assert "was terminated by signal 9" in crash
    connect_patiently(postmaster.url("postgres")).close()  # it has recovered
