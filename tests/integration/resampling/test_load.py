"""Loads: whole or not seen at all, whatever is killed, and by one process at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg2
import pytest

from muster.errors import (
    ConfigError,
    InvalidInput,
    MissingInput,
    SoftwareError,
    Superseded,
    Transient,
)
from muster.jobs.retention.retention import clean_work
from muster.raster.grid import Window
from muster.resampling.layer import Layer
from muster.resampling.stores import load_rows
from muster.resampling.stores.load import open_load
from muster.resampling.stores.read import open_layer, read_layer_window
from muster.resampling.stores.recorded import read_layer, record_layer
from muster.site import Retention, Site
from muster.store.datasets import list_datasets, read_dataset
from muster.store.retention import drop_left_load
from tests.integration.resampling.layers import bands, cut, make_layer, make_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.resampling.config.methods import Sink
    from muster.store.database import Database

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[3]
BOTH = pytest.mark.parametrize("store", ["tiles", "rows"])
TILES = "SELECT tile_row, tile_col, height, width, checksum, data FROM tile ORDER BY 1, 2"
ROWS = "SELECT * FROM resampled.elevation ORDER BY row_idx, col_idx"


def ask(db: Database, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with db.transaction() as cursor:
        cursor.execute(query, values or None)
        return [
            tuple(bytes(v) if isinstance(v, memoryview) else v for v in row)
            for row in cursor.fetchall()
        ]


def load_all(db: Database, layer: Layer, store: Sink, values: Any, width: int = 700) -> int:
    """Load what is missing; return how many windows that were."""
    with open_load(db, layer, store) as load:
        windows = load.missing_windows(bands(layer, width))
        for window in windows:
            load.write(window, cut(values, window))
        load.finish()
    return len(windows)


def content(db: Database, store: str) -> list[tuple[Any, ...]]:
    return ask(db, TILES if store == "tiles" else ROWS)


@dataclass
class Loader:
    process: subprocess.Popen[str]

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def loader(db: Database, *arguments: str) -> Iterator[Loader]:
    command = [sys.executable, "-m", "tests.integration.resampling.loading", db.url, *arguments]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        yield Loader(process)
    finally:
        process.kill()
        process.communicate()


@BOTH
@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
)
def test_what_is_loaded_reads_back_equal(db: Database, store: Sink, dtype: str) -> None:
    layer = make_layer(dtype)
    values = make_values(layer)
    load_all(db, layer, store, values, 256)
    found = read_layer_window(layer, db, Window(0, 0, 600, 700), store)
    assert found.dtype == layer.dtype
    np.testing.assert_array_equal(found, values)


def test_a_row_says_where_the_centre_of_its_cell_is(db: Database) -> None:
    layer = make_layer("int16")
    values = make_values(layer)
    load_all(db, layer, "rows", values)
    rows = content(db, "rows")
    assert len(rows) == (values != -32768).sum()
    for row, col, x, y, value in rows[:: len(rows) // 50]:
        assert (x, y) == (-70_000 + 1000 * (col + 0.5), 30_000 - 500 * (row + 0.5))
        assert value == values[row, col]
    (comment,) = ask(db, "SELECT obj_description('resampled.elevation'::regclass)")[0]
    assert "dataset elevation" in comment
    assert layer.fingerprint in comment
    assert "EPSG:6933" in comment
    keys = ask(db, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'resampled'")
    assert [key[0].endswith("(row_idx, col_idx)") for key in keys] == [True]


@BOTH
def test_a_dataset_without_any_value_is_loaded(db: Database, store: Sink) -> None:
    layer = make_layer()
    values = np.full((600, 700), np.nan, "float32")
    load_all(db, layer, store, values)
    assert np.isnan(read_layer_window(layer, db, Window(0, 0, 600, 700), store)).all()
    assert ask(db, "SELECT sum(pixels) FROM load_window") == [(0,)]


@BOTH
def test_infinities_are_no_values_in_any_store(db: Database, store: Sink) -> None:
    layer = make_layer("float64")
    values = make_values(layer)
    values[0, :3] = [np.inf, -np.inf, np.nan]
    load_all(db, layer, store, values)
    found = read_layer_window(layer, db, Window(0, 0, 1, 4), store)
    np.testing.assert_array_equal(found[0], [-9999, -9999, -9999, values[0, 3]])


@BOTH
def test_what_a_killed_process_has_left_is_gone_on_with(db: Database, store: Sink) -> None:
    with loader(db, store, "a", "3") as first:
        assert [first.line(), first.line()] == ["loads", "inside"]
        first.process.kill()
        first.process.wait()
    assert ask(db, "SELECT count(*) FROM load_window") == [(2,)], "the third was not committed"
    with pytest.raises(MissingInput):
        read_layer_window(make_layer(fingerprint="a" * 64), db, Window(0, 0, 1, 1), store)
    entered = ask(db, "SELECT load, row, col, loaded_at FROM load_window ORDER BY row, col")
    with loader(db, store, "a") as second:
        assert [second.line(), second.line()] == ["loads", "loaded"]
    after = ask(db, "SELECT load, row, col, loaded_at FROM load_window ORDER BY row, col")
    assert after[:2] == entered, "what was in the ledger was loaded again"
    resumed = content(db, store)
    layer = make_layer(fingerprint="a" * 64)
    with open_load(db, layer, store, again=True) as load:
        values = make_values(layer, seed=ord("a"))
        for window in bands(layer):
            load.write(window, cut(values, window))
        load.finish()
    assert resumed == content(db, store)
    assert len(resumed) > 8


@BOTH
def test_another_fingerprint_begins_afresh(db: Database, store: Sink) -> None:
    with loader(db, store, "a", "3") as first:
        assert [first.line(), first.line()] == ["loads", "inside"]
    with loader(db, store, "b") as second:
        assert [second.line(), second.line()] == ["loads", "loaded"]
    layer = make_layer(fingerprint="b" * 64)
    found = read_layer_window(layer, db, Window(0, 0, 600, 700), store)
    np.testing.assert_array_equal(found, make_values(layer, seed=ord("b")))
    assert ask(db, "SELECT fingerprint, state FROM load") == [("b" * 64, "done")]
    assert ask(db, "SELECT count(DISTINCT load) FROM load_window") == [(1,)]
    tables = ask(db, "SELECT tablename FROM pg_tables WHERE schemaname = 'resampled'")
    assert tables == ([("elevation",)] if store == "rows" else [])


@BOTH
def test_of_two_processes_one_loads_and_one_waits(db: Database, store: Sink) -> None:
    with loader(db, store, "a") as one, loader(db, store, "a") as two:
        said = sorted(tuple(p.process.communicate(timeout=60)[0].splitlines()) for p in (one, two))
    assert said == [("done already",), ("loads", "loaded")]
    layer = make_layer(fingerprint="a" * 64)
    found = read_layer_window(layer, db, Window(0, 0, 600, 700), store)
    np.testing.assert_array_equal(found, make_values(layer, seed=ord("a")))


def test_who_has_waited_long_enough_stops_and_says_for_whom(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "muster")
    with loader(db, "tiles", "a", "2") as first:
        assert [first.line(), first.line()] == ["loads", "inside"]
        layer = make_layer(fingerprint="a" * 64)
        with (
            pytest.raises(Transient, match=f":{first.process.pid}, waited for 0.6 s"),
            open_load(db, layer, "tiles", lock_wait_s=0.6),
        ):
            pass
        with open_load(db, layer, "rows", lock_wait_s=0) as other:
            assert not other.done, "another store is loaded beside it"
    assert [r.message for r in caplog.records if "waiting" in r.message] == [
        f"tiles of dataset elevation: waiting up to 0.6 s for {_host()}:{first.process.pid},"
        " which loads it now"
    ]


def _host() -> str:
    import socket

    return socket.gethostname()


def test_a_lost_lock_lets_nobody_write_beside_the_successor(db: Database) -> None:
    layer = make_layer()
    values = make_values(layer)
    first, *others = bands(layer)
    with open_load(db, layer, "rows") as load:
        load.write(first, cut(values, first))
        ask(
            db,
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        with open_load(db, layer, "rows", lock_wait_s=5) as successor:
            assert successor.missing_windows([first, *others]) == others
            with pytest.raises(Superseded):
                load.write(others[0], cut(values, others[0]))
            with pytest.raises(Superseded):
                load.finish()
            for window in others:
                successor.write(window, cut(values, window))
            successor.finish()
    np.testing.assert_array_equal(
        read_layer_window(layer, db, Window(0, 0, 600, 700), "rows"), values
    )


@BOTH
def test_windows_of_another_size_take_up_what_is_there(db: Database, store: Sink) -> None:
    layer = make_layer()
    values = make_values(layer)
    middle = Window(256, 256, 256, 256)
    with open_load(db, layer, store) as load:
        load.write(middle, cut(values, middle))
    with open_load(db, layer, store) as load:
        whole = Window(0, 0, 600, 700)
        missing = load.missing_windows([whole])
        assert missing == [
            Window(0, 0, 256, 700), Window(256, 0, 256, 256), Window(256, 512, 256, 188),
            Window(512, 0, 88, 700),
        ]  # fmt: skip
        with pytest.raises(SoftwareError, match="a part of the window has been loaded"):
            load.write(whole, values)
        for window in missing:
            load.write(window, cut(values, window))
        load.write(middle, np.zeros((256, 256), "float32"))  # has been loaded: nothing is done
        load.finish()
    np.testing.assert_array_equal(
        read_layer_window(layer, db, Window(0, 0, 600, 700), store), values
    )


@BOTH
def test_threads_may_write_at_once(db: Database, store: Sink) -> None:
    layer = make_layer()
    values = make_values(layer)
    failures: list[Exception] = []
    with open_load(db, layer, store) as load:

        def write(windows: list[Window]) -> None:
            try:
                for window in windows:
                    load.write(window, cut(values, window))
            except Exception as error:
                failures.append(error)

        every = list(bands(layer, 256))
        threads = [threading.Thread(target=write, args=(every[n::2] + every,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        load.finish()
    assert not failures
    np.testing.assert_array_equal(
        read_layer_window(layer, db, Window(0, 0, 600, 700), store), values
    )


@BOTH
def test_a_load_that_is_not_whole_takes_no_effect(db: Database, store: Sink) -> None:
    layer = make_layer()
    values = make_values(layer)
    window = next(iter(bands(layer)))
    with open_load(db, layer, store) as load:
        load.write(window, cut(values, window))
        with pytest.raises(SoftwareError, match="not whole"):
            load.finish()
    assert list_datasets(db) == []


@BOTH
def test_a_reader_sees_the_old_load_or_the_new(db: Database, store: Sink) -> None:
    old, new = (make_layer(fingerprint=letter * 64) for letter in "ab")
    ones, twos = (np.full((600, 700), n, "float32") for n in (1, 2))
    load_all(db, old, store, ones)
    stop = threading.Event()
    seen: list[tuple[str, float]] = []

    def read() -> None:
        while not stop.is_set():
            layer = read_layer(db, "elevation")
            try:
                found = read_layer_window(layer, db, Window(0, 0, 600, 700), store)
            except MissingInput as error:
                seen.append((str(error), -1.0))
                continue
            assert (found == found[0, 0]).all()
            seen.append((layer.fingerprint[0], float(found[0, 0])))

    with open_layer(old, db, store) as reader:
        thread = threading.Thread(target=read)
        with open_load(db, new, store) as load:
            thread.start()
            for window in load.missing_windows(bands(new, 256)):
                load.write(window, cut(twos, window))
                assert (reader.read(Window(5, 5, 300, 300)) == 1).all()
            load.finish()
            stop.set()
        thread.join()
        with pytest.raises(MissingInput, match="loaded anew"):
            reader.read(Window(5, 5, 300, 300))
    assert {pair for pair in seen if pair[1] > 0} <= {("a", 1.0), ("b", 2.0)}
    assert all("loaded anew" in text for text, value in seen if value < 0)
    assert ("a", 1.0) in seen
    assert ask(db, "SELECT count(*) FROM load") == [(1,)]
    assert (read_layer_window(new, db, Window(0, 0, 600, 700), store) == 2).all()


@BOTH
def test_what_is_loaded_is_not_loaded_again(db: Database, store: Sink) -> None:
    layer = make_layer()
    values = make_values(layer)
    assert load_all(db, layer, store, values) == 3
    with open_load(db, layer, store) as load:
        assert load.done
        assert load.missing_windows(bands(layer)) == []
        load.finish()
    with open_load(db, layer, store, again=True) as load:
        assert len(load.missing_windows(bands(layer))) == 3
    if store == "rows":
        load_all(db, make_layer(table="another"), store, values)
        ask(db, "SELECT 1 FROM resampled.another LIMIT 1")
        with pytest.raises(psycopg2.errors.UndefinedTable):
            ask(db, "SELECT 1 FROM resampled.elevation")
        with db.transaction() as cursor:
            cursor.execute("DROP TABLE resampled.another")
        assert load_all(db, make_layer(table="another"), store, values) == 3


FOREIGN = {
    "a table by hand": "CREATE TABLE resampled.elevation (precious text)",
    "a view": "CREATE VIEW resampled.elevation AS SELECT 1 AS precious",
    "another dataset's": "CREATE TABLE resampled.elevation (precious text);"
    "COMMENT ON TABLE resampled.elevation IS 'Muster: load 7 of dataset slope'",
}


@pytest.mark.parametrize("made", FOREIGN.values(), ids=FOREIGN)
def test_a_table_that_no_load_has_made_is_not_touched(db: Database, made: str) -> None:
    layer = make_layer()
    values = make_values(layer)
    with open_load(db, layer, "rows") as load:
        for window in bands(layer):
            load.write(window, cut(values, window))
        with db.transaction() as cursor:
            cursor.execute(made)
        with pytest.raises(InvalidInput, match="was not made by a load of this dataset"):
            load.finish()
    with (
        pytest.raises(InvalidInput, match="name another table"),
        open_load(db, layer, "rows"),
    ):
        pass
    ask(db, "SELECT precious FROM resampled.elevation")
    assert list_datasets(db) == [], "the failed switch left a part of itself"
    with db.transaction() as cursor:
        cursor.execute(f"DROP {'VIEW' if 'VIEW' in made else 'TABLE'} resampled.elevation")
    with open_load(db, layer, "rows") as load:
        assert load.missing_windows(bands(layer)) == []
        load.finish()
    np.testing.assert_array_equal(
        read_layer_window(layer, db, Window(0, 0, 600, 700), "rows"), values
    )


def test_what_a_view_needs_is_kept_and_said(db: Database) -> None:
    load_all(db, make_layer(fingerprint="a" * 64), "rows", make_values(make_layer()))
    with db.transaction() as cursor:
        cursor.execute("CREATE VIEW high AS SELECT * FROM resampled.elevation WHERE value > 1")
    with pytest.raises(InvalidInput, match="view high depends on table"):
        load_all(db, make_layer(fingerprint="b" * 64), "rows", make_values(make_layer()))
    ask(db, "SELECT * FROM high LIMIT 1")
    assert read_layer(db, "elevation").fingerprint == "a" * 64


def test_a_reader_who_does_not_end_holds_up_the_switch_for_a_while_only(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.store.loads._SWITCH_WAIT", "200ms")
    old, new = (make_layer(fingerprint=letter * 64) for letter in "ab")
    values = make_values(old)
    load_all(db, old, "rows", values)
    with open_load(db, new, "rows") as load:
        for window in bands(new):
            load.write(window, cut(values, window))
        with db.transaction() as cursor:
            cursor.execute("SELECT count(*) FROM resampled.elevation")
            with pytest.raises(Transient, match=r"somebody has been using .* resampled.elevation"):
                load.finish()
        assert read_layer(db, "elevation") == old
        load.finish()
    assert read_layer(db, "elevation") == new


@BOTH
def test_a_record_that_is_held_for_long_is_no_store_that_is_down(
    db: Database, monkeypatch: pytest.MonkeyPatch, store: Sink
) -> None:
    monkeypatch.setattr("muster.store.loads._SWITCH_WAIT", "200ms")
    old, new = (make_layer(fingerprint=letter * 64) for letter in "ab")
    values = make_values(old)
    load_all(db, old, store, values)
    for held in ("dataset", "holding", "load"):
        with open_load(db, new, store) as load:
            for window in load.missing_windows(bands(new)):
                load.write(window, cut(values, window))
            with db.transaction() as cursor:
                cursor.execute(f"SELECT 1 FROM {held} FOR UPDATE")
                with pytest.raises(Transient, match="somebody has been using") as told:
                    load.finish()
            assert type(told.value) is Transient, held
    load_all(db, new, store, values)
    assert read_layer(db, "elevation") == new


@pytest.mark.parametrize("table", ['a "quoted" table', "x; DROP TABLE dataset; --", "naïve 'x'"])
def test_any_name_of_a_table_is_only_a_name(db: Database, table: str) -> None:
    for letter in "ab":
        layer = make_layer(fingerprint=letter * 64, table=table, key='it\'s "x"')
        values = make_values(layer, seed=ord(letter))
        load_all(db, layer, "rows", values)
        found = read_layer_window(layer, db, Window(0, 0, 600, 700), "rows")
        np.testing.assert_array_equal(found, values)
    tables = ask(db, "SELECT tablename FROM pg_tables WHERE schemaname = 'resampled'")
    assert tables == [(table,)]


@pytest.mark.parametrize("store", ["cog", "register"])
def test_only_tiles_and_rows_are_loaded(db: Database, store: Sink) -> None:
    with pytest.raises(ConfigError, match="tiles or rows"), open_load(db, make_layer(), store):
        pass
    with pytest.raises(ConfigError, match="no table"):
        load_all(db, make_layer(table=None), "rows", make_values(make_layer()))


@pytest.mark.parametrize(
    "window",
    [Window(0, 0, 200, 700), Window(0, 10, 256, 690), Window(512, 0, 256, 700),
     Window(-256, 0, 256, 700)],
)  # fmt: skip
def test_windows_are_made_of_whole_tiles(db: Database, window: Window) -> None:
    with (
        open_load(db, make_layer(), "tiles") as load,
        pytest.raises(SoftwareError, match="whole tiles"),
    ):
        load.write(window, np.zeros((window.height, window.width), "float32"))


@pytest.mark.parametrize("values", [np.zeros((256, 700)), np.zeros((256, 699), "float32")])
def test_values_that_do_not_fit_are_refused(db: Database, values: Any) -> None:
    with (
        open_load(db, make_layer(), "tiles") as load,
        pytest.raises(SoftwareError, match="the values are"),
    ):
        load.write(Window(0, 0, 256, 700), values)


def test_what_fails_while_rows_are_made_is_told_as_what_it_is(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError

    layer = make_layer()
    window = next(iter(bands(layer)))
    with open_load(db, layer, "rows") as load:
        with monkeypatch.context() as patch:
            patch.setattr(load_rows, "empty_rows", fail)
            with pytest.raises(ZeroDivisionError):
                load.write(window, cut(make_values(layer), window))
        load.write(window, cut(make_values(layer), window))


@BOTH
def test_what_was_interrupted_long_ago_is_cleaned_and_what_is_loaded_stays(
    db: Database, tmp_path: Path, store: Sink
) -> None:
    site = Site.model_validate(
        {"name": "s", "work": str(tmp_path), "pools": {}, "placement": {}}
    )  # fmt: skip
    old, new = (make_layer(fingerprint=letter * 64) for letter in "ab")
    values = make_values(old)
    load_all(db, old, store, values)
    window = next(iter(bands(new)))
    whole = content(db, store)
    later, sooner = (datetime.now(UTC) + timedelta(days=days) for days in (31.1, 29))
    with open_load(db, new, store) as load:
        load.write(window, cut(values, window))
        assert clean_work(db, site, now=later).removals == (), "somebody loads it"
    assert clean_work(db, site, now=sooner).removals == ()
    never = site.model_copy(update={"retention": Retention(runs="never")})
    assert clean_work(db, never, now=later).removals == ()
    (planned,) = clean_work(db, site, now=later, dry_run=True).removals
    assert (planned.found.name, planned.why) == (
        f"{store} of dataset elevation", "interrupted, and left alone for 31 days",
    )  # fmt: skip
    assert planned.found.bytes > 10_000
    assert planned.load is not None
    with open_load(db, new, store):
        assert not drop_left_load(db, planned.load, later), "it was taken up meanwhile"
    at = planned.load.active_at
    assert not drop_left_load(db, planned.load, at), "it was gone on with meanwhile"
    assert clean_work(db, site, now=later).removals == (planned,)
    assert clean_work(db, site, now=later).removals == ()
    assert ask(db, "SELECT fingerprint, state FROM load") == [("a" * 64, "done")]
    assert content(db, store) == whole
    tables = ask(db, "SELECT tablename FROM pg_tables WHERE schemaname = 'resampled'")
    assert tables == ([("elevation",)] if store == "rows" else [])
    found = read_layer_window(old, db, Window(0, 0, 600, 700), store)
    np.testing.assert_array_equal(found, values)


def test_what_cannot_be_cleaned_is_told_and_the_rest_goes(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.store.retention._LOCK_WAIT", "100ms")
    site = Site.model_validate({"name": "s", "work": str(tmp_path), "pools": {}, "placement": {}})
    for key in ("read", "unread"):
        with open_load(db, make_layer(key=key, table=key), "rows"):
            pass
    later = datetime.now(UTC) + timedelta(days=31)
    ((table,),) = ask(db, "SELECT staging FROM load WHERE dataset = 'read'")
    with db.transaction() as cursor:
        cursor.execute(f'SELECT count(*) FROM resampled."{table}"')
        done = clean_work(db, site, now=later)
    assert [removal.found.name for removal in done.removals] == ["rows of dataset unread"]
    assert "somebody uses what an interrupted load has brought" in done.problems[0]
    assert len(clean_work(db, site, now=later).removals) == 1


def test_a_layer_is_recorded_with_where_it_lies(db: Database) -> None:
    layer = make_layer(
        key="elevation@2024-03", registered=True, cog="/out/elevation.tif", table=None, tiles=False
    )
    record_layer(db, layer, "run-1")
    record_layer(db, layer)
    (found,) = list_datasets(db)
    assert (Layer.model_validate(found.document), found.run_id) == (layer, "run-1")
    assert {h.store: h.place for h in found.holdings} == {
        "register": "/data/elevation.tif", "cog": "/out/elevation.tif",
    }  # fmt: skip
    assert ask(db, "SELECT name, interval_label, nodata FROM dataset") == [
        ("elevation", "2024-03", None)
    ]
    nan = layer.dataset.model_copy(update={"nodata": float("nan")})
    record_layer(db, layer.model_copy(update={"dataset": nan}))
    assert read_layer(db, "elevation@2024-03").dataset.nodata is None
    with pytest.raises(MissingInput, match="expected: elevation@2024-03"):
        read_dataset(db, "elevation@2024-04")
