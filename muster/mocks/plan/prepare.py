"""Before the inspection: the campaign is registered, and what is there is read from the record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.errors import MissingInput
from muster.jobs.planning.workflow import Preparation
from muster.mocks.campaign.code_version import read_code_version
from muster.mocks.campaign.estimate_size import MOST_GROUPS
from muster.mocks.campaign.placement import STEP, place_campaign
from muster.mocks.campaign.register import register_campaign
from muster.mocks.campaign.selection import select
from muster.mocks.failed import find_failed
from muster.store.campaign_state import find_whole
from muster.store.campaigns import find_campaign, reserve_batch_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.mocks.params import MockParams
    from muster.site import Site
    from muster.store.database import Database

CATALOGUE = "catalogue"
"""Name of the output of mocks.populate."""


def prepare_run(
    db: Database, site: Site, params: MockParams, work_uri: str, *, record: bool = True
) -> Preparation:
    """Register a run's campaign, and write for its inspection what the record says is there.

    A dry run registers nothing and belongs to no campaign.

    Parameters
    ----------
    record : bool
        Register the campaign, and reserve numbers for the run's batches.

    Raises
    ------
    CampaignFileError
        When the site cannot give what the campaign asks for.
    InvalidInput
        When the campaign is there already with another configuration.
    """
    campaign = params.campaign
    placed = place_campaign(campaign, site)
    campaign_id = None
    if record and not params.dry_run:
        campaign_id = register_campaign(db, campaign, allow_dirty=params.allow_dirty).id
    whole = find_whole(db, campaign.folder_uri, STEP, artifact=CATALOGUE)
    rows = [
        [realization, redshift, p.fingerprint, p.bytes, p.uri, p.sha256]
        for (realization, redshift), p in whole.items()
    ]
    inputs: dict[str, Any] = {
        "whole": _write(work_uri, "whole.json", rows),
        "device": "gpu" if placed.resources.gpus else "cpu",
        "code": read_code_version().text,
    }
    failed = _failed(db, params) if params.failed_only else None
    if failed is not None:
        inputs["only"] = _write(work_uri, "only.json", failed)
    if campaign_id is not None:
        count = _most_batches(params, failed)
        inputs["first_batch"] = reserve_batch_numbers(db, campaign_id, work_uri, count)
    return Preparation(campaign_id, inputs)


def _failed(db: Database, params: MockParams) -> list[tuple[int, float | None]]:
    try:
        campaign = find_campaign(db, params.campaign.folder_uri)
    except MissingInput:
        return []
    failed, _ = find_failed(db, campaign.id, params.max_attempts)
    return [(element.realization, element.redshift) for element in failed]


def _most_batches(params: MockParams, failed: Sequence[Any] | None) -> int:
    """Return how many batches a run has at most: one an array, up to the most of a run."""
    elements = len(select(params.campaign, params.selection))
    for most in (params.first, None if failed is None else len(failed)):
        elements = elements if most is None else min(elements, most)
    return max(1, min(MOST_GROUPS, -(-elements // params.campaign.execution.batch_size)))


def _write(work_uri: str, name: str, rows: Sequence[Any]) -> str:
    uri = storage.join(work_uri, name)
    storage.write_bytes(uri, json.dumps(rows).encode())
    return uri
