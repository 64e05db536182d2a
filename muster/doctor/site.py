"""Trying a site before it is trusted: each check says what it found and, where bad, what to do."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

from muster import storage
from muster.backends import Backends
from muster.backends.registry import BACKENDS
from muster.doctor.check import Check
from muster.doctor.probe import check_software, make_probe, read_report
from muster.errors import MusterError
from muster.imports import load_named
from muster.model.attempt import Result
from muster.model.fence import write_fences
from muster.model.outcome import ALIVE, JobState, Outcome
from muster.model.resources import Resources
from muster.model.target import LocalTarget
from muster.model.wave import Wave
from muster.store.schema import read_versions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from muster.model.batch import Batch
    from muster.pools import Pool
    from muster.site import Site
    from muster.store.database import Database

PROBE_PATIENCE_S = 120.0


async def examine_site(
    site: Site, db: Database, patience_s: float = PROBE_PATIENCE_S
) -> AsyncIterator[Check]:
    """Try everything a run on this site needs, and tell each finding as it is made.

    Parameters
    ----------
    site : Site
        Which.
    db : Database
        The store; it need not answer.
    patience_s : float
        How long a job may wait before it is given up, in seconds.
    """
    store = await asyncio.to_thread(_check_store, db.url)
    yield store
    work = await asyncio.to_thread(_check_work, site)
    yield work
    clusters: dict[tuple[str, str], dict[str, Pool]] = {}
    for name, pool in site.pools.items():
        target, examiner = pool.target(site), BACKENDS[pool.backend].examiner
        if examiner is None or isinstance(target, LocalTarget):
            for check in await _check_pool(db, site, name, pool, patience_s):
                yield check
        else:
            clusters.setdefault((examiner, target.cluster.name), {})[name] = pool
    missing = next((check.name for check in (store, work) if not check.good), None)
    for (examiner, cluster), pools in clusters.items():
        if missing is not None:
            yield Check(f"cluster {cluster}", False, f"not tried: see {missing}")
            continue
        try:
            async for check in load_named(examiner)(db, site, pools, patience_s).examine():
                yield check
        except MusterError as error:
            yield Check(f"cluster {cluster}", False, str(error))


def _check_store(url: str) -> Check:
    try:
        found, expected = read_versions(url)
    except MusterError as error:
        return Check("store", False, str(error))
    if found != expected:
        return Check("store", False, f"at version {found}, not {expected}: run 'muster migrate'")
    return Check("store", True, f"at version {found}")


def _check_work(site: Site) -> Check:
    probe = storage.join(site.work_uri, f"doctor-{uuid.uuid4().hex}")
    try:
        storage.write_bytes(probe, b"muster")
        same = storage.read_bytes(probe) == b"muster"
        storage.delete(probe)
    except MusterError as error:
        return Check("work directory", False, str(error))
    return Check("work directory", same, f"{site.work_uri} can be written and read")


async def _check_pool(
    db: Database, site: Site, name: str, pool: Pool, patience_s: float
) -> list[Check]:
    """Send one small element through the pool's backend, as a batch would."""
    batch = make_probe(site, name, pool, Resources())
    label = f"pool {name}"
    started = time.monotonic()
    try:
        result = await _run_probe(db, batch, patience_s)
    except MusterError as error:
        return [Check(label, False, str(error))]
    if result is None:
        missing = f"no result within {patience_s:.0f} s; see {batch.work_uri}"
        return [Check(label, False, missing)]
    if result.outcome != Outcome.SUCCEEDED:
        return [Check(label, False, f"{result.outcome}: {result.message}; see {batch.work_uri}")]
    facts = read_report(batch)
    took_s = time.monotonic() - started
    return [
        Check(
            label,
            True,
            f"{pool.backend}, {pool.slots} slots; a job on {facts['host']} took {took_s:.1f} s: "
            f"Python {facts['python']}, Muster {facts['muster']}, {facts['cpus']} CPUs, "
            f"{facts['memory_mib']} MiB of memory, {facts['free_mib_at_work']} MiB free at work",
        ),
        *check_software(label, facts),
        *_check_placements(site, name, facts["cpus"], facts["memory_mib"]),
    ]


def _check_placements(site: Site, name: str, cpus: int, memory_mib: int) -> list[Check]:
    """Compare what steps ask for with what the node that answered has."""
    problems = []
    for step, placement in site.placement.items():
        if placement.pool != name:
            continue
        if placement.cpus > cpus:
            problems.append(f"{step} asks for {placement.cpus} CPUs, the node has {cpus}")
        if placement.memory is not None and placement.memory > memory_mib:
            problems.append(
                f"{step} asks for {placement.memory} MiB of memory, the node has {memory_mib}"
            )
    return [Check(f"pool {name}", False, problem) for problem in problems]


async def _run_probe(db: Database, batch: Batch, patience_s: float) -> Result | None:
    backends = Backends(db)
    backend = backends.open(batch)
    wave = Wave(batch, f"{batch.id}.w1", {0: 1}, batch.resources)
    await asyncio.to_thread(write_fences, wave)
    reference = await backend.submit(wave)
    deadline = time.monotonic() + patience_s
    try:
        while time.monotonic() < deadline:
            seen = (await backend.observe(wave, reference))[0]
            if seen.state not in ALIVE and seen.state is not JobState.UNKNOWN:
                break
            await backend.wait_for_change()
    finally:
        await backend.cancel(wave, reference)
        await backends.close()
    uri = batch.result_uri(0, 1)
    if not await asyncio.to_thread(storage.exists, uri):
        return None
    return Result.model_validate_json(await asyncio.to_thread(storage.read_bytes, uri))
