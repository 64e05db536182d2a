"""Datasets in the store: what each is, and where its pixels may be read."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.errors import MissingInput
from muster.store.row_tables import drop_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from psycopg2.extensions import cursor as Cursor

    from muster.store.database import Database

_UPSERT_DATASET = """
    INSERT INTO dataset (key, name, interval_label, run_id, layer, fingerprint, kind, reason,
                         method, crs, transform, height, width, dtype, nodata)
    VALUES (%(key)s, %(name)s, %(interval_label)s, %(run)s, %(document)s, %(fingerprint)s, %(kind)s,
            %(reason)s, %(method)s, %(crs)s, %(transform)s, %(height)s, %(width)s, %(dtype)s,
            %(nodata)s)
    ON CONFLICT (key) DO UPDATE SET
        name = excluded.name, interval_label = excluded.interval_label,
        run_id = coalesce(excluded.run_id, dataset.run_id), layer = excluded.layer,
        fingerprint = excluded.fingerprint, kind = excluded.kind, reason = excluded.reason,
        method = excluded.method, crs = excluded.crs, transform = excluded.transform,
        height = excluded.height, width = excluded.width, dtype = excluded.dtype,
        nodata = excluded.nodata, recorded_at = now()
"""

_UPSERT_HOLDING = """
    INSERT INTO holding (dataset, store, fingerprint, place, load)
    VALUES (%(dataset)s, %(store)s, %(fingerprint)s, %(place)s, %(load)s)
    ON CONFLICT (dataset, store) DO UPDATE SET
        fingerprint = excluded.fingerprint, place = excluded.place, load = excluded.load,
        recorded_at = now()
"""

_SELECT = """
    SELECT d.key, d.layer, d.fingerprint, d.run_id, d.recorded_at,
           h.store, h.fingerprint, h.place, h.load, h.recorded_at
    FROM dataset d LEFT JOIN holding h ON h.dataset = d.key
"""

TILE_PLACE = "tile"
"""Place of what lies in tiles: the table of all of them."""


@dataclass(frozen=True)
class DatasetRow:
    """A dataset in the store's columns.

    Attributes
    ----------
    key : str
        Name in the store.
    name : str
        What it is called, whatever its interval.
    interval_label : str or None
        The interval that it is of: "2024-03".
    document : str
        All that is known of it, as JSON; null stands for NaN, which Postgres's JSON does not know.
    fingerprint : str
        Of everything that its values are made from.
    kind, reason, method : str
        How the values come about, why so, and by which method.
    crs : str
        Of its grid.
    transform : sequence of float
        a, b, c, d, e, f of the grid.
    height, width : int
        Of the grid, in cells.
    dtype : str
        Of the values.
    nodata : float or None
        Stands for no value; None stands for NaN.
    """

    key: str
    name: str
    interval_label: str | None
    document: str
    fingerprint: str
    kind: str
    reason: str
    method: str
    crs: str
    transform: Sequence[float]
    height: int
    width: int
    dtype: str
    nodata: float | None


@dataclass(frozen=True)
class Holding:
    """One place where a dataset's pixels lie.

    Attributes
    ----------
    store : {"register", "tiles", "rows", "cog"}
        What kind of place.
    fingerprint : str
        Of the pixels; where it is not the dataset's, they are those of before.
    place : str
        Name of the table in the schema ``resampled``, or the URI.
    load : int or None
        Id of the load that brought them into Postgres.
    recorded_at : datetime
        Since when.
    """

    store: str
    fingerprint: str
    place: str
    load: int | None
    recorded_at: datetime


@dataclass(frozen=True)
class DatasetRecord:
    """A dataset, and where it lies.

    Attributes
    ----------
    key : str
        Name in the store.
    document : dict
        All that is known of it, as it was last recorded.
    fingerprint : str
        Of what it was last recorded as.
    run_id : str or None
        The run that recorded it.
    recorded_at : datetime
        When.
    holdings : tuple of Holding
        By their stores.
    """

    key: str
    document: dict[str, Any]
    fingerprint: str
    run_id: str | None
    recorded_at: datetime
    holdings: tuple[Holding, ...]

    @property
    def stores(self) -> tuple[str, ...]:
        """Where the pixels of this very fingerprint lie; not those of before."""
        return tuple(h.store for h in self.holdings if h.fingerprint == self.fingerprint)


def record_dataset(
    db: Database, dataset: DatasetRow, places: Mapping[str, str], run_id: str | None = None
) -> None:
    """Record a dataset, and where it may be read without having been loaded.

    That it lies in tiles or rows is recorded by the load itself, in the transaction that ends it.

    Parameters
    ----------
    dataset : DatasetRow
        Replaces what is recorded under its key.
    places : mapping of str to str
        "register" or "cog" → URI.
    run_id : str, optional
        The run that made it; what is recorded stays where none is given.
    """
    with db.transaction() as cursor:
        upsert_dataset(cursor, dataset, run_id)
        for store, place in places.items():
            upsert_holding(cursor, dataset, store, place)


def upsert_dataset(cursor: Cursor, dataset: DatasetRow, run_id: str | None) -> None:
    """Write a dataset in the caller's transaction."""
    columns = {**vars(dataset), "transform": list(dataset.transform), "run": run_id}
    cursor.execute(_UPSERT_DATASET, columns)


