"""What commands share that follow a run: its progress on the terminal, its end, its report."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from muster.jobs.detached import Submitted
    from muster.jobs.follow_run import Told
    from muster.jobs.verdict import Verdict
    from muster.store.database import Database

T = TypeVar("T")


@contextmanager
def telling_progress(total: int) -> Iterator[Told]:
    """Show a bar on a terminal; yield what is told of each batch that starts or ends."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if console.is_terminal:
        logging.getLogger("muster").setLevel(logging.WARNING)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("inspecting", total=total)

        def tell(group: str, step: str, state: str) -> None:
            if state == "running":
                progress.update(bar, description=f"{group} {step}")
            else:
                progress.advance(bar)

        yield tell


def run_until_told(run: Coroutine[Any, Any, T]) -> T:
    """Run something to its end; SIGTERM ends it as Ctrl-C does: in good order."""
    try:
        return asyncio.run(_cancelled_by_sigterm(run))
    except asyncio.CancelledError:
        print("terminated", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)


async def _cancelled_by_sigterm(run: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(run)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def print_submitted(run_id: str, done: Sequence[Submitted], *, as_json: bool = False) -> int:
    """Print what was submitted, and how to go on; the exit code says whether all was."""
    good = all(one.problem is None for one in done)
    if as_json:
        jobs = [
            {
                "group": one.group,
                "step": one.step,
                "jobs": list(one.references),
                "problem": one.problem,
            }
            for one in done
        ]
        click.echo(json.dumps({"run": run_id, "good": good, "submitted": jobs}, indent=1))
        return os.EX_OK if good else 1
    for one in done:
        told = one.problem or f"job {', '.join(one.references)}"
        click.echo(f"{one.group:<20} {one.step:<18} {told}")
    click.echo(f"run {run_id}")
    click.echo(f"'muster wait {run_id}' follows it to its end; status, cancel and retry go as well")
    return os.EX_OK if good else 1


def report_run(db: Database, run_id: str, verdict: Verdict, *, as_json: bool) -> None:
    """Print what became of each trait, and where its product is."""
    from muster.jobs.verdict import GOOD
    from muster.store import runs

    facts = runs.read_run(db, run_id).facts
    planned = facts.get("products", {})
    built = {g.name for g in verdict.groups if g.steps.get("traits.build") in GOOD}
    products = {trait: uri for trait, uri in planned.items() if trait in built}
    if as_json:
        click.echo(
            json.dumps(
                {
                    "run": run_id,
                    "good": verdict.good,
                    "summary": verdict.summary,
                    "report": facts.get("report"),
                    "traits": [
                        {
                            "trait": g.name,
                            "state": g.state,
                            "steps": g.steps,
                            "reasons": g.reasons,
                            "product": products.get(g.name),
                        }
                        for g in verdict.groups
                    ],
                },
                indent=1,
            )
        )
        return
    for group in verdict.groups:
        click.echo(group.describe())
        if group.name in products:
            click.echo(f"  {products[group.name]}")
    click.echo(verdict.summary)
    if "report" in facts:
        click.echo(f"report {facts['report']}")
    click.echo(f"run {run_id}")
