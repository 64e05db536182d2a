"""What every test may ask for: a real Postgres for the session, and an empty database in it."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

import psycopg2
import pytest
from psycopg2 import sql

from muster.laptop.postgres import SETTINGS, start_postgres, stop_postgres
from muster.store.database import Database
from muster.store.schema import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["tests.integration.live_airflow", "tests.several"]


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory):
    """One embedded server a session; durable writes are off, as nobody needs them after it."""
    folder = tmp_path_factory.mktemp("pg")
    server = start_postgres(
        folder, {**SETTINGS, "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    )
    yield server
    stop_postgres(folder)


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
