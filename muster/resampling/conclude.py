"""What a run of resampling does last, when its verdict is recorded: datasets, and the report."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from muster.jobs.planning.plan_run import read_plan
from muster.report.write import write_report
from muster.resampling.layer import Layer
from muster.resampling.stores.recorded import record_layer

if TYPE_CHECKING:
    from muster.jobs.runs.verdict import Verdict
    from muster.store.database import Database
    from muster.store.records import Run

log = logging.getLogger(__name__)

STEP = "resampling.resample"


def conclude_run(db: Database, run: Run, verdict: Verdict) -> None:
    """Record the datasets that the run has made or found right, and write its report.

    What was loaded into tiles or rows has been recorded by its load.
    """
    try:
        for layer in find_layers(run, verdict):
            record_layer(db, layer, run.id)
            log.info("dataset %s: recorded", layer.key)
    finally:  # a report that could be written is not kept back by a record that could not
        log.info("report: %s", write_report(db, run))


def find_layers(run: Run, verdict: Verdict) -> list[Layer]:
    """List the layers of the datasets that are there as planned, made by this run or before it."""
    if run.planned_at is None:
        return []
    there = {group.name for group in verdict.groups if group.state == "succeeded"}
    return [
        Layer.model_validate(element.inputs["layer"])
        for element in read_plan(run).elements
        if element.step == STEP and element.group in there and "layer" in element.inputs
    ]
