"""Merged tables: what a Parquet file holds, whole or not seen, and taken up after a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from muster.errors import ConfigError, InvalidInput, Transient
from muster.raster.grid import Band
from muster.raster.write.cog import CogFormat, write_cog
from muster.resampling.layer import FINGERPRINT_TAG
from muster.resampling.merging import merge, merge_table
from muster.resampling.merging.merge import merge_layers
from muster.resampling.stores.load import open_load
from muster.store import loads
from tests.integration.resampling.layers import bands, cut, make_layer, make_values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from muster.resampling.layer import Layer
    from muster.store.database import Database

pytestmark = pytest.mark.slow

DTYPES = ("float32", "uint8", "int16", "uint16", "int32", "uint32", "float64")
# A height that makes three bands.
CELLS = 600 * 700


def layer_of(dtype: str, **more: Any) -> Layer:
    name = f"{dtype}-x"
    dataset = {
        "name": name, "path": f"/data/{name}.tif", "method": "average", "unit": "m",
        "description": f"values of {dtype}",
    }  # fmt: skip
    data = {"key": name, "dataset": dataset, "table": None, "fingerprint": dtype * 8}
    return make_layer(dtype, **{**data, **more})


LAYERS = [layer_of(dtype) for dtype in DTYPES]
VALUES = {layer.key: make_values(layer, seed) for seed, layer in enumerate(LAYERS)}


@pytest.fixture
def store(db: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A store in which each dataset lies in tiles."""
    monkeypatch.setenv("MUSTER_STORE_URL", db.url)
    for layer in LAYERS:
        with open_load(db, layer, "tiles") as load:
            for window in bands(layer):
                load.write(window, cut(VALUES[layer.key], window))
            load.finish()
    return db


def run(**more: Any) -> dict[str, Any]:
    layers = [layer.model_dump(mode="json") for layer in LAYERS]
    return merge_layers(**{"layers": layers, "table": "merged", "fingerprint": "f1", **more})


def ask(db: Database, query: str, *values: object) -> list[tuple[Any, ...]]:
    with db.transaction() as cursor:
        cursor.execute(query, values or None)
        return cursor.fetchall()


def rows(db: Database) -> list[tuple[Any, ...]]:
    return ask(db, "SELECT * FROM resampled.merged ORDER BY row_idx, col_idx")


def tables(db: Database) -> list[str]:
    return [r[0] for r in ask(db, "SELECT tablename FROM pg_tables WHERE schemaname='resampled'")]


