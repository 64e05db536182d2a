"""``muster advise``: what to ask the scheduler for next time, from what a run really used."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import json_option, print_json
from muster.cli.session import open_database
from muster.counts import count_of
from muster.errors import MissingInput

if TYPE_CHECKING:
    from muster.jobs.planning.advise import Spread, StepAdvice, Waste
    from muster.store.database import Database
    from muster.store.history import TriedAttempt

_COLUMNS = ("asked", "p50", "p95", "most", "advice")


@click.command()
@click.argument("run")
@click.option("--step", help="Only this step.")
@click.option(
    "--margin",
    type=click.FloatRange(min=1, max=10),
    default=1.2,
    show_default=True,
    help="Factor on what was used.",
)
@click.option("--toml", "as_toml", is_flag=True, help="Lines for a site file's [placement].")
@json_option
def advise(run: str, step: str | None, margin: float, *, as_toml: bool, as_json: bool) -> None:
    """Advise what the steps of a run should ask for next time, and say what was asked in vain.

    RUN is a run's id, or a part of it that no other run has.  Memory and time are the 95th
    percentile of what succeeded attempts used, times the margin, never less than the most of them;
    what was killed for want of more raises it, the pool's caps limit it.
    """
    from muster.jobs.planning.advise import advise_steps, render_placement
    from muster.report.read import GOING
    from muster.store import runs
    from muster.store.history import read_placed, read_tried

    if as_toml and as_json:
        raise click.UsageError("--toml and --json cannot be had together")
    db = open_database()
    found = runs.find_run(db, run)
    tried = _choose(db, found.id, read_tried(db, found.id), step)
    advice = advise_steps(tried, read_placed(db, found.id), margin=margin)
    if found.state in GOING:
        click.echo("the run is still going: only attempts that are over count", err=True)
    if as_json:
        steps = [_to_dict(a) for a in advice]
        print_json({"run": found.id, "margin": margin, "steps": steps})
    elif as_toml:
        click.echo(render_placement(advice))
    else:
        click.echo("\n\n".join("\n".join(_describe(a)) for a in advice))


def _choose(
    db: Database, run_id: str, tried: list[TriedAttempt], step: str | None
) -> list[TriedAttempt]:
    """Keep what is over, of one step or of all; nothing to go by is an error that says why."""
    from muster.store import runs

    over = [a for a in tried if a.outcome is not None and step in (None, a.step)]
    if over:
        return over
    elements = runs.read_status(db, run_id)
    steps = sorted({e.step for e in elements})
    if step is not None and step not in steps:
        raise MissingInput(
            "no such step", where=run_id, got=step, expected=", ".join(steps) or None
        )
    states = Counter(e.state for e in elements if step in (None, e.step))
    raise MissingInput(
        "nothing was tried that is over",
        where=f"{step} of {run_id}" if step else run_id,
        got=", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no plan",
        do="name a run that computed something; 'muster status' lists runs",
    )


def _to_dict(advice: StepAdvice) -> dict[str, Any]:
    kept = {"asked": advice.asked.model_dump(), "advised": advice.advised.model_dump()}
    return {**asdict(advice), **kept}


def _describe(advice: StepAdvice) -> list[str]:
    from muster.config import render_time
    from muster.report.formats import format_mib, format_seconds

    asked, advised = advice.asked, advice.advised
    outcomes = ", ".join(f"{n} {o.replace('_', ' ')}" for o, n in sorted(advice.outcomes.items()))
    gpus = f", {count_of(asked.gpus, 'GPU')}" if asked.gpus else ""
    cpus = count_of(asked.cpus, "CPU")
    memory = [format_mib(asked.memory_mib), *_cells(advice.memory_mib, format_mib)]
    limits = [render_time(r.time_limit_s) if r.time_limit_s else "–" for r in (asked, advised)]
    time = [limits[0], *_cells(advice.elapsed_s, format_seconds), limits[1]]
    return [
        f"{advice.step} in {advice.pool}, {cpus}{gpus} each: {outcomes}",
        _row("", _COLUMNS),
        _row("memory", [*memory, format_mib(advised.memory_mib)]),
        _row("time", time),
        _row("in queue", ["", *_cells(advice.waited_s, format_seconds)]),
        *(f"  held      {line}" for line in _describe_waste(advice.waste)),
        *(f"  note      {note}" for note in advice.notes),
    ]


def _describe_waste(waste: Waste) -> list[str]:
    from muster.report.formats import format_hours

    def share(total: float, lost: float, unit: str, why: str) -> str:
        return f"{format_hours(total)} {unit}" + (f", {format_hours(lost)} {why}" if lost else "")

    failed = "of them by attempts that failed"
    lines = [share(waste.cpu_hours, waste.cpu_hours_lost, "CPU-hours", failed)]
    if waste.cpu_hours_unused:
        lines[0] += f"; {format_hours(waste.cpu_hours_unused)} more asked for by the time limits"
    if waste.memory_gib_h:
        unused = "of them never used"
        lines.append(
            share(waste.memory_gib_h, waste.memory_gib_h_unused, "GiB·h of memory", unused)
        )
    if waste.gpu_hours:
        lines.append(share(waste.gpu_hours, waste.gpu_hours_lost, "GPU-hours", failed))
    return lines


def _cells(spread: Spread | None, tell: Any) -> list[str]:
    if spread is None:
        return ["–"] * 3
    return [tell(value) for value in (spread.p50, spread.p95, spread.most)]


def _row(name: str, cells: Any) -> str:
    return f"  {name:<9}" + "".join(f"{cell:>13}" for cell in cells).rstrip()
