"""The DAGs: ids, tasks and params are in Airflow's history, in REST calls, in cleared runs."""

from __future__ import annotations

import pytest

from muster.jobs.planning.freeze import Group
from tests.unit.pins.golden_files import check_golden, check_literal, render_json
from tests.unit.pins.parsed_dags import parse_dags

DAGS = ["mock_campaign", "muster_alerts", "muster_maintenance", "resampling", "trait_inference"]
USER = "is known to Airflow's history and its runs, and to REST calls"


def test_there_are_these_dags() -> None:
    check_literal("DAGs", sorted(parse_dags()), DAGS, USER)


@pytest.mark.parametrize("dag_id", DAGS)
def test_a_dag_is_what_airflow_knows(dag_id: str) -> None:
    check_golden(f"dag-{dag_id}.json", render_json(parse_dags().get(dag_id)), USER)


def test_what_is_mapped_over_has_the_keys_that_tasks_read() -> None:
    check_literal(
        "XCom of the task plan",
        Group("SLA", "run", {"traits.aoa": "b"}, {"traits.cov": "not asked"}).to_dict(),
        {
            "group": "SLA",
            "run": "run",
            "batches": {"traits.aoa": "b"},
            "skipped": {"traits.cov": "not asked"},
        },
        "is stored as XCom of runs that go on, or are cleared",
    )
