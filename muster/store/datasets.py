"""Datasets in the store: what each is, and where its pixels may be read."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.errors import MissingInput
from muster.resampling.layer import Layer
from muster.store.row_tables import drop_table

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg2.extensions import cursor as Cursor

    from muster.resampling.methods import Store
    from muster.store.database import Database

_UPSERT_DATASET = """
    INSERT INTO dataset (key, name, interval_label, run_id, layer, fingerprint, kind, reason,
                         method, crs, transform, height, width, dtype, nodata)
    VALUES (%(key)s, %(name)s, %(interval)s, %(run)s, %(layer)s, %(fingerprint)s, %(kind)s,
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
    SELECT d.layer, d.run_id, d.recorded_at, h.store, h.fingerprint, h.place, h.load, h.recorded_at
    FROM dataset d LEFT JOIN holding h ON h.dataset = d.key
"""

TILE_PLACE = "tile"
"""Place of what lies in tiles: the table of all of them."""


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

    store: Store
    fingerprint: str
    place: str
    load: int | None
    recorded_at: datetime


@dataclass(frozen=True)
class DatasetRecord:
    """A dataset, and where it lies.

    Attributes
    ----------
    layer : Layer
        As it was last recorded.
    run_id : str or None
        The run that recorded it.
    recorded_at : datetime
        When.
    holdings : tuple of Holding
        By their stores.
    """

    layer: Layer
    run_id: str | None
    recorded_at: datetime
    holdings: tuple[Holding, ...]

    @property
    def stores(self) -> tuple[Store, ...]:
        """Where the pixels of this very layer lie; not those of before."""
        return tuple(h.store for h in self.holdings if h.fingerprint == self.layer.fingerprint)


def record_layer(db: Database, layer: Layer, run_id: str | None = None) -> None:
    """Record a layer, and that it is registered or lies in a COG where it says so.

    That it lies in tiles or rows is recorded by the load itself, in the transaction that ends it.

    Parameters
    ----------
    layer : Layer
        Replaces what is recorded under its key.
    run_id : str, optional
        The run that made it; what is recorded stays where none is given.
    """
    with db.transaction() as cursor:
        upsert_layer(cursor, layer, run_id)
        for store, place in _places(layer).items():
            upsert_holding(cursor, layer, store, place)


def upsert_layer(cursor: Cursor, layer: Layer, run_id: str | None) -> None:
    """Write a layer in the caller's transaction."""
    label = layer.key.removeprefix(layer.dataset.name).removeprefix("@")
    cursor.execute(
        _UPSERT_DATASET,
        {
            "key": layer.key,
            "name": layer.dataset.name,
            "interval": label or None,
            "run": run_id,
            # Pydantic's own JSON has null for NaN, which Postgres's does not know.
            "layer": layer.model_dump_json(),
            "fingerprint": layer.fingerprint,
            "kind": layer.kind,
            "reason": layer.reason,
            "method": layer.dataset.method,
            "crs": layer.grid.crs,
            "transform": list(layer.grid.transform),
            "height": layer.grid.height,
            "width": layer.grid.width,
            "dtype": layer.dtype,
            "nodata": layer.nodata,
        },
    )


def upsert_holding(
    cursor: Cursor, layer: Layer, store: Store, place: str, load: int | None = None
) -> None:
    """Write in the caller's transaction where a layer lies, in the place of where it lay."""
    cursor.execute(
        _UPSERT_HOLDING,
        {
            "dataset": layer.key,
            "store": store,
            "fingerprint": layer.fingerprint,
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


def _places(layer: Layer) -> dict[Store, str]:
    places: dict[Store, str] = {}
    if layer.registered:
        places["register"] = layer.dataset.path
    if layer.cog is not None:
        places["cog"] = layer.cog
    return places


def _records(rows: list[tuple[Any, ...]]) -> list[DatasetRecord]:
    layers: dict[str, DatasetRecord] = {}
    for document, run_id, recorded_at, *holding in rows:
        layer = Layer.model_validate(document)
        before = layers.get(layer.key)
        held = (Holding(*holding),) if holding[0] is not None else ()
        layers[layer.key] = DatasetRecord(
            layer, run_id, recorded_at, (before.holdings if before else ()) + held
        )
    return list(layers.values())


def _name_nearest(key: str, known: list[str]) -> str | None:
    near = difflib.get_close_matches(key, known, n=5, cutoff=0.4) or known[:5]
    return ", ".join(near) or None
