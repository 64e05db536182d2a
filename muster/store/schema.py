"""Bringing a database to the schema of this version of Muster."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from muster.errors import StoreUnavailable

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x6D757374  # "must": two migrations at once wait for each other

log = logging.getLogger(__name__)


def migrate(url: str) -> str:
    """Apply the migrations that a database lacks, and return its version.

    Safe to call from several processes at once.

    Raises
    ------
    StoreUnavailable
        When Postgres does not answer.
    """
    engine = create_engine(_sqlalchemy_url(url), poolclass=NullPool)
    config = _config()
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            return _version_of(connection) or "empty"
    except OperationalError as error:
        raise StoreUnavailable("the store does not answer", got=error.orig) from error


def read_versions(url: str) -> tuple[str | None, str | None]:
    """Return the database's version, and the version that this code expects."""
    engine = create_engine(_sqlalchemy_url(url), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            found = _version_of(connection)
    except OperationalError as error:
        raise StoreUnavailable("the store does not answer", got=error.orig) from error
    return found, ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _version_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _sqlalchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg2://", 1)
