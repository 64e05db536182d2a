"""The small job that a doctor sends to a pool: what is asked of it, and what its report says."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from muster import __version__, storage
from muster.doctor.check import Check, bad, doubtful
from muster.model.batch import Batch, Element

if TYPE_CHECKING:
    from muster.model.resources import Resources
    from muster.pools import Pool
    from muster.site import Site

LONGEST_SKEW_S = 30.0
"""Clocks that differ by more make times that are compared wrong."""


def make_probe(site: Site, name: str, pool: Pool, resources: Resources) -> Batch:
    """Make a batch of one small element, as a plan would freeze it."""
    folder = storage.join(site.work_uri, "doctor", uuid.uuid4().hex)
    return Batch(
        id=f"doctor-{uuid.uuid4().hex[:10]}.{name}",
        run="doctor",
        step="site.probe",
        target=pool.target(site),
        pool=name,
        slots=pool.slots,
        resources=resources,
        caps=pool.caps,
        elements=(
            Element(index=0, name="probe", outputs={"report": storage.join(folder, "probe.json")}),
        ),
        work_uri=folder,
        pool_uri=storage.join(site.work_uri, "pools", name),
    )


def read_report(batch: Batch) -> dict[str, Any]:
    """Read what the job has found where it ran."""
    report: dict[str, Any] = json.loads(storage.read_text(batch.elements[0].outputs["report"]))
    return report


def check_software(label: str, facts: dict[str, Any]) -> list[Check]:
    """Say what of the software there is not as it is here."""
    checks = []
    if facts["muster"] != __version__:
        checks.append(
            bad(
                label,
                "another version of Muster there",
                where=facts["executable"],
                got=facts["muster"],
                expected=f"{__version__}, as here",
                do="install the same version",
            )
        )
    if facts["missing_packages"]:
        missing = ", ".join(facts["missing_packages"])
        checks.append(
            bad(
                label,
                f"lacks {missing}",
                where=facts["executable"],
                do="install the extra 'compute' there",
            )
        )
    return checks


def check_store(label: str, facts: dict[str, Any]) -> list[Check]:
    """Say whether a job that was told the store's URL has reached it."""
    store = facts.get("store")
    if store is None:
        return []
    if "problem" in store:
        return [
            bad(
                label,
                "the store is not reached from there",
                where=facts["host"],
                got=store["problem"],
                do="let the network there reach Postgres, and see that the URL is right there",
            )
        ]
    if store["found"] != store["expected"]:
        return [
            bad(
                label,
                "the store that jobs are told there is at another version",
                where=facts["host"],
                got=store["found"],
                expected=store["expected"],
                do="run 'muster migrate', or correct the URL that jobs are told",
            )
        ]
    return [Check(label, True, f"the store is reached from there, at version {store['found']}")]


def check_gpus(
    label: str,
    facts: dict[str, Any],
    gpus: int,
    *,
    do_without: str = "ask the administrators for gres.conf of that node",
    do_unlisted: str = "see that the driver is loaded there, and a container is started with --nv",
) -> list[Check]:
    """Say which GPUs a job has found that asked for some.

    Parameters
    ----------
    do_without, do_unlisted : str
        Advice where it found none, and where it was given one that nvidia-smi does not list.
    """
    if not gpus:
        return []
    visible, listed = facts.get("cuda_visible_devices"), facts.get("gpus", [])
    given = [f"CUDA_VISIBLE_DEVICES={visible}"] if visible else facts.get("devices", [])
    if not given and not listed:
        return [
            bad(
                label,
                "the job asked for a GPU and sees none",
                where=facts["host"],
                got="no CUDA_VISIBLE_DEVICES, nothing from nvidia-smi",
                do=do_without,
            )
        ]
    if not listed:
        return [
            doubtful(
                label,
                f"the job was given a GPU ({', '.join(given)}), and nvidia-smi is not "
                f"there or finds none on {facts['host']}",
                do=do_unlisted,
            )
        ]
    return [Check(label, True, f"the job was given {'; '.join(listed)}")]


def ahead_s(told_s: float, earliest_s: float, latest_s: float, resolution_s: float = 0.0) -> float:
    """Say by how much a clock is surely ahead of this machine's, in seconds; negative: behind.

    Parameters
    ----------
    told_s : float
        What it told, in seconds since 1970, cut off to ``resolution_s``.
    earliest_s, latest_s : float
        Between which moments of this machine's clock it was read.
    """
    if told_s > latest_s:
        return told_s - latest_s
    return min(0.0, told_s + resolution_s - earliest_s)


def check_clocks(label: str, ahead: dict[str, float]) -> Check:
    """Compare clocks with one another: whose → by how much it is ahead of this machine's, in s."""
    clocks = {"this machine": 0.0, **ahead}
    first, last = min(clocks, key=lambda w: clocks[w]), max(clocks, key=lambda w: clocks[w])
    apart_s = clocks[last] - clocks[first]
    if apart_s > LONGEST_SKEW_S:
        return doubtful(
            label,
            f"the clock of {last} is {apart_s:.0f} s ahead of that of {first}: times of jobs, "
            "which are compared, are wrong by as much",
            do="have both keep time by NTP",
        )
    names = [*clocks]
    said = f"{', '.join(names[:-1])} and {names[-1]}"
    return Check(label, True, f"the clocks of {said} agree" + (
        f" within {apart_s:.0f} s" if apart_s >= 1 else ""
    ))  # fmt: skip
