"""The record of a campaign as a small SQLite database: tables campaign, artifacts and jobs."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

from muster.errors import InvalidInput, MusterError, Transient

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    Table = tuple[Sequence[str], Iterable[Sequence[Any]]]

_FAILURES_OUTSIDE = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL,
}  # fmt: skip
"""Of the disk, the memory and other processes; the low byte of SQLite's codes."""

_SCHEMA = """
PRAGMA user_version = 1;
CREATE TABLE campaign (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE artifacts (
    name TEXT PRIMARY KEY, realization INTEGER, redshift REAL, bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL, fingerprint TEXT, uri TEXT NOT NULL, place TEXT NOT NULL);
CREATE INDEX artifacts_coordinate ON artifacts (realization, redshift);
CREATE TABLE jobs (
    step TEXT NOT NULL, name TEXT NOT NULL, run TEXT, realization INTEGER, redshift REAL,
    state TEXT NOT NULL, outcome TEXT, seconds REAL, max_rss_mib REAL, host TEXT,
    attempts INTEGER NOT NULL, message TEXT);
CREATE INDEX jobs_state ON jobs (state);
CREATE INDEX jobs_coordinate ON jobs (realization, redshift);
"""


def write_database(
    path: Path, campaign: Mapping[str, Any], *, artifacts: Table, jobs: Table
) -> None:
    """Write the database; the file is published when it is whole, so that it needs no journal.

    Parameters
    ----------
    path : Path
        The file, which is not there yet.
    campaign : mapping
        What the table campaign shall hold.
    artifacts, jobs : tuple of columns and rows
        Of the tables of these names.

    Raises
    ------
    Transient
        When the disk is full or fails.
    """
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
            connection.executescript(_SCHEMA)
            with connection:
                connection.executemany(
                    "INSERT INTO campaign VALUES (?, ?)",
                    sorted((key, _render_value(value)) for key, value in campaign.items()),
                )
                _insert(connection, "artifacts", *artifacts)
                _insert(connection, "jobs", *jobs)
    except sqlite3.Error as error:
        raise explain_sqlite_error(error, path) from error


def explain_sqlite_error(error: sqlite3.Error, where: object) -> MusterError:
    """Turn an error of SQLite into ours: Transient for a disk that is full or fails."""
    # What the sqlite3 module itself refuses has no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    kind = Transient if code in _FAILURES_OUTSIDE else InvalidInput
    return kind("the database could not be written", where=where, got=error)


def _insert(
    connection: sqlite3.Connection,
    table: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> None:
    marks = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)


def _render_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