@pytest.mark.parametrize("incomplete", ["drop", "keep"])
def test_the_table_holds_what_the_file_holds(
    store: Database, tmp_path: Path, incomplete: str
) -> None:
    facts = run(incomplete=incomplete, parquet=tmp_path / "m.parquet")
    found = rows(store)
    file = pq.read_table(tmp_path / "m.parquet")
    assert len(found) == facts["rows"] == file.num_rows > 1000
    assert facts["cells"] == CELLS
    columns = list(zip(*found, strict=True))
    for column, name in zip(columns, file.column_names, strict=True):
        wanted = file[name].to_pylist()
        # Real: what the driver gives for a float32 has its shortest digits.
        kind = np.float32 if name == "float32-x" else None
        same = [
            (a is None) == (b is None) and (a is None or (kind(a) if kind else a) == b)
            for a, b in zip(column, wanted, strict=True)
        ]
        assert all(same), name
        assert (None in column) == (incomplete == "keep" and name.endswith("-x")), name
    values = VALUES["int32-x"]
    for (
        row,
        col,
        *_,
    ) in found[:: len(found) // 20]:
        line = next(r for r in found if r[:2] == (row, col))
        assert line[8] in (None, values[row, col])


def test_the_table_is_keyed_and_says_what_it_is(store: Database) -> None:
    facts = run()
    assert facts["table"] == "merged"
    keys = ask(store, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'resampled'")
    assert [key[0].endswith("(row_idx, col_idx)") for key in keys] == [True]
    assert tables(store) == ["merged"]
    ((comment,),) = ask(store, "SELECT obj_description('resampled.merged'::regclass)")
    assert "fingerprint: f1" in comment
    ((said,),) = ask(store, "SELECT col_description('resampled.merged'::regclass, 5)")
    assert said == "values of float32 in m, float32-x"
    # A merge is no dataset.
    assert ask(store, "SELECT count(*) FROM dataset WHERE key = 'merge'") == [(0,)]


def test_the_same_merge_is_loaded_once_and_another_replaces_it(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(incomplete="keep")
    before = ask(store, "SELECT 'resampled.merged'::regclass::oid")
    monkeypatch.setattr(merge, "_reader", None)  # nothing is read
    assert run(incomplete="keep") == first
    monkeypatch.undo()
    monkeypatch.setenv("MUSTER_STORE_URL", store.url)
    assert ask(store, "SELECT 'resampled.merged'::regclass::oid") == before
    again = run(incomplete="drop", fingerprint="f2")
    assert again["rows"] == again["complete"] == first["complete"] == len(rows(store))
    assert ask(store, "SELECT fingerprint FROM load WHERE dataset = 'merge'") == [("f2",)]


def test_what_is_merged_already_is_merged_again_where_that_is_asked_for(store: Database) -> None:
    run()
    before = ask(store, "SELECT 'resampled.merged'::regclass::oid")
    with store.transaction() as cursor:
        cursor.execute("DELETE FROM resampled.merged WHERE row_idx % 2 = 0")
    facts = run(overwrite=True)
    assert ask(store, "SELECT 'resampled.merged'::regclass::oid") != before
    assert len(rows(store)) == facts["rows"]


def test_two_merges_into_two_tables_leave_each_other_alone(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = merge_table.MergeLoad.finish
    monkeypatch.setattr(merge_table.MergeLoad, "finish", lambda *_: None)
    run(key="merge:merged")
    monkeypatch.setattr(merge_table.MergeLoad, "finish", finish)
    run(key="merge:other", table="other", fingerprint="f2")
    assert ask(store, "SELECT dataset, state FROM load WHERE store = 'rows' ORDER BY 1") == [
        ("merge:merged", "loading"), ("merge:other", "done"),
    ]  # fmt: skip
    encode, encoded = merge_table._MergedTable.encode, []
    monkeypatch.setattr(
        merge_table._MergedTable, "encode", lambda *a: encoded.append(a) or encode(*a)
    )
    run(key="merge:merged")
    assert encoded == [], "what was interrupted is not computed again"
    assert ask(store, "(TABLE resampled.merged EXCEPT TABLE resampled.other)") == []


def test_of_two_merges_into_one_table_the_later_replaces_the_earlier(store: Database) -> None:
    run(layers=[layer.model_dump(mode="json") for layer in LAYERS[:3]], fingerprint="f1")
    facts = run(layers=[layer.model_dump(mode="json") for layer in LAYERS[2:]], fingerprint="f2")
    found = rows(store)
    assert len(found) == facts["rows"]
    assert len(found[0]) == 4 + len(LAYERS[2:])
    assert tables(store) == ["merged"]


def test_a_load_that_broke_is_taken_up(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    run(table="whole", key="other", incomplete="keep")
    encode = merge_table._MergedTable.encode
    encoded: list[int] = []

    def broken(self: Any, cells: Any) -> Iterator[bytes]:
        for piece in encode(self, cells):
            yield piece
            if encoded:
                # Part of the second band's rows have been sent.
                raise RuntimeError("the machine stops")
        encoded.append(len(cells.row))

    monkeypatch.setattr(merge_table._MergedTable, "encode", broken)
    with pytest.raises(RuntimeError, match="stops"):
        run(incomplete="keep")
    assert "merged" not in tables(store)
    assert ask(store, "SELECT count(*) FROM load_window w JOIN load l ON l.id = w.load"
               " WHERE l.dataset = 'merge'") == [(1,)]  # fmt: skip

    def counted(self: Any, cells: Any) -> Iterator[bytes]:
        encoded.append(len(cells.row))
        return encode(self, cells)

    monkeypatch.setattr(merge_table._MergedTable, "encode", counted)
    facts = run(incomplete="keep")
    assert len(encoded) == 3
    assert sum(encoded) == facts["rows"]
    assert ask(store, "(TABLE resampled.merged EXCEPT TABLE resampled.whole) UNION ALL"
               " (TABLE resampled.whole EXCEPT TABLE resampled.merged)") == []  # fmt: skip
    assert sorted(tables(store)) == ["merged", "whole"]


def test_what_was_begun_in_other_bands_is_begun_anew(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = merge_table.MergeLoad.finish
    monkeypatch.setattr(merge_table.MergeLoad, "finish", lambda *_: None)
    run()
    monkeypatch.setattr(merge_table.MergeLoad, "finish", finish)
    monkeypatch.setattr(merge, "plan_bands", lambda grid, *_: _by_hundreds(grid))
    facts = run()
    assert facts["rows"] == len(rows(store)) == len({r[:2] for r in rows(store)})
    assert tables(store) == ["merged"]


def _by_hundreds(grid: Any) -> Iterator[Any]:
    for row in range(0, grid.height, 100):
        yield merge.Window(row, 0, min(100, grid.height - row), grid.width)


def test_a_table_of_somebody_else_is_left_alone(store: Database) -> None:
    with store.transaction() as cursor:
        cursor.execute("CREATE TABLE resampled.merged (a int)")
    with pytest.raises(InvalidInput, match=r"resampled\.merged"):
        run()
    assert ask(store, "SELECT count(*) FROM resampled.merged") == [(0,)]


def test_a_reader_who_does_not_end_holds_up_the_switch_for_a_while_only(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.store.loads._SWITCH_WAIT", "200ms")
    run(incomplete="keep")
    before = rows(store)
    with store.transaction() as cursor:
        cursor.execute("SELECT count(*) FROM resampled.merged")
        with pytest.raises(
            Transient, match=r"somebody has been using .* resampled\.merged"
        ) as told:
            run(fingerprint="f2")
    assert type(told.value) is Transient
    assert rows(store) == before
    assert run(fingerprint="f2")["rows"] == len(rows(store)) < len(before)


def test_a_table_that_somebody_makes_meanwhile_is_left_alone(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loads.drop_table

    def drop_table(cursor: Any, table: str, dataset: str) -> None:
        real(cursor, table, dataset)
        with store.transaction() as other:
            other.execute("CREATE TABLE resampled.merged (a int)")

    monkeypatch.setattr(loads, "drop_table", drop_table)
    with pytest.raises(
        InvalidInput, match=r"made a table of this name meanwhile.*resampled\.merged"
    ):
        run()
    assert ask(store, "SELECT count(*) FROM resampled.merged") == [(0,)]


def test_a_name_that_postgres_would_cut_is_refused(store: Database) -> None:
    long = layer_of("uint8").model_dump(mode="json")
    long["dataset"]["name"] = "ü" * 40
    with pytest.raises((ConfigError, ValueError), match="name"):
        merge_layers(layers=[long], table="merged")
    assert tables(store) == []


def test_cogs_and_tiles_merge_alike(store: Database, tmp_path: Path) -> None:
    layer = LAYERS[0]
    grid = layer.grid.to_grid()
    cog = tmp_path / "a.tif"
    tags = {FINGERPRINT_TAG: layer.fingerprint}
    with write_cog(cog, grid, [Band("a")], CogFormat("float32", np.nan), tags=tags) as writer:
        writer.write(grid.whole, VALUES[layer.key][None])
    filed = layer.model_copy(update={"cog": str(cog), "tiles": False})
    for name, of in (("tiles", layer), ("cog", filed)):
        merge_layers(layers=[of.model_dump(mode="json")], parquet=tmp_path / f"{name}.parquet")
    found = [pq.read_table(tmp_path / f"{name}.parquet") for name in ("tiles", "cog")]
    assert found[0].num_rows > 1000
    assert found[0].equals(found[1])
