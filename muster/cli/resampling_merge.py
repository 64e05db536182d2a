"""``muster resampling merge``: the merge of a plan, made here and not by a run."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.cli.following import showing_progress
from muster.errors import InvalidInput, MissingInput, SoftwareError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.model.plan import Plan

STEP = "resampling.merge"
OWNER = "muster resampling merge"


def merge_here(plan: Plan, memory_mib: int) -> Mapping[str, Any]:
    """Merge the layers of a plan that are there, and return what the step says of it.

    Parameters
    ----------
    memory_mib : int
        What the merge may take, in MiB.

    Raises
    ------
    MissingInput, InvalidInput
        When there is nothing to merge, a layer is absent, or one does not fit.
    """
    from muster.model.plan import Decision
    from muster.model.step import StepContext, call_step, load_step

    found = [element for element in plan.elements if element.step == STEP]
    if not found:
        raise SoftwareError("the plan has no merge", got=plan.workflow)
    (element,) = found
    if element.decision is Decision.MISSING_INPUT:
        raise MissingInput(element.reason)
    if element.decision is not Decision.RUN:
        raise InvalidInput(element.reason, got=element.decision.value)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-merge-")))
        staged = {}
        for name, uri in element.outputs.items():
            storage.sweep(uri, OWNER)
            staged[name] = storage.stage(uri, scratch, OWNER)
            stack.callback(staged[name].discard)
        progress = stack.enter_context(showing_progress("merging"))
        context = StepContext(
            threads=os.cpu_count() or 1, memory_mib=memory_mib, scratch=scratch, progress=progress
        )
        outputs = {name: output.path for name, output in staged.items()}
        facts = call_step(load_step(STEP), element.inputs, outputs, context)
        for output in staged.values():
            output.publish()
    return facts
