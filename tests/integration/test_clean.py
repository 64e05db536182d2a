"""What people see of retention: the command, its leftovers, a run that is gone, and S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from muster import storage
from muster.cli import main
from muster.errors import InvalidInput
from muster.jobs.planning.plan_run import freeze_plan, open_run
from muster.jobs.planning.workflow import load_workflow
from muster.jobs.retention.retention import Clearance, clean_work
from muster.model.plan import Decision
from muster.model.resources import Resources
from muster.site import Site
from muster.store import batches, claims, runs
from muster.store.records import RunState
from operators.run import freeze
from tests.s3_server import empty_bucket
from tests.work_bench import HEX, PARAMS, Bench, age, plan_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.store.database import Database


@pytest.fixture
def bench(db: Database, tmp_path: Path) -> Bench:
    work = tmp_path / "work, 100% of it"
    work.mkdir()
    return Bench(db, work, {})


def writer(pid: object) -> str:
    """Name a process of this machine as temporary names do."""
    return f"{storage.writer_name().partition('-')[0]}-{pid}"


# -- what dead processes left -------------------------------------------------------------------


def test_what_dead_processes_left_is_swept_and_what_somebody_writes_is_not(
    bench: Bench,
) -> None:
    code = "import os; from muster import storage; print(os.getpid(), storage.stage('/w/x').path)"
    dead_pid, dead = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    mine = storage.temporary_sibling(Path("/w/x")).name
    host = mine.split(".")[-3].partition("-")[0]
    dead, foreign = Path(dead).name, mine.replace(host, "0" * 12)
    swept = [
        bench.file(f"bands/a/{dead}", 1.1),
        bench.file(f"bands/b/{foreign}", 7.1),
        bench.file(f"runs/strange/{dead}", 1.1),
        bench.file("bands/a/.muster-draft-x1/overview/1.tif", 1.1).parent.parent,
        bench.file(
            f"pools/p/scratch/muster-scratch-{writer(dead_pid)}-a/scratch/big.tif", 1.1
        ).parents[1],
        bench.file(f"doctor/{'a' * 32}/probe.json", 1.1).parent,
        bench.file(f"doctor-{'b' * 32}", 1.1),
    ]
    empty = bench.work / "pools" / "p" / "scratch" / f"muster-scratch-{writer(dead_pid)}-b"
    (empty / "scratch").mkdir(parents=True)
    age(empty / "scratch", 1.1)
    stay = [
        bench.file(f"bands/c/{dead}", 0.9),
        bench.file(f"bands/c/{mine}", 20),
        bench.file(f"bands/d/{foreign}", 6.9),
        bench.file("bands/b/.muster-draft-x2/1.tif", 0.9),
        bench.file(f"pools/p/scratch/muster-scratch-{writer(os.getpid())}-a/task.json", 20),
        bench.file(f"pools/p/scratch/muster-scratch-{writer(dead_pid)}-c/task.json", 0.9),
        bench.file("pools/p/slot-0"),
        bench.file(f"doctor/{'c' * 32}/probe.json", 0.9),
    ]
    gone = bench.gone()
    assert gone == {str(path.relative_to(bench.work)) for path in [*swept, empty]}
    assert [path for path in [*swept, empty] if path.exists()] == []
    assert [path for path in stay if not path.exists()] == []
    assert bench.clean() == Clearance(())


# -- what people then see -----------------------------------------------------------------------


def test_a_run_whose_folder_is_gone_is_told_in_a_line(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUSTER_STORE_URL", bench.db.url)
    bench.run("old")
    bench.attempt("old", "transient")
    bench.clean()

    assert main(["logs", "old", "height"]) == 66
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "the logs were removed by retention on 2" in told.err
    assert main(["status", "old"]) == 0
    assert "logs were removed by retention on 2" in capsys.readouterr().out
    assert main(["status", "old", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["work_removed_at"]
    assert main(["reconcile", "--silent-for", "0"]) == 0
    assert capsys.readouterr().out == "nothing is unattended\n"

    # Cleared, it has a log again beside the one that is gone.
    claim = claims.take_claim(bench.db, bench.batch("old").id, fresh=True)
    (element,) = batches.read_elements(bench.db, claim.batch_id)
    log_uri = bench.batch("old").log_uri(0, 2)
    batches.intend_submission(bench.db, claim, {element.id: (2, Resources(), log_uri)})
    storage.write_text(log_uri, "new\n")
    assert main(["logs", "old", "height"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("removed by retention on 2")
    assert lines[3] == "new"


def test_reconciling_a_run_whose_folder_somebody_removed_ends_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUSTER_STORE_URL", bench.db.url)
    folder = bench.run("run", state="planned")
    bench.attempt("run", None)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert main(["reconcile", "--silent-for", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "run: ended, nobody went on with it"
    assert runs.read_run(bench.db, "run").state == RunState.CANCELLED


def test_planning_a_run_whose_plan_is_gone_says_what_to_clear(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run("trait_inference.old")
    bench.clean()
    with pytest.raises(InvalidInput, match=r"removed by retention.*do: clear the task inspect"):
        freeze_plan(bench.db, bench.site, "trait_inference.old")
    monkeypatch.setenv("MUSTER_STORE_URL", bench.db.url)
    dag_run = SimpleNamespace(dag_id="trait_inference", run_id="old")
    context: Any = {"dag_run": dag_run}
    with pytest.raises(AirflowFailException, match="clear the task inspect"):
        freeze(context)

    inspection = open_run(
        bench.db, bench.site, load_workflow("trait_inference"), "trait_inference.old", PARAMS
    )
    assert batches.read_spec(bench.db, inspection).looks
    storage.write_text(
        storage.join(runs.read_run(bench.db, "trait_inference.old").work_uri, "plan.json"),
        plan_of(bench, Decision.REUSED, bench.band("cov")).model_dump_json(),
    )
    assert len(freeze_plan(bench.db, bench.site, "trait_inference.old")) == 1


def test_the_command_says_what_goes_and_why_and_then_finds_nothing(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MUSTER_STORE_URL", bench.db.url)
    site = tmp_path / "site.toml"
    site.write_text(
        f'work = "{bench.work}"\n[pools]\nlocal = {{ backend = "local", slots = 1 }}\n'
        '[placement]\n[retention]\nruns = "7d"\n'
    )
    bench.run("old", 8)
    bench.file("runs/old/big", size=3 << 20)
    assert main(["clean", "--site", str(site), "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "     3 MiB  runs/old: its run ended 8 days ago",
        "1 would be removed, 3 MiB in all",
    ]
    assert main(["clean", "--site", str(site), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["removals"] == [
        {
            "name": "runs/old",
            "kind": "run",
            "run": "old",
            "why": "its run ended 8 days ago",
            "files": 4,
            "bytes": (3 << 20) + 30,
        }
    ]
    assert main(["clean", "--site", str(site)]) == 0
    assert capsys.readouterr().out == "nothing to clean\n"


# -- S3 ---------------------------------------------------------------------------------------


@pytest.fixture
def bucket(s3_server: str) -> Iterator[Any]:
    with empty_bucket(s3_server, "work") as client:
        yield client


def test_a_work_directory_on_s3_is_cleaned_alike(db: Database, bucket: Any) -> None:
    site = Site.model_validate(
        {"name": "s3", "work": "s3://work/muster", "pools": {}, "placement": {}}
    )
    for run, state in (("old", RunState.SUCCEEDED), ("live", None)):
        runs.open_run(db, run, workflow="w", params={}, work_uri=f"s3://work/muster/runs/{run}")
        runs.record_plan(db, run, [], {"bands": [f"{run}-{HEX}.tif"]})
        if state:
            runs.end_run(db, run, state, "over")
    for name in ("runs/old/plan.json", "runs/old/a/log", "runs/live/plan.json", "runs/older/x"):
        storage.write_text(f"s3://work/muster/{name}", "x")
    for run in ("old", "live"):
        storage.write_text(f"s3://work/muster/bands/default/static/t/{run}-{HEX}.tif", "x")
    storage.write_text("s3://work/muster2/runs/old/plan.json", "x")

    assert clean_work(db, site).removals == ()
    later = datetime.now(UTC) + timedelta(days=31)
    done = clean_work(db, site, now=later)
    assert {removal.found.name for removal in done.removals} == {
        "runs/old",
        f"bands/default/static/t/old-{HEX}.tif",
    }
    left = {entry.name for entry in storage.walk("s3://work")}
    assert left == {
        "muster/runs/live/plan.json",
        "muster/runs/older/x",
        f"muster/bands/default/static/t/live-{HEX}.tif",
        "muster2/runs/old/plan.json",
    }
    assert clean_work(db, site, now=later).removals == ()
