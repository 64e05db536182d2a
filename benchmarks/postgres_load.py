"""How fast pixels come into Postgres: upserts of rows, our rows, and our tiles.

One embedded server of its own, durable writes on, one field of float32 with a value in every cell.
The peer is what is usually written: psycopg2's execute_values with ON CONFLICT DO UPDATE into a
table with a key and no other index; it takes a part of the field, as it would take minutes for the
whole.  Ours load the whole, from the lock to the switch, the making of the key included.  The
three take turns; each pixel is a row of the first two, so that their seconds compare.

    python benchmarks/postgres_load.py               2048 × 2048, five turns
    python benchmarks/postgres_load.py --size 512    a quick look
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _side_by_side import describe_run
from psycopg2.extras import execute_values

from muster.laptop.postgres import ensure_database, start_postgres, stop_postgres
from muster.raster.grid import Window
from muster.resampling.layer import TILE_PX, GridSpec, Layer
from muster.resampling.stores.load import open_load
from muster.resampling.stores.read import read_layer_window
from muster.store.database import Database
from muster.store.schema import migrate

if TYPE_CHECKING:
    from muster.resampling.config.methods import Sink

UPSERT = """
    INSERT INTO peer (row_idx, col_idx, x, y, value) VALUES %s
    ON CONFLICT (row_idx, col_idx) DO UPDATE SET
        x = excluded.x, y = excluded.y, value = excluded.value
"""
PAGE = 1000


def make_field(size: int, seed: int) -> np.ndarray[Any, Any]:
    """Make a smooth field with noise of a thousandth of its range: (row, col), float32."""
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[:size, :size] / 300.0
    field = 400 * np.sin(row) * np.cos(1.3 * col) + 80 * np.sin(5 * row + 3 * col)
    return (field + rng.normal(0, 1, field.shape)).astype("float32")


def make_layer(size: int) -> Layer:
    grid = GridSpec(
        crs="EPSG:6933", transform=(1000.0, 0.0, 0.0, 0.0, -1000.0, 0.0), height=size, width=size
    )
    return Layer.model_validate(
        {
            "key": "field",
            "dataset": {"name": "field", "path": "/field.tif", "method": "average"},
            "sources": ["/field.tif"],
            "grid": grid,
            "dtype": "float32",
            "kind": "block",
            "reason": "a benchmark",
            "fingerprint": "0" * 64,
            "tiles": True,
            "table": "field",
        }
    )


def upsert(db: Database, field: np.ndarray[Any, Any], rows: int) -> float:
    """Bring the first so many rows; return seconds a pixel."""
    with db.transaction() as cursor:
        cursor.execute(
            "DROP TABLE IF EXISTS peer; CREATE TABLE peer (row_idx integer, col_idx integer,"
            " x double precision, y double precision, value real,"
            " PRIMARY KEY (row_idx, col_idx))"
        )
    part = field[: max(1, rows // field.shape[1])]
    start = time.perf_counter()
    row, col = np.indices(part.shape).reshape(2, -1)
    columns = (row, col, 1000 * (col + 0.5), -1000 * (row + 0.5), part.ravel())
    with db.transaction() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        execute_values(
            cursor, UPSERT, zip(*(c.tolist() for c in columns), strict=True), page_size=PAGE
        )
    return (time.perf_counter() - start) / part.size


def load(db: Database, layer: Layer, store: Sink, field: np.ndarray[Any, Any]) -> float:
    """Load the whole field in bands of tiles, in the place of what is there; seconds a pixel."""
    start = time.perf_counter()
    with open_load(db, layer, store, again=True) as opened:
        for row in range(0, field.shape[0], TILE_PX):
            values = field[row : row + TILE_PX]
            opened.write(Window(row, 0, *values.shape), values)
        opened.finish()
    return (time.perf_counter() - start) / field.size


def bytes_a_pixel(db: Database, table: str, pixels: int) -> float:
    """Measure what a table takes with its indexes, without what was replaced."""
    with db.session() as cursor:
        cursor.execute(f"VACUUM FULL {table}")
        cursor.execute("SELECT pg_total_relation_size(%s::regclass)", (table,))
        (size,) = cursor.fetchone() or (0,)
    return float(size) / pixels


def median_ratio(ours: list[int], other: list[int]) -> float:
    return round(statistics.median(a / b for a, b in zip(ours, other, strict=True)), 1)


def measure(db: Database, arguments: argparse.Namespace) -> dict[str, Any]:
    field = make_field(arguments.size, arguments.seed)
    layer = make_layer(arguments.size)
    runs: dict[str, list[float]] = {"upsert": [], "rows": [], "tiles": []}
    for _ in range(arguments.repeat):
        runs["upsert"].append(upsert(db, field, arguments.upserts))
        runs["rows"].append(load(db, layer, "rows", field))
        runs["tiles"].append(load(db, layer, "tiles", field))
    read = {}
    whole = Window(0, 0, *field.shape)
    stores: tuple[Sink, ...] = ("rows", "tiles")
    for store in stores:
        start = time.perf_counter()
        found = read_layer_window(layer, db, whole, store)
        read[store] = round(field.size / (time.perf_counter() - start))
        if not np.array_equal(found, field):
            raise SystemExit(f"{store} hold other values than were loaded")
    rates = {name: [round(1 / s) for s in found] for name, found in runs.items()}
    medians = {name: statistics.median(found) for name, found in rates.items()}
    peer_pixels = max(1, arguments.upserts // arguments.size) * arguments.size
    return {
        "pixels": field.size,
        "upserted": peer_pixels,
        "pixels_a_second": {"medians": medians, "runs": rates},
        # Of each turn, as its three runs found the machine equally busy.
        "rows_over_upsert": median_ratio(rates["rows"], rates["upsert"]),
        "tiles_over_rows": median_ratio(rates["tiles"], rates["rows"]),
        "read_pixels_a_second": read,
        "bytes_a_pixel": {
            "upsert": round(bytes_a_pixel(db, "peer", peer_pixels), 1),
            "rows": round(bytes_a_pixel(db, "resampled.field", field.size), 1),
            "tiles": round(bytes_a_pixel(db, "tile", field.size), 2),
            "float32": 4,
        },
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=2048, help="rows and columns")
    parser.add_argument("--upserts", type=int, default=157_000, help="rows that the peer takes")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=20240501)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="muster-benchmark-") as temporary:
        folder = Path(temporary) / "pg"
        server = start_postgres(folder)
        try:
            ensure_database(server, "muster")
            url = server.url("muster")
            migrate(url)
            db = Database(url)
            answer = {"benchmark": "postgres_load", **describe_run(), **measure(db, arguments)}
            db.close()
        finally:
            stop_postgres(folder)
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
