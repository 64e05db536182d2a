"""What of a step's progress leaves the job: at a bounded rate, whole, and never at a cost."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from muster import storage
from muster.errors import Transient
from muster.jobs.running.child import _ProgressReport
from muster.jobs.running.publish_progress import ProgressPublisher
from muster.model.attempt import Fence, Progress
from muster.model.resources import Resources
from tests.batches import make_batch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from muster.model.batch import Batch

ORDER = Fence(submission="run.b.w1.abc", attempt=3, resources=Resources())


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return make_batch(tmp_path, [{"text": "a"}])


def published(batch: Batch) -> Progress:
    return Progress.model_validate_json(storage.read_bytes(batch.progress_uri(0, 3)))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_the_last_word_is_published_with_its_submission(batch: Batch, tmp_path: Path) -> None:
    said = tmp_path / "progress.json"
    report = _ProgressReport(said)
    with ProgressPublisher(batch, 0, ORDER, said, 0.01):
        report(0.25, "window 1\nof 4\0")
        wait_for(lambda: storage.exists(batch.progress_uri(0, 3)))
        report(0.5, "window 2 of 4")
        wait_for(lambda: published(batch).fraction == 0.5)
    found = published(batch)
    assert (found.submission, found.index, found.attempt) == ("run.b.w1.abc", 0, 3)
    assert found.message == "window 2 of 4"


def test_a_word_right_after_another_is_not_lost_in_a_long_silence(tmp_path: Path) -> None:
    said = tmp_path / "progress.json"
    report = _ProgressReport(said)
    report(0.1, "first")
    report(0.2, "second")
    report(0.3, "third")
    assert json.loads(said.read_text())["message"] == "first"
    wait_for(lambda: json.loads(said.read_text())["message"] == "third")


def test_no_more_words_than_the_interval_allows(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []
    monkeypatch.setattr(storage, "write_bytes", lambda _, data: writes.append(data))
    monkeypatch.setattr("muster.jobs.running.publish_progress.LOOK_INTERVAL_S", 0.01)
    said = tmp_path / "progress.json"
    report = _ProgressReport(said)
    with ProgressPublisher(batch, 0, ORDER, said, 0.6):
        started = time.monotonic()
        for number in range(1, 36):
            report(number / 100, "")
            time.sleep(0.04)
        most = 2 + (time.monotonic() - started) / 0.6
    assert 2 <= len(writes) <= most


def test_a_step_may_say_anything(batch: Batch, tmp_path: Path) -> None:
    said = tmp_path / "progress.json"
    report = _ProgressReport(said)
    with ProgressPublisher(batch, 0, ORDER, said, 0.01):
        report(float("nan"), tmp_path)  # type: ignore[arg-type]
        wait_for(lambda: storage.exists(batch.progress_uri(0, 3)))
        assert published(batch).fraction == 0.0
        report(7, "\ud800" + "x" * 1_000)
        wait_for(lambda: published(batch).fraction == 1.0)
    assert published(batch).message == "x" * 200


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"fraction": 2}'])
def test_a_broken_word_is_told_once_and_followed_by_a_good_one(
    batch: Batch, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    said = tmp_path / "progress.json"
    said.write_text(text)
    with ProgressPublisher(batch, 0, ORDER, said, 0.01):
        wait_for(lambda: "progress is not told" in caplog.text)
        _ProgressReport(said)(0.5, "well")
        wait_for(lambda: storage.exists(batch.progress_uri(0, 3)))
    assert caplog.text.count("progress is not told") == 1


def test_a_network_that_hangs_holds_nobody_up(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, release = threading.Event(), threading.Event()

    def hang(_: str, __: bytes) -> None:
        begun.set()
        release.wait(30)
        raise Transient("the network failed")

    monkeypatch.setattr(storage, "write_bytes", hang)
    monkeypatch.setattr("muster.jobs.running.publish_progress.LAST_WORD_S", 0.05)
    said = tmp_path / "progress.json"
    _ProgressReport(said)(0.5, "")
    with ProgressPublisher(batch, 0, ORDER, said, 0.01) as publisher:
        assert begun.wait(10)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    release.set()
    publisher._thread.join(10)


def test_the_log_has_a_line_at_the_end_and_not_one_a_window(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever configured logging before, in the same process, has no say here.
    ours = logging.getLogger("muster.jobs.running.child")
    monkeypatch.setattr(ours, "handlers", [caplog.handler])
    monkeypatch.setattr(ours, "propagate", False)
    monkeypatch.setattr(ours, "disabled", False)
    caplog.set_level(logging.INFO, logger=ours.name)
    report = _ProgressReport(tmp_path / "progress.json")
    for number in range(1, 101):
        report(number / 100, f"window {number} of 100")
    assert caplog.messages == ["100 % window 100 of 100"]


def test_a_full_disk_is_no_failure_of_the_step(tmp_path: Path) -> None:
    _ProgressReport(tmp_path / "gone" / "progress.json")(0.5, "")
