"""The campaign keeps what its batches were submitted with and what they wrote."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from muster import storage
from muster.backends.local import LocalBackend
from muster.jobs.supervision.retry import BackOff
from muster.jobs.supervision.supervisor import Supervisor
from muster.mocks.campaign import batch_logs
from muster.mocks.campaign.batch_logs import name_batch, write_batch_logs
from muster.store import batches, claims, runs
from tests.batches import add_steps_to_path, make_batch
from tests.s3_server import empty_bucket

if TYPE_CHECKING:
    from pathlib import Path

    from muster.model.batch import Batch
    from muster.store.database import Database
    from muster.store.records import Run


@pytest.fixture(autouse=True)
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    add_steps_to_path(monkeypatch)


def run_batch(db: Database, batch: Batch, *, fresh: bool = False) -> Run:
    if not fresh:
        runs.open_run(db, "run", workflow="test", params={}, work_uri=batch.work_uri)
        runs.create_batches(db, [("batch_0007", batch)])
    claim = claims.take_claim(db, batch.id, fresh=fresh)
    asyncio.run(Supervisor(db, LocalBackend(), claim, back_off=BackOff(0.01, 0.02)).run())
    return runs.read_run(db, "run")


def perform(folder: Path, *acts: list[str]) -> Batch:
    inputs = [
        {"name": f"e{n}", "acts": act, "ledger": str(folder / "ledger")}
        for n, act in enumerate(acts)
    ]
    return make_batch(folder, inputs, step="test.perform")


@pytest.mark.slow
def test_scripts_logs_and_errors_are_kept(db: Database, tmp_path: Path) -> None:
    batch = perform(tmp_path, ["fine"], ["invalid"], ["transient", "fine"])
    run = run_batch(db, batch)
    done = write_batch_logs(db, run, str(tmp_path / "v1_small"))
    logs = tmp_path / "v1_small" / "logs"
    assert sorted(path.name for path in logs.iterdir()) == [
        "batch_0007_perform.sh",
        "batch_0007_perform_0.out",
        "batch_0007_perform_1.err",
        "batch_0007_perform_1.out",
        "batch_0007_perform_2.out",
    ]
    assert (done.batches, done.files, done.problems) == (1, 5, ())
    assert done.bytes == sum(path.stat().st_size for path in logs.iterdir())
    assert "e0 begins attempt 1" in (logs / "batch_0007_perform_0.out").read_text()
    assert "e2 begins attempt 2" in (logs / "batch_0007_perform_2.out").read_text()
    errors = (logs / "batch_0007_perform_1.err").read_text()
    assert "b-e1, attempt 1: invalid_input on " in errors
    assert "planted invalid" in errors
    script = (logs / "batch_0007_perform.sh").read_text()
    assert script.endswith("# logs of these attempts (INDEX:ATTEMPT): 0:1 1:1 2:2\n")
    assert f"batch {batch.id}, {batch.fingerprint[:12]}" in script

    before = {path.name: path.stat().st_mtime_ns for path in logs.iterdir()}
    assert write_batch_logs(db, run, str(tmp_path / "v1_small")).files == 0
    assert {path.name: path.stat().st_mtime_ns for path in logs.iterdir()} == before


@pytest.mark.slow
def test_a_later_success_takes_the_place_of_an_error(db: Database, tmp_path: Path) -> None:
    run = run_batch(db, perform(tmp_path, ["invalid", "fine"]))
    folder = str(tmp_path / "v1_small")
    write_batch_logs(db, run, folder)
    error = tmp_path / "v1_small" / "logs" / "batch_0007_perform_0.err"
    assert error.exists()
    run_batch(db, batches.read_spec(db, "run.b"), fresh=True)
    assert write_batch_logs(db, run, folder).files == 2
    assert not error.exists()
    assert "attempt 2" in error.with_suffix(".out").read_text()


@pytest.mark.slow
def test_of_a_long_log_the_end_is_kept(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(
        tmp_path, [{"lines": 1000, "name": "t", "width": 100}, {"lines": 3, "name": "u"}],
        step="test.talk",
    )  # fmt: skip
    run = run_batch(db, batch)
    whole = storage.read_bytes(batch.log_uri(0, 1))
    monkeypatch.setattr(batch_logs, "MOST_BYTES", 5000)
    write_batch_logs(db, run, str(tmp_path / "c"))
    kept = (tmp_path / "c" / "logs" / "batch_0007_talk_0.out").read_bytes()
    assert (
        kept == f"… {len(whole) - 5000} bytes before this are left out\n".encode() + whole[-5000:]
    )
    assert (tmp_path / "c" / "logs" / "batch_0007_talk_1.out").read_bytes() == storage.read_bytes(
        batch.log_uri(1, 1)
    )


@pytest.mark.slow
def test_a_campaign_in_s3_has_its_logs_there(db: Database, tmp_path: Path, s3_server: str) -> None:
    run = run_batch(db, perform(tmp_path, ["fine"]))
    with empty_bucket(s3_server, "campaigns"):
        assert write_batch_logs(db, run, "s3://campaigns/v1_small").files == 2
        assert storage.list("s3://campaigns/v1_small/logs") == [
            "batch_0007_perform.sh", "batch_0007_perform_0.out"
        ]  # fmt: skip


def test_a_batch_that_never_ran_has_a_script_alone(db: Database, tmp_path: Path) -> None:
    batch = perform(tmp_path, ["fine"])
    runs.open_run(db, "run", workflow="test", params={}, work_uri=batch.work_uri)
    runs.create_batches(db, [("batch_0007", batch)])
    done = write_batch_logs(db, runs.read_run(db, "run"), str(tmp_path / "c"))
    assert (done.batches, done.files) == (1, 1)


def test_one_batch_that_cannot_be_written_does_not_end_the_others(
    db: Database, tmp_path: Path
) -> None:
    runs.open_run(db, "run", workflow="test", params={}, work_uri=str(tmp_path))
    for name in ("a", "b"):
        batch = make_batch(tmp_path, [{"text": "x"}], name=name)
        runs.create_batches(db, [(f"batch_{name}", batch)])
    (tmp_path / "c" / "logs" / "batch_a_write.sh").mkdir(parents=True)
    done = write_batch_logs(db, runs.read_run(db, "run"), str(tmp_path / "c"))
    assert done.batches == 1
    assert len(done.problems) == 1
    assert done.problems[0].startswith("batch_a_write: ")
    assert "1 not readable" in done.describe()


@pytest.mark.parametrize(
    ("group", "step", "name"),
    [
        ("batch_0012", "mocks.populate", "batch_0012"),
        ("batch_0012", "mocks.collect", "batch_0012_collect"),
        ("ensemble", "mocks.qa", "ensemble_qa"),
        ("../x y", "mocks.populate", "___x_y"),
    ],
)
def test_files_are_named_by_group_and_step(group: str, step: str, name: str) -> None:
    assert name_batch(group, step) == name
