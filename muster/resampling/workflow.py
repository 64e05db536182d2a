"""The workflow resampling, as it declares itself."""

from __future__ import annotations

from muster.jobs.planning.workflow import Workflow

WORKFLOW = Workflow(
    name="resampling",
    inspect="resampling.inspect",
    stages=(("resampling.resample",),),
    final_steps=("resampling.merge",),
    params="muster.resampling.config.params:ResamplingParams",
    interval="month",
    noun="dataset",
    conclude="muster.resampling.conclude:conclude_run",
)
