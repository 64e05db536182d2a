"""Runs as a report tells them, made up for tests: no store, no clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from muster.jobs.planning.workflow import load_workflow
from muster.model.outcome import Outcome
from muster.model.resources import Resources
from muster.report.read import RunStory, tell_story
from muster.store.history import TriedAttempt
from muster.store.records import AttemptState, Run, RunState
from muster.store.runs import ElementStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BEGAN = datetime(2026, 3, 1, 22, 30, tzinfo=UTC)
HOSTILE = """$(touch x) 'a' "b" <script>alert(1)</script> {{ 4321 * 7 }}"""
STEPS = load_workflow("trait_inference").steps

Tries = tuple[Outcome | None, ...]


def make_run(state: RunState = RunState.SUCCEEDED, **changes: Any) -> Run:
    going = state in (RunState.OPEN, RunState.PLANNED)
    run = Run(
        id="trait_inference.manual__2026-03-01T22:30:00+00:00",
        workflow="trait_inference",
        state=state,
        params={"traits": ["leaf_area"], "predictors": ["/data/stack.tif"],
                "models": "/data/models",
                "output": "/data/maps", "trait_set": "splot", "overwrite": False, "seed": None},
        work_uri="/work/runs/r",
        interval_start=None,
        interval_end=None,
        facts={"grid": "10 rows × 20 columns of 1000 × -1000 from (0, 0) in EPSG:6933",
               "pixels": 200, "predictor_bands": 3, "products": {}},
        message=None if going else "1 of 1 succeeded (quorum 100.0%), 0 failed",
        created_at=BEGAN,
        planned_at=BEGAN + timedelta(seconds=20),
        ended_at=None if going else BEGAN + timedelta(hours=1, minutes=2),
    )  # fmt: skip
    return replace(run, **changes)


def make_attempt(step: str, name: str, number: int, outcome: Outcome | None) -> TriedAttempt:
    submitted = BEGAN + timedelta(minutes=number)
    failed = outcome not in (None, Outcome.SUCCEEDED)
    return TriedAttempt(
        step=step,
        group="inputs" if step == "traits.inspect" else name,
        element=name,
        number=number,
        generation=1,
        state=AttemptState.ENDED if outcome else AttemptState.RUNNING,
        outcome=outcome,
        resources=Resources(cpus=4, memory_mib=2048, time_limit_s=3600),
        backend="slurm",
        pool="cpu_genoa",
        host="node-17",
        seconds=900.0 if outcome else None,
        max_rss_mib=1024.0 if outcome else None,
        exit_code=70 if failed else None,
        signal=None,
        error_class="SoftwareError" if failed else None,
        message=f"the {step} broke; do: mend it" if failed else None,
        facts={"windows": 3, "engine": "numba"} if outcome is Outcome.SUCCEEDED else {},
        log_uri=f"/work/logs/{step}-{number}.log",
        planned_at=submitted,
        submitted_at=submitted,
        started_at=submitted + timedelta(seconds=30),
        ended_at=submitted + timedelta(minutes=15) if outcome else None,
    )


def make_story(
    traits: Mapping[str, Mapping[str, str | Tries]],
    run: Run | None = None,
    reasons: Mapping[tuple[str, str], str] | None = None,
) -> RunStory:
    """Tell a run: trait → step without its "traits." → its state, or how its attempts ended."""
    statuses: list[ElementStatus] = []
    tried: list[TriedAttempt] = []
    every = {"inputs": {"inspect": (Outcome.SUCCEEDED,)}, **traits}
    for group, steps in every.items():
        for step, came in steps.items():
            name = f"traits.{step}"
            attempts = _attempts(name, group, came)
            tried += attempts
            statuses.append(_status(name, group, came, attempts))
    return tell_story(run or make_run(), STEPS, statuses, tried, dict(reasons or {}))


def whole(state: str | Tries = (Outcome.SUCCEEDED,), **others: str | Tries) -> dict[str, Any]:
    """A trait whose four steps came to one and the same, but for the named ones."""
    return {**dict.fromkeys(("predict", "cov", "aoa", "build"), state), **others}


def _attempts(step: str, group: str, came: str | Tries) -> list[TriedAttempt]:
    if isinstance(came, str):
        return []
    return [make_attempt(step, group, n, outcome) for n, outcome in enumerate(came, start=1)]


def _status(
    step: str, group: str, came: str | Tries, attempts: Sequence[TriedAttempt]
) -> ElementStatus:
    newest = attempts[-1] if attempts else None
    return ElementStatus(
        step=step,
        group=group,
        name=group,
        state=came if isinstance(came, str) else (came[-1].value if came[-1] else "running"),
        reason=None if newest else f"why {step} is {came}",
        batch_id="b" if newest else None,
        attempts=len(attempts),
        host=newest.host if newest else None,
        seconds=newest.seconds if newest else None,
        max_rss_mib=newest.max_rss_mib if newest else None,
        message=newest.message if newest else None,
        log_uri=newest.log_uri if newest else None,
    )
