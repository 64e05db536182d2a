"""A log on S3 grows while its elements run, and is there before the result that names it."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from muster import storage
from muster.jobs.running import copy_log
from muster.jobs.running.copy_log import LogCopier
from muster.jobs.running.runner import Running, run_elements
from muster.model.attempt import Result
from muster.model.fence import write_fences
from muster.model.logs import log_of
from muster.model.wave import Wave
from tests.batches import add_steps_to_path, make_batch
from tests.s3_server import empty_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from muster.model.batch import Batch

KEY = "run.b.w1.key"
PATIENCE_S = 20.0


@pytest.fixture
def bucket(s3_server: str) -> Iterator[str]:
    with empty_bucket(s3_server, "logs"):
        yield "s3://logs"


def wait_for(uri: str, data: bytes) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not storage.exists(uri) or storage.read_bytes(uri) != data:
        assert time.monotonic() < deadline_s, f"{uri} never holds {data!r}"
        time.sleep(0.05)


def batch_on_s3(tmp_path: Path, bucket: str, inputs: list[dict[str, Any]], **how: Any) -> Batch:
    batch = make_batch(tmp_path, inputs, **how).model_copy(
        update={"work_uri": f"{bucket}/work/b", "pool_uri": f"{bucket}/pools/p"}
    )
    write_fences(Wave(batch, KEY, dict.fromkeys(range(len(inputs)), 1), batch.resources))
    return batch


def test_a_log_is_uploaded_as_it_grows_and_echoed(bucket: str, tmp_path: Path) -> None:
    path, uri = tmp_path / "a.log", f"{bucket}/logs/a.log"
    reader, writer = os.pipe()
    copier = LogCopier(path, uri, writer, every_s=0.1)
    path.write_bytes(b"one\n")
    wait_for(uri, b"one\n")
    with path.open("ab") as file:
        file.write(b"two\n")
    wait_for(uri, b"one\ntwo\n")
    with path.open("ab") as file:
        file.write(b"three\n")
    copier.close()
    assert storage.read_bytes(uri) == b"one\ntwo\nthree\n"
    os.close(writer)
    with os.fdopen(reader, "rb") as echoed:
        assert echoed.read() == b"one\ntwo\nthree\n"


def test_of_a_log_without_end_the_beginning_is_uploaded(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_log, "LARGEST_COPY", 5)
    path, uri = tmp_path / "a.log", f"{bucket}/logs/a.log"
    path.write_bytes(b"0123456789")
    LogCopier(path, uri).close()
    assert storage.read_bytes(uri) == b"01234"


def test_a_bucket_that_is_away_fails_nothing(
    bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"x")
    copier = LogCopier(path, "s3://no-such-bucket/a.log", every_s=0.05)
    time.sleep(0.2)
    copier.close()
    assert [r.message for r in caplog.records if "not copied" in r.message] != []
    assert not any(t.name == "muster-log" for t in threading.enumerate())


def test_elements_on_s3_leave_their_log_there_before_their_result(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "muster")
    add_steps_to_path(monkeypatch)
    ledger = str(tmp_path / "ledger")
    batch = batch_on_s3(
        tmp_path, bucket, [{"how": "fine", "ledger": ledger}] * 2, step="test.misbehave"
    )
    written: list[str] = []
    write_bytes = storage.write_bytes

    def write(uri: str, data: bytes) -> None:
        written.append(uri.removeprefix(f"{batch.work_uri}/"))
        write_bytes(uri, data)

    monkeypatch.setattr(storage, "write_bytes", write)
    assert run_elements(batch.uri, [0, 1], Running(KEY, own_logs=True)) == 0
    kinds = [name for name in written if name.startswith(("logs/", "results/"))]
    assert kinds[:2] == ["logs/0.1.log", "results/0.1.json"]
    assert kinds[-1] == "results/1.1.json", "the log is whole before the last result"
    for index in range(2):
        result = Result.model_validate_json(storage.read_bytes(batch.result_uri(index, 1)))
        assert result.log is not None
        assert result.log.name == "logs/0.1.log"
        told = log_of(batch, index, 1).read()
        assert f"b-e{index}: succeeded".encode() in told
        assert f"b-e{1 - index}: succeeded".encode() not in told
