"""Step mocks.manifest: the campaign's manifest and record, from what the store knows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.mocks.campaign.manifest import DATABASE, JOBS, MANIFEST, TABLE, publish_manifest
from muster.mocks.campaign.placement import STEP
from muster.mocks.plan.prepare import CATALOGUE
from muster.model.outcome import Outcome
from muster.model.plan import Decision
from muster.store.campaign_state import find_whole, read_campaign_elements
from muster.store.campaigns import find_campaign, hold_record_lock
from muster.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from muster.model.step import StepContext
    from muster.store.campaign_state import CampaignElement, WholeProduct


LOCK_WAIT_S = 600.0
"""How long a run waits for another one of the campaign that writes the record; it takes seconds."""


def record_campaign(
    *,
    folder: str,
    campaign: Mapping[str, Any],
    expected: int,
    context: StepContext,
    manifest: Path | None = None,
    table: Path | None = None,
    jobs: Path | None = None,
    database: Path | None = None,
) -> dict[str, Any]:
    """Write the manifest of a campaign's catalogues, its jobs and its small database.

    Runs of a campaign may end at the same time, and the newest state is to stay.  So the store is
    read, and the files are published, under one lock: the step has no outputs that its runner
    would publish later.

    Parameters and returned facts are those of
    :func:`muster.mocks.campaign.manifest.write_manifest`; the facts come from the store, which
    the job is told of.  Batches that were frozen before have the files as outputs, too, and get
    copies of them.

    Raises
    ------
    MissingInput
        When the store does not know the campaign.
    Transient
        When another run holds the lock for too long, or the lock is lost.
    """
    db = Database.from_environment()
    facts = context.scratch / "facts.json"
    with hold_record_lock(db, find_campaign(db, folder).id, LOCK_WAIT_S) as lock:
        facts.write_text(json.dumps(read_facts(db, folder)), encoding="utf-8")
        done = publish_manifest(
            folder,
            check=lock.check,
            campaign=campaign,
            expected=expected,
            facts=str(facts),
            context=context,
        )
        outputs = {MANIFEST: manifest, TABLE: table, JOBS: jobs, DATABASE: database}
        for name, output in outputs.items():
            if output is not None:
                storage.fetch(storage.join(folder, name), output)
    return done


def read_facts(db: Database, folder: str) -> dict[str, Any]:
    """Read all that the store knows of a campaign's catalogues and jobs.

    Returns
    -------
    dict
        As :class:`muster.mocks.campaign.facts.CampaignFacts` has it.
    """
    campaign = find_campaign(db, folder)
    whole = find_whole(db, campaign, STEP, artifact=CATALOGUE)
    catalogues = [
        {
            "realization": realization,
            "redshift": redshift,
            "uri": product.uri,
            "sha256": product.sha256,
            "bytes": product.bytes,
            "fingerprint": product.fingerprint,
        }
        for (realization, redshift), product in whole.items()
    ]
    jobs = []
    for element in read_campaign_elements(db, campaign.id):
        made = None
        if element.step == STEP and element.redshift is not None:
            made = whole.get((element.realization, element.redshift))
        jobs.append(_state_job(element, made))
    return {"catalogues": catalogues, "jobs": jobs}


def _state_job(element: CampaignElement, made: WholeProduct | None) -> dict[str, Any]:
    """State an element; of a catalogue that a run took as it was, the attempt that made it."""
    job = {
        "step": element.step,
        "name": element.name,
        "run": element.run_id,
        "realization": element.realization,
        "redshift": element.redshift,
        "state": element.state,
        "outcome": element.outcome,
        "seconds": element.seconds,
        "max_rss_mib": element.max_rss_mib,
        "host": element.host,
        "attempts": element.attempts,
        "message": element.message,
    }
    if element.outcome != Decision.REUSED or made is None:
        return job
    return job | {
        "run": made.run_id,
        "outcome": str(Outcome.SUCCEEDED),
        "seconds": made.seconds,
        "max_rss_mib": made.max_rss_mib,
        "host": made.host,
        "attempts": made.attempts,
        "message": None,
    }
