"""Commands about the store: its schema, what it knows of runs, and what nobody supervises."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from muster.cli.options import json_option, print_json
from muster.cli.session import open_database, store_url
from muster.errors import MissingInput

if TYPE_CHECKING:
    from muster.store.database import Database


@click.command()
def migrate() -> None:
    """Bring the store to the schema of this version."""
    from muster.store.schema import migrate as apply_migrations

    click.echo(f"store at version {apply_migrations(store_url())}")


@click.command()
@click.argument("run", required=False)
@json_option
def status(run: str | None, *, as_json: bool) -> None:
    """Show a run element by element, or the newest runs where none is named.

    RUN is a run's id, or a part of it that no other run has.
    """
    from muster.jobs.runs.run_progress import describe_job, describe_running, summarize_run
    from muster.store import runs
    from muster.store.records import RunState
    from muster.store.retention import read_removed_at

    db = open_database()
    if run is None:
        rows = runs.list_runs(db)
        if as_json:
            print_json([asdict(row) for row in rows])
            return
        for row in rows:
            click.echo(f"{row.created_at:%Y-%m-%d %H:%M:%SZ}  {row.state:<10} {row.id}")
        if not rows:
            click.echo("no runs yet")
        return
    found = runs.find_run(db, run)
    silent = _look_at_what_was_left_alone(db, found.id)
    elements = runs.read_status(db, found.id)
    degraded = runs.read_degraded(db, found.id)
    removed_at = read_removed_at(db, found.id)
    now = datetime.now(UTC)
    progress = summarize_run(elements, now, planned=found.state is RunState.PLANNED)
    if as_json:
        print_json(
            {
                "run": asdict(found),
                "progress": asdict(progress),
                "elements": [asdict(e) for e in elements],
                "degraded": [asdict(d) for d in degraded],
                "work_removed_at": removed_at,
            }
        )
        return
    goes_on = found.state in (RunState.OPEN, RunState.PLANNED)
    told = progress.describe(now) if goes_on else found.message
    click.echo(f"{found.id}: {found.state}" + (f": {told}" if told else ""))
    if silent is not None:
        click.echo(f"not looked at just now: {silent}")
    for d in degraded:
        click.echo(f"degraded since {d.since:%H:%M:%SZ}: {d.group} {d.step}: {d.trouble}")
    if "report" in found.facts:
        click.echo(f"report: {found.facts['report']}")
    if removed_at is not None:
        click.echo(f"its plan, results and logs were removed by retention on {removed_at:%Y-%m-%d}")
    for e in elements:
        took = f"{e.seconds:8.1f} s" if e.seconds is not None else " " * 10
        peak = f"{e.max_rss_mib:7.0f} MiB" if e.max_rss_mib is not None else " " * 11
        open_now = " · ".join(text for text in (describe_job(e), describe_running(e, now)) if text)
        why = open_now or e.message or e.reason or ""
        click.echo(f"{e.name:<20} {e.step:<18} {e.state:<15} {e.attempts:>3} ×{took}{peak}  {why}")


def _look_at_what_was_left_alone(db: Database, run_id: str) -> str | None:
    """Record what has become of jobs that nobody follows; say so where their cluster is silent."""
    from muster.errors import Transient
    from muster.store.claims import find_detached

    if not find_detached(db, run_id):
        return None
    from muster.backends import Backends
    from muster.jobs.runs.detached import look_at_detached

    async def look() -> None:
        backends = Backends(db)
        try:
            await look_at_detached(db, backends, run_id)
        finally:
            await backends.close()

    try:
        asyncio.run(look())
    except Transient as error:
        return str(error)
    return None


@click.command()
@click.argument("run")
@click.argument("element")
@click.option("--step", help="Only this step.")
@click.option("--attempt", type=int, help="Only this attempt.")
@json_option
def logs(run: str, element: str, step: str | None, attempt: int | None, *, as_json: bool) -> None:
    """Print the logs of an element of a run, every attempt of every step."""
    from muster.model.logs import locate_log
    from muster.store import runs
    from muster.store.retention import read_removed_at

    db = open_database()
    found = runs.find_run(db, run)
    every = runs.read_log_uris(db, found.id, element)
    names = sorted({e.name for e in runs.read_status(db, found.id)})
    if element not in names:
        raise MissingInput(
            "no such element", where=found.id, got=element, expected=", ".join(names)
        )
    rows = [
        row
        for row in every
        if (step is None or row[0] == step) and (attempt is None or row[1] == attempt)
    ]
    if not rows:
        raise MissingInput(
            "no attempt fits",
            where=f"{element} of {found.id}",
            got=" ".join(str(word) for word in (step, attempt) if word is not None) or None,
            expected=", ".join(f"{name} {number}" for name, number, *_ in every)
            or "none: nothing of it was run, see 'muster status'",
        )
    removed_at = read_removed_at(db, found.id)
    gone = f"removed by retention on {removed_at:%Y-%m-%d}" if removed_at else ""
    if gone and not any(locate_log(row[3]).exists() for row in rows):
        raise MissingInput(
            f"the logs were {gone}",
            where=f"{element} of {found.id}",
            do="see 'muster status' for how it ended; [retention] in the site file says how long"
            " logs are kept",
        )
    texts = []
    for step_name, number, outcome, uri in rows:
        text = gone
        part = locate_log(uri)
        if part.exists():
            text = part.read().decode("utf-8", "replace")
        if as_json:
            texts.append(
                {"step": step_name, "attempt": number, "outcome": outcome, "uri": uri, "text": text}
            )
        else:
            click.echo(f"== {step_name} attempt {number}: {outcome} ({uri})")
            click.echo(text, nl=not text.endswith("\n"))
    if as_json:
        print_json(texts)


@click.command()
@click.option(
    "--silent-for",
    "silent_for_s",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    help="Seconds without a heartbeat from a supervisor.",
)
@json_option
def reconcile(silent_for_s: float, *, as_json: bool) -> None:
    """End what nobody supervises any more: cancel what runs, record what ended."""
    from muster.jobs.runs.reconcile import reconcile as reconcile_store

    ended = reconcile_store(open_database(), silent_for_s)
    if as_json:
        batches = [
            {"batch": end.batch_id, "elements": [asdict(e) for e in end.elements]}
            for end in ended.batches
        ]
        print_json({"batches": batches, "runs": ended.runs})
        return
    for line in ended.describe():
        click.echo(line)
