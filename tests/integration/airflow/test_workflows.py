"""What a workflow has by its declaration alone: runs over REST, and backfills or a refusal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from muster.jobs.planning.workflow import WORKFLOWS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.airflow.conftest import Muster

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", [*WORKFLOWS, "census"])
def test_it_takes_runs_from_the_start(muster: Muster, name: str) -> None:
    """A run of a paused DAG waits for ever, and says so to nobody."""
    assert muster.api.call("GET", f"dags/{name}")["is_paused"] is False


def test_a_third_workflow_is_run_by_its_declaration(muster: Muster, tmp_path: Path) -> None:
    texts = {"one": "a b c", "two": "d e", "short": ""}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    conf = {
        "texts": [str(tmp_path / f"{name}.txt") for name in texts],
        "folder": str(tmp_path / "counts"),
        "longest": "2MiB",
        "quorum": 0.5,
    }
    run_id = muster.api.trigger("census", conf)
    assert muster.api.wait_for_run("census", run_id).state == "success", muster.live.tails()
    states = muster.states("census", run_id)
    assert states == {
        **{(task, ""): "success" for task in ("open", "inspect", "plan", "total", "verdict")},
        **{("text.count", name): "success" for name in texts},
        **{("text.check", name): "success" for name in ("one", "two")},
        ("text.check", "short"): "failed",
    }
    assert (tmp_path / "counts" / "total.json").read_text() == "5"


def test_a_backfill_of_it_is_refused_in_its_own_words(muster: Muster) -> None:
    first = datetime(2001, 1, 1, tzinfo=UTC)
    backfill = muster.api.backfill("census", (first, first))
    muster.wait(lambda: muster.api.backfill_ended(backfill), 180)
    (run,) = [r for r in muster.api.runs("census") if r.run_id.startswith("backfill")]
    assert run.state == "failed"
    log = muster.api.task_log("census", run.run_id, ("open", -1))
    assert "census takes no interval" in log
    assert "a text has no date: start it once by hand" in log
