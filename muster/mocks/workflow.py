"""The workflow mock_campaign, as it declares itself."""

from __future__ import annotations

from muster.jobs.planning.workflow import Workflow

WORKFLOW = Workflow(
    name="mock_campaign",
    inspect="mocks.inspect",
    stages=(("mocks.populate",), ("mocks.collect",)),
    final_steps=("mocks.qa", "mocks.manifest"),
    params="muster.mocks.params:MockParams",
    interval="slice",
    noun="batch",
    judged="element",
    counted=("mocks.populate",),
    prepare="muster.mocks.plan.prepare:prepare_run",
    opening="muster.mocks.unfinished:hold_opening",
    report="muster.mocks.report:make_report",
    conclude="muster.mocks.conclude:conclude_run",
    told_apart_by={
        "mocks.populate": (
            "model",
            "source",
            "min_mass_msunh",
            "n_gen",
            "haloes.box_size_mpch",
            "haloes.options.box_size_mpch",
        )
    },
)
