"""What a command shows of a run that it follows, and how it tells its end."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from muster.cli import following
from muster.errors import StoreUnavailable
from muster.jobs.runs.verdict import GroupVerdict, Verdict
from muster.store import runs
from muster.store.runs import ElementStatus

if TYPE_CHECKING:
    from muster.store.database import Database

DB: Database = SimpleNamespace()  # type: ignore[assignment]


def running(progress: float) -> ElementStatus:
    return ElementStatus(
        step="resampling.resample", group="wind", name="wind", state="running", reason=None,
        batch_id="b", attempts=1, host=None, seconds=None, max_rss_mib=None, message=None,
        log_uri=None, progress=progress, progress_message="window 84 of 200",
    )  # fmt: skip


def test_the_bar_moves_with_what_a_running_element_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[Any] = [StoreUnavailable("the store does not answer"), [running(0.42)]]

    def answer(*_: object) -> list[ElementStatus]:
        said = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(said, Exception):
            raise said
        return list(said)

    monkeypatch.setattr(runs, "read_status", answer)
    monkeypatch.setattr(following, "LOOK_INTERVAL_S", 0.01)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    with following.telling_progress(DB, "run", 3) as tell:
        tell("inputs", "resampling.inspect", "succeeded")
        tell("wind", "resampling.resample", "running")
        time.sleep(0.5)
    assert "wind resampling.resample · 42 % · window 84 of 200" in capsys.readouterr().err


def test_without_a_terminal_nobody_asks_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> None:
        pytest.fail("asked")

    monkeypatch.setattr(runs, "read_status", asked)
    monkeypatch.setattr(following, "LOOK_INTERVAL_S", 0.0)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with following.telling_progress(DB, "run", 3):
        time.sleep(0.05)


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch) -> Verdict:
    products = {"wind": "/o/wind.tif", "soil": "/o/soil.tif", "merge": "/o/all.parquet"}
    run = SimpleNamespace(workflow="resampling", facts={"products": products, "report": "/r"})
    monkeypatch.setattr(runs, "read_run", lambda *_: run)
    step = "resampling.resample"
    return Verdict(
        False,
        "2 of 3 succeeded",
        (
            GroupVerdict("soil", "succeeded", {step: "reused"}, ()),
            GroupVerdict("wind", "failed", {step: "software_error"}, ("broken",)),
            GroupVerdict("merge", "succeeded", {"resampling.merge": "succeeded"}, ()),
        ),
    )


def test_a_report_for_programs_tells_datasets_from_their_merge(
    verdict: Verdict, capsys: pytest.CaptureFixture[str]
) -> None:
    following.report_run(DB, "run", verdict, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [(d["dataset"], d["state"], d["product"]) for d in told["datasets"]] == [
        ("soil", "succeeded", "/o/soil.tif"),
        ("wind", "failed", None),
    ]
    assert told["merge"]["product"] == "/o/all.parquet"
    assert (told["run"], told["good"], told["report"]) == ("run", False, "/r")


def test_a_report_for_people_names_only_products_that_are_there(
    verdict: Verdict, capsys: pytest.CaptureFixture[str]
) -> None:
    following.report_run(DB, "run", verdict, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "soil: succeeded: resample reused",
        "  /o/soil.tif",
        "wind: failed: resample software_error (broken)",
        "merge: succeeded: merge succeeded",
        "  /o/all.parquet",
        "2 of 3 succeeded",
        "report /r",
        "run run",
    ]
