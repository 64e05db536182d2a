"""Trying a site before it is trusted: each check says what it found and, where bad, what to do."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster import storage
from muster.backends import Backends
from muster.backends.contract import Wave
from muster.errors import MusterError
from muster.jobs.model import Batch, Element, Resources, Result
from muster.jobs.orders import write_orders
from muster.jobs.outcome import ALIVE, Outcome, Sighting
from muster.store.schema import read_versions

if TYPE_CHECKING:
    from muster.site import Pool, Site
    from muster.store.database import Database

PROBE_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Check:
    """One thing that was tried.

    Attributes
    ----------
    name : str
        What.
    good : bool
        Whether it is as it should be.
    finding : str
        What was found, in a line.
    """

    name: str
    good: bool
    finding: str


async def examine_site(site: Site, db: Database) -> list[Check]:
    """Try everything a run on this site needs."""
    checks = [
        await asyncio.to_thread(_check_store, db.url),
        await asyncio.to_thread(_check_work, site),
    ]
    for name, pool in site.pools.items():
        checks.extend(await _check_pool(db, site, name, pool))
    return checks


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


async def _check_pool(db: Database, site: Site, name: str, pool: Pool) -> list[Check]:
    """Send one small element through the pool's backend, as a batch would."""
    folder = storage.join(site.work_uri, "doctor", uuid.uuid4().hex)
    report = storage.join(folder, "probe.json")
    batch = Batch(
        id=f"doctor-{uuid.uuid4().hex[:10]}.{name}",
        run="doctor",
        step="site.probe",
        backend=pool.backend,
        pool=name,
        slots=pool.slots,
        resources=Resources(cpus=1),
        elements=(Element(index=0, name="probe", outputs={"report": report}),),
        work_uri=folder,
        pool_uri=storage.join(site.work_uri, "pools", name),
    )
    label = f"pool {name}"
    started = time.monotonic()
    try:
        result = await _run_probe(db, batch)
    except MusterError as error:
        return [Check(label, False, str(error))]
    if result is None:
        return [Check(label, False, f"no result within {PROBE_PATIENCE_S:.0f} s; see {folder}")]
    if result.outcome != Outcome.SUCCEEDED:
        return [Check(label, False, f"{result.outcome}: {result.message}; see {folder}")]
    facts = json.loads(storage.read_text(report))
    took_s = time.monotonic() - started
    checks = [
        Check(
            label,
            True,
            f"{pool.backend}, {pool.slots} slots; a job on {facts['host']} took {took_s:.1f} s: "
            f"Python {facts['python']}, Muster {facts['muster']}, {facts['cpus']} CPUs, "
            f"{facts['memory_mib']} MiB of memory, {facts['free_mib_at_work']} MiB free at work",
        )
    ]
    if facts["missing_packages"]:
        missing = ", ".join(facts["missing_packages"])
        checks.append(Check(label, False, f"lacks {missing}: install the extra 'compute' there"))
    checks.extend(_check_placements(site, name, facts["cpus"], facts["memory_mib"]))
    return checks


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


async def _run_probe(db: Database, batch: Batch) -> Result | None:
    backends = Backends(db)
    backend = backends.open(batch)
    wave = Wave(batch, f"{batch.id}.w1", {0: 1}, batch.resources)
    await asyncio.to_thread(write_orders, wave)
    reference = await backend.submit(wave)
    deadline = time.monotonic() + PROBE_PATIENCE_S
    try:
        while time.monotonic() < deadline:
            seen = (await backend.observe(wave, reference))[0]
            if seen.sighting not in ALIVE and seen.sighting is not Sighting.UNKNOWN:
                break
            await backend.news()
    finally:
        await backend.cancel(wave, reference)
        await backends.close()
    uri = batch.result_uri(0, 1)
    if not await asyncio.to_thread(storage.exists, uri):
        return None
    return Result.model_validate_json(await asyncio.to_thread(storage.read_bytes, uri))
