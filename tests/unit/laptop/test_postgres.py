from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import psutil
import psycopg2
import pytest

from muster.errors import ConfigError
from muster.laptop.postgres import (
    SETTINGS,
    ensure_database,
    find_postgres,
    parse_postmaster_pid,
    start_postgres,
    stop_postgres,
)


def test_database_is_fresh_and_writable(database):
    with psycopg2.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert cursor.fetchone() == (0,)
        cursor.execute("CREATE TABLE mark (x int)")
    connection.close()


def test_second_database_does_not_see_the_first(database):
    connection = psycopg2.connect(database)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('mark')")
        assert cursor.fetchone() == (None,)
    connection.close()


def test_server_is_reached_by_its_socket_only(postgres_server):
    listening = []
    postmaster = psutil.Process(postgres_server.pid)
    for process in [postmaster, *postmaster.children(recursive=True)]:
        # A backend whose client has gone may end meanwhile.
        with contextlib.suppress(psutil.NoSuchProcess):
            listening += process.net_connections(kind="inet")
    assert listening == []
    socket = postgres_server.socket_folder / ".s.PGSQL.5432"
    assert socket.stat().st_mode & 0o077 == 0


HELD = """
import os, sys, time
import psycopg2
connection = psycopg2.connect(sys.argv[1])
connection.cursor().execute("SELECT 1 FROM held FOR UPDATE")
if os.fork() == 0:  # a worker: it has the connection, too
    print(os.getpid(), flush=True)
    time.sleep(600)
os.kill(os.getpid(), 9)
"""


def test_no_lock_of_a_killed_process_stays_with_what_it_has_started(tmp_path):
    limit = "idle_in_transaction_session_timeout"
    assert SETTINGS[limit] == "120s"
    folder = tmp_path / "pg"
    server = start_postgres(folder, {**SETTINGS, limit: "2s"})
    child = None
    try:
        url = server.url("postgres")
        with contextlib.closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("CREATE TABLE held (x int); INSERT INTO held VALUES (1)")
            killed = subprocess.Popen(
                [sys.executable, "-c", HELD, url], stdout=subprocess.PIPE, text=True
            )
            with killed.stdout:
                child = psutil.Process(int(killed.stdout.readline()))
            assert killed.wait(20) == -signal.SIGKILL
            cursor.execute("SELECT 1 FROM held FOR UPDATE SKIP LOCKED")
            assert cursor.fetchone() is None
            cursor.execute("SET lock_timeout = '30s'")
            cursor.execute("SELECT 1 FROM held FOR UPDATE")
            assert cursor.fetchone() == (1,)
            assert child.is_running()
    finally:
        if child is not None:
            child.kill()
        stop_postgres(folder)


def test_start_stop_start_again_keeps_the_data(tmp_path):
    folder = tmp_path / "pg"
    server = start_postgres(folder)
    try:
        ensure_database(server, "odd name")
        ensure_database(server, "odd name")
        assert start_postgres(folder) == server
        # A crash, with the process id left in its file, is recovered from.
        os.kill(server.pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(server.pid)] if psutil.pid_exists(server.pid) else [], 10)
        again = start_postgres(folder)
        assert again.pid != server.pid
        psycopg2.connect(again.url("odd name")).close()
    finally:
        stop_postgres(folder)
    assert find_postgres(folder) is None
    stop_postgres(folder)


def test_recycled_process_id_is_not_taken_for_the_server(tmp_path):
    own = psutil.Process()
    text = f"{own.pid}\n{tmp_path}\n{int(own.create_time())}\n5432\n{tmp_path}\n\n 1 2\nready\n"
    (tmp_path / "postmaster.pid").write_text(text)
    assert parse_postmaster_pid(text) == (own.pid, int(own.create_time()), tmp_path)
    assert find_postgres(tmp_path) is None
    stop_postgres(tmp_path)  # would end this test


def test_folder_with_blanks_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"without blanks.*MUSTER_HOME"):
        start_postgres(tmp_path / "a b")