def upsert_holding(
    cursor: Cursor, dataset: DatasetRow, store: str, place: str, load: int | None = None
) -> None:
    """Write in the caller's transaction where a dataset lies, in the place of where it lay."""
    cursor.execute(
        _UPSERT_HOLDING,
        {
            "dataset": dataset.key,
            "store": store,
            "fingerprint": dataset.fingerprint,
            "place": place,
            "load": load,
        },
    )


def read_dataset(db: Database, key: str) -> DatasetRecord:
    """Read a dataset by its key.

    Raises
    ------
    MissingInput
        When the store knows none of that key; the message names those that are written alike.
    """
    with db.transaction() as cursor:
        cursor.execute(_SELECT + " WHERE d.key = %s ORDER BY h.store", (key,))
        records = _records(cursor.fetchall())
        if records:
            return records[0]
        cursor.execute("SELECT key FROM dataset ORDER BY key")
        known = [row[0] for row in cursor.fetchall()]
    raise MissingInput(
        "no such dataset",
        got=key,
        expected=_name_nearest(key, known),
        do=None if known else "run resampling first: nothing is recorded yet",
    )


def list_datasets(db: Database) -> list[DatasetRecord]:
    """Read all datasets, by their keys."""
    with db.transaction() as cursor:
        cursor.execute(_SELECT + " ORDER BY d.key, h.store")
        return _records(cursor.fetchall())


def drop_load(cursor: Cursor, load: int, dataset: str, staging: str | None) -> None:
    """Drop a load that was not ended, with what it has brought."""
    if staging is not None:
        drop_table(cursor, staging, dataset)
    cursor.execute("DELETE FROM load WHERE id = %s", (load,))


def load_lock_name(dataset: str, store: str) -> str:
    """Name the advisory lock that whoever loads a dataset holds."""
    return f"muster load {store} {dataset}"


def _records(rows: list[tuple[Any, ...]]) -> list[DatasetRecord]:
    records: dict[str, DatasetRecord] = {}
    for key, document, fingerprint, run_id, recorded_at, *holding in rows:
        held: tuple[Holding, ...] = (Holding(*holding),) if holding[0] is not None else ()
        if key in records:
            held = records[key].holdings + held
        records[key] = DatasetRecord(key, document, fingerprint, run_id, recorded_at, held)
    return list(records.values())


def _name_nearest(key: str, known: list[str]) -> str | None:
    near = difflib.get_close_matches(key, known, n=5, cutoff=0.4) or known[:5]
    return ", ".join(near) or None
