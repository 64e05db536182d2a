"""A planned run submitted at once, with the scheduler's own dependencies, to be left alone.

Nobody supervises it: what has become of it is looked up when somebody asks, and what failed is
tried again when somebody says so.  The record is the same as of any other run.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.backends.registry import BACKENDS
from muster.errors import ClaimLost, ConfigError, Transient
from muster.jobs.runs.verdict import give_verdict
from muster.jobs.supervision.retry_transient import retry_while_transient
from muster.jobs.supervision.supervisor import Supervisor
from muster.jobs.supervision.waves import find_due
from muster.store import batches, claims, runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.backends import Backends
    from muster.jobs.planning.freeze import Group
    from muster.jobs.planning.workflow import Workflow
    from muster.model.wave import RequiredEnd, Wave
    from muster.store.database import Database

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Submitted:
    """A batch that was submitted.

    Attributes
    ----------
    group, step : str
        Which.
    references : tuple of str
        The scheduler's ids; none where it was not taken.
    problem : str or None
        Why not.
    """

    group: str
    step: str
    references: tuple[str, ...]
    problem: str | None = None


async def check_detachable(db: Database, groups: Sequence[Group]) -> None:
    """Refuse to leave alone what does not outlive this process.

    Raises
    ------
    ConfigError
        When a batch is placed on this machine, or where nobody would keep the order of its steps.
    """
    for group in groups:
        for step, batch_id in group.batches.items():
            batch = await asyncio.to_thread(batches.read_spec, db, batch_id)
            check_pool_detachable(f"{step} of {group.name}", batch.pool, batch.backend)


def check_pool_detachable(where: str, pool: str, backend: str) -> None:
    """Refuse a pool whose jobs cannot be submitted at once and left alone.

    Parameters
    ----------
    where : str
        What is placed there, for the message.

    Raises
    ------
    ConfigError
        When it is on this machine, or keeps no order of jobs.
    """
    kind = BACKENDS[backend]
    if not kind.keeps_order:
        raise ConfigError(
            f"{backend} starts no job when others have ended: nothing on it can be left alone"
            if kind.outlives_supervisor
            else "what runs on this machine cannot be left alone",
            where=where,
            got=f"pool {pool}",
            expected="a pool on a Slurm cluster",
            do="leave --no-wait out, or name a --site whose pools are on Slurm",
        )


async def submit_detached(
    db: Database,
    backends: Backends,
    workflow: Workflow,
    groups: Sequence[Group],
    *,
    fresh: bool = False,
) -> list[Submitted]:
    """Submit every batch of a run's groups, each with what it has to wait for.

    A stage waits until the one before it has ended in any way, and for the success of what the
    workflow says it needs; the final steps, until all groups have.

    Parameters
    ----------
    fresh : bool
        Give all that has not succeeded a new generation.

    """
    done: list[Submitted] = []
    side_by_side, final = workflow.split_groups(groups)
    for group in side_by_side:
        earlier: dict[str, Submitted] = {}
        for stage in workflow.stages:
            present = [step for step in stage if step in group.batches]
            for step in present:
                done.append(
                    await _submit_batch(db, backends, group, step, _after(workflow, earlier), fresh)
                )
            earlier |= {one.step: one for one in done[-len(present) :] if present}
    for group in final:
        for step in (step for step in workflow.final_steps if step in group.batches):
            references = [reference for one in done for reference in one.references]
            depends_on: dict[RequiredEnd, list[str]] = {"any": references} if references else {}
            done.append(await _submit_batch(db, backends, group, step, depends_on, fresh))
    return done


async def look_at_detached(db: Database, backends: Backends, run_id: str | None = None) -> int:
    """Record what has become of what was left alone, of one run or of all; count the batches.

    A run of which everything has ended well is judged; of another, who follows it may try again.

    Raises
    ------
    Transient
        When a cluster does not answer.
    """

    async def look(batch_id: str) -> None:
        supervisor = await Supervisor.take_over(db, batch_id, backends)
        try:
            await supervisor.look()  # to say what is wanted of the cluster: all are looked at once
            await supervisor.backend.wait_for_change()
            await supervisor.look()
            await asyncio.to_thread(claims.detach, db, supervisor.claim)
        except ClaimLost as error:
            log.info("left alone: %s", error)

    found = await asyncio.to_thread(claims.find_detached, db, run_id)
    await asyncio.gather(*(look(batch_id) for batch_id in found))
    for over in await asyncio.to_thread(runs.find_done_detached, db, run_id):
        await asyncio.to_thread(give_verdict, db, over)
    return len(found)


def _after(
    workflow: Workflow, earlier: Mapping[str, Submitted]
) -> dict[RequiredEnd, list[str]] | str:
    """Say what a batch of the next stage waits for; or why it cannot be submitted."""
    after: dict[RequiredEnd, list[str]] = {"ok": [], "any": []}
    for step, one in earlier.items():
        needed = step in workflow.needs
        if needed and one.problem is not None:
            return f"waits for {step}, which was not submitted"
        after["ok" if needed else "any"] += one.references
    return {end: references for end, references in after.items() if references}


async def _submit_batch(
    db: Database,
    backends: Backends,
    group: Group,
    step: str,
    depends_on: Mapping[RequiredEnd, Sequence[str]] | str,
    fresh: bool,
) -> Submitted:
    if isinstance(depends_on, str):
        return Submitted(group.name, step, (), depends_on)
    supervisor = await Supervisor.take_over(db, group.batches[step], backends, fresh=fresh)
    await asyncio.to_thread(claims.detach, db, supervisor.claim)
    while True:
        record = await asyncio.to_thread(batches.read_batch, db, supervisor.claim)
        if record.cancel_requested:
            return Submitted(group.name, step, (), "cancelled")
        due, _ = find_due(record, supervisor.back_off)
        if not due:
            break
        intended = await supervisor.intend(record, due[0], depends_on)
        if intended is None:
            log.info("%s of %s: the cluster takes no more jobs now", step, group.name)
            await supervisor.backend.wait_for_change()
            continue
        await _bring(supervisor, *intended)
    await asyncio.to_thread(claims.detach, db, supervisor.claim)  # and nobody follows it now
    references = tuple(s.reference for s in record.submissions if s.reference is not None)
    refused = [e.attempts[-1].message for e in record.elements if e.attempts and not references]
    return Submitted(group.name, step, references, refused[0] if refused else None)


async def _bring(supervisor: Supervisor, submission_id: int, wave: Wave) -> None:
    """Hand a wave over until it is known what has become of it."""
    known = True

    async def act() -> None:
        nonlocal known
        try:
            if not known:
                reference = await supervisor.backend.find(wave)
                if reference is not None:
                    await asyncio.to_thread(
                        batches.record_submitted,
                        supervisor.db,
                        supervisor.claim,
                        submission_id,
                        reference,
                    )
                    return
            await supervisor.hand_over(submission_id, wave)
        except Transient:
            known = False
            raise

    await retry_while_transient(act)
