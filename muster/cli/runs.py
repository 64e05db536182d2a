"""Commands that go on with a run: wait for it, cancel it, try again what failed."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import click

from muster.cli.following import print_submitted, report_run, run_until_told, telling_progress
from muster.cli.options import closing_json_option
from muster.cli.session import open_database
from muster.errors import InvalidInput

if TYPE_CHECKING:
    from muster.jobs.planning.freeze import Group
    from muster.store.database import Database
    from muster.store.records import Run


@click.command()
@click.argument("run")
@closing_json_option
def wait(run: str, *, as_json: bool) -> int:
    """Follow a RUN that was submitted with --no-wait to its end.

    What has ended is recorded, what failed for no fault of its own is tried again, and the run is
    judged.  Ctrl-C leaves its jobs alone.
    """
    from muster.store import runs
    from muster.store.records import RunState

    db = open_database()
    found = _find_planned(db, run)
    if found.state is not RunState.PLANNED:
        raise InvalidInput(
            "the run is over", got=f"{found.id}: {found.state}", do="'muster retry' tries again"
        )
    return _follow(db, found, runs.read_groups(db, found.id), fresh=False, as_json=as_json)


@click.command()
@click.argument("run")
@click.option("--no-wait", is_flag=True, help="Submit what is missing and return.")
@closing_json_option
def retry(run: str, *, no_wait: bool, as_json: bool) -> int:
    """Try again what has not succeeded in a RUN of the command line; what has is left as it is."""
    from muster.backends import Backends
    from muster.jobs.planning.freeze import Group
    from muster.jobs.planning.workflow import load_workflow
    from muster.jobs.runs.detached import check_detachable, submit_detached
    from muster.store import runs
    from muster.store.records import RunState

    db = open_database()
    found = _find_planned(db, run)
    workflow = load_workflow(found.workflow)
    if found.state not in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED):
        raise InvalidInput(
            "the run is not over", got=f"{found.id}: {found.state}", do="'muster wait' follows it"
        )
    groups = runs.read_groups(db, found.id)
    if not no_wait:
        runs.reopen_run(db, found.id)
        return _follow(db, found, groups, fresh=True, as_json=as_json)
    wanted = [
        Group(name, found.id, missing, {})
        for name, steps in groups.items()
        if workflow.inspect not in steps and (missing := _missing(db, steps))
    ]
    if not wanted:
        raise InvalidInput("nothing is missing", got=f"{found.id}: {found.state}")

    async def submit() -> int:
        backends = Backends(db)
        try:
            await check_detachable(db, wanted)
            await asyncio.to_thread(runs.reopen_run, db, found.id)
            done = await submit_detached(db, backends, workflow, wanted, fresh=True)
        finally:
            await backends.close()
        return print_submitted(found.id, done, as_json=as_json)

    return run_until_told(submit())


@click.command()
@click.argument("run")
def cancel(run: str) -> int:
    """Cancel a RUN: end all that it has open, verified, and start nothing more of it."""
    from muster.jobs.runs.cancel_run import cancel_run
    from muster.store import runs

    db = open_database()
    found = runs.find_run(db, run)
    for line in run_until_told(cancel_run(db, found.id)).describe():
        click.echo(line)
    return os.EX_OK


def _find_planned(db: Database, text: str) -> Run:
    from muster.store import runs
    from muster.store.claims import is_followed

    found = runs.find_run(db, text)
    if found.planned_at is None:
        raise InvalidInput(
            "the run has no plan", got=f"{found.id}: {found.state}", do="start it anew"
        )
    if ".cli__" not in found.id:
        raise InvalidInput("the run is Airflow's", got=found.id, do="follow or clear it there")
    if is_followed(db, found.id):
        raise InvalidInput(
            "somebody follows the run already", got=found.id, do="'muster status' shows it"
        )
    return found


def _missing(db: Database, steps: dict[str, str]) -> dict[str, str]:
    """Leave out the batches that have succeeded."""
    from muster.jobs.supervision.batch_end import read_end

    return {s: batch for s, batch in steps.items() if not read_end(db, batch).succeeded}


def _follow(
    db: Database, run: Run, groups: dict[str, dict[str, str]], *, fresh: bool, as_json: bool
) -> int:
    from muster.backends import Backends
    from muster.jobs.planning.freeze import Group
    from muster.jobs.planning.workflow import load_workflow
    from muster.jobs.runs.follow_run import RunFollower
    from muster.jobs.runs.verdict import give_verdict

    workflow = load_workflow(run.workflow)
    wanted: list[Group] = [
        Group(name, run.id, steps, {})
        for name, steps in groups.items()
        if workflow.inspect not in steps
    ]

    async def follow() -> None:
        backends = Backends(db)
        try:
            follower = RunFollower(db, backends, workflow, tell, leave_when_interrupted=True)
            await follower.follow(wanted, fresh=fresh)
        finally:
            await backends.close()

    total = sum(len(group.batches) for group in wanted)
    with telling_progress(db, run.id, total) as tell:
        run_until_told(follow())
    verdict = give_verdict(db, run.id, leave_cancelled=True)
    report_run(db, run.id, verdict, as_json=as_json)
    return os.EX_OK if verdict.good else 1
