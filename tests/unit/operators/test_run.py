"""What a DAG run's params and type say of its interval, and what it hands to which task."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from muster.errors import ConfigError
from muster.jobs.planning.freeze import Group
from muster.jobs.planning.workflow import NoInterval, load_workflow
from operators import run
from operators.batch import LocalBatchOperator

RESAMPLING = load_workflow("resampling")


def context(run_type: str = "manual", **params: Any) -> Any:
    return {
        "dag_run": SimpleNamespace(dag_id="resampling", run_id="x", run_type=run_type, conf={}),
        "params": params,
        "data_interval_start": datetime(2019, 11, 1, tzinfo=UTC),
        "data_interval_end": datetime(2019, 12, 1, tzinfo=UTC),
    }


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, None),
        ({"year": 2024}, ("2024-01-01", "2025-01-01")),
        ({"year": 2024, "month": 2}, ("2024-02-01", "2024-03-01")),
        ({"year": 2024, "month": 12}, ("2024-12-01", "2025-01-01")),
        ({"year": None, "month": None}, None),
    ],
)
def test_a_run_by_hand_is_for_what_its_params_say(
    params: dict[str, Any], expected: tuple[str, str] | None
) -> None:
    found = run.interval_of(context(**params), RESAMPLING)
    assert (found and tuple(f"{t:%Y-%m-%d}" for t in found)) == expected


def test_a_month_needs_its_year() -> None:
    with pytest.raises(ConfigError, match="month without year; got: month 3"):
        run.interval_of(context(month=3), RESAMPLING)


def test_a_backfill_has_its_month_from_the_timetable() -> None:
    found = run.interval_of(context("backfill", year=2024, month=2), RESAMPLING)
    assert found == (datetime(2019, 11, 1, tzinfo=UTC), datetime(2019, 12, 1, tzinfo=UTC))


def test_a_backfill_of_a_workflow_without_intervals_is_told_why_there_is_none() -> None:
    timeless = replace(RESAMPLING, name="census", interval=NoInterval("start it once by hand"))
    with pytest.raises(ConfigError, match=r"census takes no interval.*do: start it once by hand"):
        run.interval_of(context("backfill"), timeless)
    assert run.interval_of(context(), timeless) is None


def group(name: str, step: str) -> Group:
    return Group(name, "resampling.x", {step: f"batch of {name}"}, {})


@pytest.mark.parametrize("merges", [True, False])
def test_the_merge_is_handed_to_its_own_task(monkeypatch: pytest.MonkeyPatch, merges: bool) -> None:
    groups = [group("ndvi", "resampling.resample"), group("wind", "resampling.resample")]
    if merges:
        groups.insert(1, group("merge", "resampling.merge"))
    pushed: dict[str, Any] = {}

    def push(*, key: str, value: Any) -> None:
        pushed[key] = value

    monkeypatch.setattr(run, "freeze_plan", lambda *_: groups)
    monkeypatch.setattr(run, "read_site", lambda: None)
    monkeypatch.setattr(run.Database, "from_environment", lambda: None)
    mapped = run.freeze({**context(), "ti": SimpleNamespace(xcom_push=push)})
    assert [batch["group"] for batch in mapped] == ["ndvi", "wind"]
    merge = pushed[run.FINAL_KEY]
    if merges:
        assert merge["batches"] == {"resampling.merge": "batch of merge"}
        return
    operator = LocalBatchOperator(task_id="merge", step="resampling.merge", batch=merge)
    with pytest.raises(AirflowSkipException, match="the params ask for none"):
        operator.execute({})


def test_without_a_plan_the_merge_says_so() -> None:
    operator = LocalBatchOperator(task_id="merge", step="resampling.merge", batch=None)
    with pytest.raises(AirflowSkipException, match="no plan"):
        operator.execute({})
