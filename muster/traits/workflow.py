"""The workflow trait_inference, as it declares itself."""

from __future__ import annotations

from muster.jobs.planning.workflow import Workflow

WORKFLOW = Workflow(
    name="trait_inference",
    inspect="traits.inspect",
    stages=(("traits.predict", "traits.cov", "traits.aoa"), ("traits.build",)),
    needs=("traits.predict",),
    params="muster.traits.params:InferParams",
    interval="year",
    noun="trait",
    report="muster.traits.report:make_report",
    conclude="muster.traits.conclude:conclude_run",
)
