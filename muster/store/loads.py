"""Loads of datasets into Postgres: whose turn it is, what has been loaded, and what takes effect.

A load is resumed by whoever comes next with the same fingerprint.  Whoever resumes it puts a claim
of his own on it, and a window is written only under the newest claim: so a process that lost its
connection, and with it the advisory lock, can no longer write beside its successor.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from psycopg2 import sql
from psycopg2.errors import DuplicateTable, LockNotAvailable

from muster.errors import InvalidInput, SoftwareError, Superseded, Transient
from muster.store.datasets import drop_load, load_lock_name, upsert_dataset, upsert_holding
from muster.store.locks import NOTICE_DEATH, hold_lock
from muster.store.row_tables import SCHEMA, drop_table, table_exists, table_identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from psycopg2.extensions import cursor as Cursor

    from muster.raster.grid import Window
    from muster.store.database import Database
    from muster.store.datasets import DatasetRow

log = logging.getLogger(__name__)

_SWITCH_WAIT = "60s"
"""How long a finished load waits for those who use what it replaces.  Whoever comes to read waits
behind it, and not for as long as a statement may take."""


@dataclass(frozen=True)
class LoadRecord:
    """A load that is not ended, under our claim.

    Attributes
    ----------
    id : int
        In the store.
    dataset : str
        Key.
    store : {"tiles", "rows"}
        Where to.
    staging : str or None
        Table in the schema ``resampled`` that rows go to.
    claim : UUID
        Ours.
    """

    id: int
    dataset: str
    store: str
    staging: str | None
    claim: UUID


@contextmanager
def unhurried(db: Database) -> Iterator[Cursor]:
    """Yield a cursor in a transaction whose statements may take long, as loads and indexes do."""
    with db.transaction() as cursor:
        cursor.execute(NOTICE_DEATH.replace("{}", "LOCAL") + "SET LOCAL statement_timeout = 0")
        yield cursor


@contextmanager
def load_lock(db: Database, dataset: str, store: str, wait_s: float) -> Iterator[bool]:
    """Hold the lock on a dataset's load into a store.

    Yields
    ------
    bool
        Whether somebody else had it first.

    Raises
    ------
    Transient
        When he still has it after ``wait_s`` seconds.
    """

    def find_holder() -> str:
        with db.transaction() as cursor:
            return _read_holder(cursor, dataset, store)

    def log_wait() -> None:
        log.info(
            "%s of dataset %s: waiting up to %g s for %s, which loads it now",
            store, dataset, wait_s, find_holder(),
        )  # fmt: skip

    def refuse() -> Transient:
        return Transient(
            "the dataset is being loaded by another process",
            where=f"{store} of dataset {dataset}",
            got=f"{find_holder()}, waited for {wait_s:g} s",
            do="try again when it has ended: what it has loaded is kept",
        )

    name = load_lock_name(dataset, store)
    with hold_lock(db, name, wait_s, log_wait=log_wait, refuse=refuse) as lock:
        yield lock.waited


def is_loaded(cursor: Cursor, dataset: DatasetRow, store: str, place: str) -> bool:
    """Say whether a dataset of this very fingerprint lies in its place already."""
    cursor.execute(
        "SELECT 1 FROM holding h JOIN load l ON l.id = h.load WHERE h.dataset = %s"
        " AND h.store = %s AND h.fingerprint = %s AND h.place = %s AND l.state = 'done'",
        (dataset.key, store, dataset.fingerprint, place),
    )
    found = cursor.fetchone() is not None
    return found and (store != "rows" or table_exists(cursor, place))


def take_load(cursor: Cursor, dataset: DatasetRow, store: str) -> tuple[LoadRecord, bool]:
    """Take up the load that somebody has left, or begin one; under the lock.

    Returns
    -------
    load : LoadRecord
        Under a claim of our own.
    fresh : bool
        Whether it was begun now, so that its staging table is still to be made.
    """
    claim = uuid4()
    cursor.execute(
        "SELECT id, fingerprint, staging FROM load"
        " WHERE dataset = %s AND store = %s AND state = 'loading' FOR UPDATE",
        (dataset.key, store),
    )
    found = cursor.fetchone()
    if found is not None:
        load, fingerprint, staging = found
        whole = staging is None or table_exists(cursor, staging)
        if fingerprint == dataset.fingerprint and whole:
            cursor.execute(
                "UPDATE load SET claim = %s, claimed_by = %s WHERE id = %s",
                (str(claim), _who(), load),
            )
            return LoadRecord(load, dataset.key, store, staging, claim), False
        drop_load(cursor, load, dataset.key, staging)
    # No table's name that a person may choose has a colon in it.
    cursor.execute(
        "INSERT INTO load (dataset, store, fingerprint, claim, claimed_by)"
        " VALUES (%s, %s, %s, %s, %s) RETURNING id",
        (dataset.key, store, dataset.fingerprint, str(claim), _who()),
    )
    (load,) = cursor.fetchone() or (0,)
    staging = f"loading:{load}" if store == "rows" else None
    cursor.execute("UPDATE load SET staging = %s WHERE id = %s", (staging, load))
    return LoadRecord(load, dataset.key, store, staging, claim), True


def read_ledger(cursor: Cursor, load: LoadRecord) -> list[Window]:
    """Read which windows a load has brought."""
    from muster.raster.grid import Window

    cursor.execute("SELECT row, col, height, width FROM load_window WHERE load = %s", (load.id,))
    return [Window(*row) for row in cursor.fetchall()]


def enter_window(cursor: Cursor, load: LoadRecord, window: Window, pixels: int) -> bool:
    """Enter a window into the ledger, in the transaction that brings its pixels.

    Parameters
    ----------
    pixels : int
        How many of them have a value.

    Returns
    -------
    bool
        False where it is there already.

    Raises
    ------
    Superseded
        When somebody else has taken the load over.
    """
    _hold(cursor, load, "FOR SHARE")
    cursor.execute(
        "INSERT INTO load_window (load, row, col, height, width, pixels)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (load.id, window.row, window.col, window.height, window.width, pixels),
    )
    return cursor.rowcount == 1


def switch_load(
    cursor: Cursor,
    load: LoadRecord,
    dataset: DatasetRow,
    place: str,
    record: Callable[[], Iterable[str]] = tuple,
) -> None:
    """Let a load that is whole take effect, and drop what it replaces; one transaction.

    Parameters
    ----------
    place : str
        The table's name, or that of the table of all tiles.
    record : callable
        Writes down what takes effect, and returns the tables that are replaced by it beside
        ``place``.

    Raises
    ------
    SoftwareError
        When windows are missing.
    Superseded
        When somebody else has taken the load over.
    InvalidInput
        When there is a table in the way that no load of this dataset has made.
    Transient
        When somebody uses what is to be replaced, for longer than we wait.
    """
    cursor.execute("SET LOCAL lock_timeout = %s", (_SWITCH_WAIT,))
    try:
        _hold(cursor, load, "FOR UPDATE")
        _check_whole(cursor, load, dataset)
        replaced = {place, *record()}
        if load.staging is not None:
            for table in sorted(replaced):
                drop_table(cursor, table, load.dataset)
            cursor.execute(
                sql.SQL("ALTER TABLE {} RENAME TO {}").format(
                    table_identifier(load.staging), sql.Identifier(place)
                )
            )
        cursor.execute(
            "UPDATE load SET state = 'done', ended_at = now(), staging = NULL WHERE id = %s",
            (load.id,),
        )
        cursor.execute(
            "DELETE FROM load WHERE dataset = %s AND store = %s AND id <> %s",
            (load.dataset, load.store, load.id),
        )
    except LockNotAvailable as error:
        raise Transient(
            "somebody has been using what is to be replaced",
            where=_describe(load, place),
            got=f"no end of it in {_SWITCH_WAIT}",
            do="end that query and run again: what is loaded is kept",
        ) from error
    except DuplicateTable as error:
        raise InvalidInput(
            "somebody has made a table of this name meanwhile",
            where=_describe(load, place),
            do="rename or drop it, or name another, and run again: what is loaded is kept",
        ) from error


def record_holding(
    cursor: Cursor, load: LoadRecord, dataset: DatasetRow, place: str, run_id: str | None
) -> list[str]:
    """Record a dataset and where it lies as of now; return where it lay before."""
    upsert_dataset(cursor, dataset, run_id)
    cursor.execute(
        "SELECT place FROM holding WHERE dataset = %s AND store = %s FOR UPDATE",
        (load.dataset, load.store),
    )
    before = [row[0] for row in cursor.fetchall()]
    upsert_holding(cursor, dataset, load.store, place, load.id)
    return before


def _check_whole(cursor: Cursor, load: LoadRecord, dataset: DatasetRow) -> None:
    cursor.execute(
        "SELECT coalesce(sum(height::bigint * width), 0) FROM load_window WHERE load = %s",
        (load.id,),
    )
    (cells,) = cursor.fetchone() or (0,)
    expected = dataset.height * dataset.width
    if cells != expected:
        raise SoftwareError(
            "the load is not whole",
            where=_describe(load),
            got=f"{cells} cells in its ledger",
            expected=expected,
        )


def _hold(cursor: Cursor, load: LoadRecord, strength: str) -> None:
    """Lock our load's row, so that nobody takes it over before our transaction ends."""
    cursor.execute(
        f"SELECT 1 FROM load WHERE id = %s AND claim = %s AND state = 'loading' {strength}",
        (load.id, str(load.claim)),
    )
    if cursor.fetchone() is None:
        raise Superseded("another process has taken the load over", where=_describe(load))


def _describe(load: LoadRecord, place: str | None = None) -> str:
    if place is not None and load.staging is not None:
        return f"{SCHEMA}.{place}"
    return f"{load.store} of dataset {load.dataset}"


def _read_holder(cursor: Cursor, dataset: str, store: str) -> str:
    cursor.execute(
        "SELECT claimed_by FROM load WHERE dataset = %s AND store = %s AND state = 'loading'",
        (dataset, store),
    )
    row = cursor.fetchone()
    return str(row[0]) if row and row[0] else "another process"


def _who() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
