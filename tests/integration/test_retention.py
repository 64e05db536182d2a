"""Retention on real files and a real store: what goes, what stays, and what a kill leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from muster import storage
from muster.errors import InvalidInput
from muster.jobs.planning.plan_run import freeze_plan, open_run
from muster.jobs.planning.workflow import load_workflow
from muster.jobs.retention.retention import Clearance
from muster.model.plan import Decision
from muster.store import claims, retention, runs
from muster.store.records import RunState
from tests.work_bench import HEX, LATELY, LONG_AGO, PARAMS, Bench, age, plan_of

if TYPE_CHECKING:
    from pathlib import Path

    from muster.store.database import Database


@pytest.fixture
def bench(db: Database, tmp_path: Path) -> Bench:
    work = tmp_path / "work, 100% of it"
    work.mkdir()
    return Bench(db, work, {})


# -- runs -------------------------------------------------------------------------------------


def test_the_folder_of_a_run_that_ended_long_ago_goes_and_its_record_stays(bench: Bench) -> None:
    old, young = bench.run("old"), bench.run("young", LATELY)
    done = bench.clean()
    (removal,) = done.removals
    assert (removal.found.name, removal.run) == ("runs/old", "old")
    assert (removal.found.files, removal.found.bytes, done.bytes) == (3, 30, 30)
    assert removal.why == f"its run ended {LONG_AGO} days ago"
    assert not old.exists()
    assert young.is_dir()
    assert runs.read_run(bench.db, "old").state == RunState.FAILED
    assert runs.read_status(bench.db, "old")
    assert bench.events("old") == [f"runs/old removed: its run ended {LONG_AGO} days ago"]
    assert bench.clean() == Clearance(())


@pytest.mark.parametrize("state", ["open", "planned"])
def test_a_run_that_may_go_on_keeps_its_folder(bench: Bench, state: str) -> None:
    folder = bench.run("run", state=state)
    assert bench.gone() == set()
    assert folder.is_dir()


def test_a_run_with_an_open_submission_keeps_its_folder(bench: Bench) -> None:
    bench.run("open"), bench.run("ended")
    bench.attempt("open", None)
    bench.attempt("ended", "transient")
    assert bench.gone() == {"runs/ended"}


def test_a_run_that_was_cleared_lately_keeps_its_folder(bench: Bench) -> None:
    bench.run("run")
    bench.forget_signs_of_life("run", LATELY)
    assert bench.gone() == set()
    bench.forget_signs_of_life("run", LONG_AGO)
    assert bench.gone() == {"runs/run"}


def test_what_is_not_known_stays(bench: Bench, tmp_path: Path) -> None:
    """Another store's runs, another work directory's, and files that nobody here writes."""
    elsewhere = tmp_path / "elsewhere" / "runs" / "moved"
    elsewhere.mkdir(parents=True)
    bench.run("moved")
    with bench.db.transaction() as cursor:
        cursor.execute("UPDATE run SET work_uri = %s", (str(elsewhere),))
    for name in ("runs/strange/plan.json", "notes.txt", "bands/default/map.tif", "products/a.tif"):
        bench.file(name)
    assert bench.gone() == set()
    assert elsewhere.is_dir()


def test_never_is_never(bench: Bench) -> None:
    bench.run("old")
    bench.band("predict")
    bench.kept = {"runs": "never", "bands": "never"}
    assert bench.gone() == set()
    bench.kept = {"runs": "never", "bands": "39d"}
    assert bench.gone() == {f"bands/default/static/height/predict-{HEX}.tif"}
    bench.kept = {"runs": "41d"}
    assert bench.gone() == set()
    bench.kept = {"runs": "39d"}
    assert bench.gone() == {"runs/old"}


def test_a_dry_run_deletes_and_records_nothing(bench: Bench) -> None:
    bench.run("old")
    bench.band("cov")
    before = sorted(bench.work.rglob("*"))
    assert len(bench.gone(dry_run=True)) == 2
    assert sorted(bench.work.rglob("*")) == before
    assert bench.events("old") == []


def test_a_run_that_is_taken_up_meanwhile_stays(bench: Bench) -> None:
    folder = bench.run("run")
    planned = bench.clean(dry_run=True)
    claims.take_claim(bench.db, bench.batch("run").id)
    done = bench.act_later(planned)
    assert done.removals == ()
    assert done.notes == ("runs/run stays: its run goes on",)
    assert (folder / "plan.json").exists()
    assert bench.events("run") == []


def test_who_takes_a_run_up_waits_until_its_files_are_deleted(bench: Bench) -> None:
    bench.run("run")
    before = datetime.now(UTC)
    other = type(bench.db)(bench.db.url)
    for take_up in (
        lambda: claims.take_claim(other, bench.batch("run").id),
        lambda: runs.open_run(other, "run", workflow="w", params={}, work_uri="w"),
    ):
        with retention.holding_run(bench.db, "run", before) as held:
            assert held is not None
            thread = threading.Thread(target=take_up)
            thread.start()
            thread.join(0.5)
            assert thread.is_alive()
        thread.join(10)
        assert not thread.is_alive()
        with retention.holding_run(bench.db, "run", before) as held:
            assert held is None, "it has been taken up"
        bench.forget_signs_of_life("run")
    other.close()


KILLED = """
import os, signal, sys
from muster import storage
from muster.jobs.retention import retention
from muster.site import read_site
from muster.store.database import Database
retention.FILES_AT_ONCE = 1
delete, left = storage.delete_below, [int(sys.argv[3])]
def delete_and_die(uri, names):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    delete(uri, names)
storage.delete_below = delete_and_die
retention.clean_work(Database(sys.argv[1]), read_site(sys.argv[2]))
"""


@pytest.mark.parametrize("deletions", [0, 1, 2, 3])
def test_killed_in_the_middle_it_can_be_called_again(
    bench: Bench, tmp_path: Path, deletions: int
) -> None:
    folder, young, band = bench.run("old"), bench.run("young", LATELY), bench.band("aoa")
    site = tmp_path / "site.toml"
    site.write_text(
        f'work = "{bench.work}"\n[pools]\nlocal = {{ backend = "local", slots = 1 }}\n[placement]\n'
    )
    command = [sys.executable, "-c", KILLED, bench.db.url, str(site), str(deletions)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert folder.exists()
    bench.clean()
    assert not folder.exists()
    assert not band.exists()
    assert young.is_dir()
    assert len(bench.events("old")) == 1
    assert bench.clean() == Clearance(())


def test_what_cannot_be_removed_keeps_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run("a"), bench.run("b")
    prune = storage.prune

    def refuse(uri: str, name: str) -> None:
        if name == "runs/a":
            raise InvalidInput("cannot be read or written", where=name, got="planted")
        prune(uri, name)

    monkeypatch.setattr(storage, "prune", refuse)
    done = bench.clean()
    assert [removal.run for removal in done.removals] == ["b"]
    assert done.problems == ("runs/a: cannot be read or written; where: runs/a; got: planted",)


# -- links ------------------------------------------------------------------------------------


def test_no_link_leads_out_of_the_work_directory(bench: Bench, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    names = ["plan.json", f"predict-{HEX}.tif", ".x.part"]
    for name in names:
        (maps / name).write_text("mine")
        age(maps / name, LONG_AGO)
    inside = bench.run("inside")
    (inside / "maps").symlink_to(maps)
    (inside / "plan").symlink_to(maps / "plan.json")
    bench.run("outside")
    for path in sorted((bench.work / "runs" / "outside").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (bench.work / "runs" / "outside").rmdir()
    (bench.work / "runs" / "outside").symlink_to(maps)
    bench.file("bands/default/x").unlink()
    (bench.work / "bands" / "default" / "static").symlink_to(maps)
    (bench.work / "pools").symlink_to(maps)

    done = bench.clean()
    assert {removal.found.name for removal in done.removals} == {"runs/inside"}
    assert not inside.exists()
    assert sorted(path.name for path in maps.iterdir()) == sorted(names)
    assert set(done.notes) == {
        f"{name} is a link, which is not followed"
        for name in ("runs/outside", "bands/default/static", "pools")
    }


def test_a_work_directory_that_is_reached_by_a_link_is_cleaned(
    bench: Bench, tmp_path: Path
) -> None:
    folder = bench.run("old")
    link = tmp_path / "link"
    link.symlink_to(bench.work)
    bench.work = link
    assert bench.gone() == {"runs/old"}
    assert not folder.exists()


# -- bands ------------------------------------------------------------------------------------


def test_a_band_goes_when_nothing_has_made_or_used_it_for_long(bench: Bench) -> None:
    old, young = bench.band("predict"), bench.band("cov", LATELY)
    (removal,) = bench.clean().removals
    assert removal.why == f"made {LONG_AGO} days ago, and not used for 30d"
    assert not old.exists()
    assert young.exists()
    assert old.parent.is_dir(), "a step may be about to write there"


@pytest.mark.parametrize(
    ("state", "days", "stays"),
    [("planned", LONG_AGO, True), ("failed", LATELY, True), ("failed", LONG_AGO, False)],
)
@pytest.mark.parametrize("how", ["batch", "reused"])
def test_a_band_stays_as_long_as_a_run_uses_it(
    bench: Bench, how: str, state: str, days: float, stays: bool
) -> None:
    band = bench.band("predict")
    bench.run("run", days, state)
    if how == "batch":
        runs.create_batches(bench.db, [("height", bench.batch("run", band))])
    else:
        # What was decided to be reused is in no batch.
        storage.write_text(
            str(bench.work / "runs" / "run" / "plan.json"),
            plan_of(bench, Decision.REUSED, band).model_dump_json(),
        )
        freeze_plan(bench.db, bench.site, "run")
        with bench.db.transaction() as cursor:
            cursor.execute(
                "UPDATE run SET state = %s, planned_at = now() - %s, ended_at = now() - %s",
                (state, timedelta(days=days), timedelta(days=days)),
            )
    bench.clean()
    assert band.exists() is stays


def test_no_band_goes_while_a_run_decides_what_it_reuses(bench: Bench) -> None:
    band = bench.band("predict")
    open_run(bench.db, bench.site, load_workflow("trait_inference"), "new", PARAMS)
    done = bench.clean()
    assert (done.removals, band.exists()) == ((), True)
    (note,) = done.notes
    assert note.startswith("1 band rasters stay for now: new is being planned")
    runs.end_run(bench.db, "new", RunState.FAILED, "over")
    bench.clean()
    assert not band.exists()


def test_a_cleared_inspection_decides_anew(bench: Bench) -> None:
    """Its run has ended, and is not open again until the new plan is frozen."""
    band = bench.band("predict")
    inspection = open_run(bench.db, bench.site, load_workflow("trait_inference"), "run", PARAMS)
    claims.take_claim(bench.db, inspection)
    runs.end_run(bench.db, "run", RunState.FAILED, "over")
    assert bench.gone(dry_run=True), "its inspection was looked at before it ended"
    planned = bench.clean(dry_run=True)
    claims.take_claim(bench.db, inspection, fresh=True)
    assert bench.act_later(planned).removals == ()
    assert band.exists()


def test_a_run_that_opens_after_the_look_keeps_its_bands(bench: Bench) -> None:
    band, other = bench.band("predict"), bench.band("cov")
    planned = bench.clean(dry_run=True)
    assert len(planned.removals) == 2
    bench.run("run", state="planned")
    runs.create_batches(bench.db, [("height", bench.batch("run", band))])
    bench.act_later(planned)
    assert (band.exists(), other.exists()) == (True, False)


def test_a_run_that_opens_waits_until_the_bands_are_deleted(bench: Bench) -> None:
    other = type(bench.db)(bench.db.url)
    thread = threading.Thread(
        target=lambda: runs.open_run(other, "new", workflow="w", params={}, work_uri="w")
    )
    with retention.holding_plans(bench.db, datetime.now(UTC), "x") as use:
        assert use.planning == ()
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join(10)
    other.close()
    assert retention.read_band_use(bench.db, datetime.now(UTC), "x").planning == ("new",)
