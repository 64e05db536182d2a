"""What every test may ask for: a real Postgres for the session, and an empty database in it."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
from psycopg2 import sql

from muster.laptop.postgres import (
    SETTINGS,
    Postmaster,
    find_postgres,
    start_postgres,
    stop_postgres,
)
from muster.store.database import Database
from muster.store.schema import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = [
    "pytester",
    "tests.cpu_budget",
    "tests.hypothesis_profiles",
    "tests.integration.backends.sshd",
    "tests.kubernetes_fixtures",
    "tests.s3_server",
    "tests.several",
    "tests.temporary_folder",
]


@pytest.fixture(scope="session", autouse=True)
def _home_without_login_scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home without login scripts, for the shells that jobs start in.

    Those of a developer cost time in each job, and one that is killed in them may leave a lock for
    which the next one waits a minute.  Caches stay where they are.
    """
    folder = tmp_path_factory.mktemp("home")
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", cache)
        patch.setenv("HOME", str(folder))
        patch.setenv("MUSTER_XLA_CACHE", str(folder / "xla"))
        yield folder


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory):
    """One embedded server a session; durable writes are off, as nobody needs them after it."""
    folder = tmp_path_factory.mktemp("pg")
    server = start_postgres(
        folder, {**SETTINGS, "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    )
    oom_kills = count_oom_kills()
    yield server
    crash = describe_crash(folder, server)
    stop_postgres(folder)
    if crash is not None:
        pytest.fail(
            f"{crash}; processes that the kernel killed for memory meanwhile:"
            f" {count_oom_kills() - oom_kills}",
            pytrace=False,
        )


def describe_crash(folder: Path, server: Postmaster) -> str | None:
    """Return how a server, or a process of it, ended before its time; None if none did."""
    log = (folder / "log").read_text(errors="replace")
    if find_postgres(folder) != server:
        tail = "\n".join(log.splitlines()[-40:])
        return f"Postgres (pid {server.pid}) ended before its tests; the end of its log:\n{tail}"
    crashes = [line for line in log.splitlines() if "was terminated by signal" in line]
    return f"a process of Postgres crashed: {'; '.join(crashes)}" if crashes else None


def count_oom_kills() -> int:
    """Return how many processes the kernel has killed for memory since it started."""
    rows = (row.split() for row in Path("/proc/vmstat").read_text().splitlines())
    return next((int(count) for name, count in rows if name == "oom_kill"), 0)


@pytest.fixture(scope="session")
def store_url(postgres_server) -> str:
    """The address of the session's server (its database ``postgres``)."""
    return postgres_server.url("postgres")


@contextlib.contextmanager
def fresh_database(store_url: str, template: str = "template1") -> Iterator[str]:
    """Make a database from a template, give its address, and drop it in the end."""
    name = f"test_{uuid.uuid4().hex}"

    def execute(statement: sql.Composed) -> None:
        connection = psycopg2.connect(store_url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template)
        )
    )
    try:
        yield store_url.replace("/postgres?", f"/{name}?")
    finally:
        execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database(store_url: str) -> Iterator[str]:
    """The address of an empty database of the test's own."""
    with fresh_database(store_url) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(store_url: str) -> Iterator[str]:
    """Name of a database that is migrated once; tests clone it."""
    with fresh_database(store_url) as url:
        migrate(url)
        yield url.partition("?")[0].rpartition("/")[2]


@pytest.fixture
def db(store_url: str, migrated_template: str) -> Iterator[Database]:
    """A store of the test's own, at the schema of this version."""
    with fresh_database(store_url, migrated_template) as url:
        database = Database(url)
        yield database
        database.close()
