"""A third workflow for Airflow, declared in a package of the tests' own."""

from __future__ import annotations

from on_demand import OnDemandTimetable

from operators.workflow_dag import make_dag

dag = make_dag(
    "census",
    OnDemandTimetable("0 0 1 1 *", timezone="UTC"),
    doc="Counts the words of texts.",
    tags=["test"],
)
