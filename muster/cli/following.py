"""What commands share that follow a run: its progress on the terminal, its end, its report."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from muster.errors import MusterError
from muster.jobs.runs.run_progress import RUNNING, describe_running

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from muster.jobs.runs.detached import Submitted
    from muster.jobs.runs.follow_run import Told
    from muster.jobs.runs.verdict import GroupVerdict, Verdict
    from muster.store.database import Database
    from muster.store.runs import ElementStatus

T = TypeVar("T")


LOOK_INTERVAL_S = 2.0


@contextmanager
def telling_progress(db: Database, run_id: str, total: int) -> Iterator[Told]:
    """Show a bar on a terminal; yield what is told of each batch that starts or ends.

    Between the two the bar moves with what the elements say of themselves.

    Parameters
    ----------
    total : int
        How many elements there are.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("inspecting", total=total)
        ended = 0

        def tell(group: str, step: str, state: str) -> None:
            nonlocal ended
            if console.is_terminal:  # from the first batch on: which run it is has been logged
                logging.getLogger("muster").setLevel(logging.WARNING)
            if state == "running":
                progress.update(bar, description=f"{group} {step}")
            else:
                ended += 1
                progress.update(bar, completed=ended)

        def move(running: Sequence[ElementStatus]) -> None:
            part = sum(element.progress or 0.0 for element in running)
            progress.update(bar, completed=min(ended + part, total))
            told = [(e, describe_running(e, datetime.now(UTC))) for e in running]
            for element, far in [pair for pair in told if pair[1]][:1]:
                progress.update(bar, description=f"{element.name} {element.step} · {far}")

        with _looking(db, run_id, move) if console.is_terminal else nullcontext():
            yield tell


@contextmanager
def _looking(
    db: Database, run_id: str, move: Callable[[Sequence[ElementStatus]], None]
) -> Iterator[None]:
    """Look every two seconds, in a thread, at what runs, and move what is shown by it."""
    from muster.store import runs

    over = threading.Event()

    def follow() -> None:
        while not over.wait(LOOK_INTERVAL_S):
            with suppress(MusterError):  # a bar is no reason to stop a run; the next look may do
                move([e for e in runs.read_status(db, run_id) if e.state == RUNNING])

    thread = threading.Thread(target=follow, name="muster-bar", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(LOOK_INTERVAL_S)


@contextmanager
def showing_progress(what: str) -> Iterator[Callable[[float, str], None]]:
    """Show a bar on a terminal for one step that runs here; yield what it tells its progress."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        bar = progress.add_task(what, total=1.0)
        yield lambda fraction, message: progress.update(
            bar, completed=fraction, description=message or what
        )


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
    """Print what became of each group (trait, dataset), and where its product is."""
    from muster.jobs.planning.workflow import load_workflow
    from muster.jobs.runs.verdict import GOOD
    from muster.store import runs

    run = runs.read_run(db, run_id)
    workflow = load_workflow(run.workflow)
    planned = run.facts.get("products", {})
    made = {g.name for g in verdict.groups if any(g.steps.get(s) in GOOD for s in workflow.making)}
    products = {name: uri for name, uri in planned.items() if name in made}
    if as_json:
        final = {
            g.name for g in verdict.groups if not set(g.steps).isdisjoint(workflow.final_steps)
        }
        click.echo(
            json.dumps(
                {
                    "run": run_id,
                    "good": verdict.good,
                    "summary": verdict.summary,
                    "report": run.facts.get("report"),
                    **({"classes": [vars(c) for c in verdict.classes]} if verdict.classes else {}),
                    workflow.plural: [
                        {workflow.noun: g.name, **_tell_group(g, products)}
                        for g in verdict.groups
                        if g.name not in final
                    ],
                    **{g.name: _tell_group(g, products) for g in verdict.groups if g.name in final},
                },
                indent=1,
            )
        )
        return
    for group in verdict.groups:
        click.echo(group.describe())
        if group.name in products:
            click.echo(f"  {products[group.name]}")
    for outcome_class in verdict.classes:
        click.echo(outcome_class.describe())
    click.echo(verdict.summary)
    if "report" in run.facts:
        click.echo(f"report {run.facts['report']}")
    click.echo(f"run {run_id}")


def _tell_group(group: GroupVerdict, products: Mapping[str, str]) -> dict[str, Any]:
    return {
        "state": group.state,
        "steps": group.steps,
        "reasons": group.reasons,
        "product": products.get(group.name),
    }
