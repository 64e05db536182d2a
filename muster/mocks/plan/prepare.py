"""Before the inspection: the campaign is registered, and what is there is read from the record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.jobs.planning.workflow import Preparation
from muster.mocks.campaign.placement import STEP, place_campaign
from muster.mocks.campaign.register import register_campaign
from muster.mocks.failed import find_failed
from muster.store.campaign_state import find_whole, next_batch_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.mocks.params import MockParams
    from muster.site import Site
    from muster.store.database import Database

CATALOGUE = "catalogue"
"""Name of the output of mocks.populate."""


def prepare_run(db: Database, site: Site, params: MockParams, work_uri: str) -> Preparation:
    """Register a run's campaign, and write for its inspection what the record says is there.

    A dry run registers nothing and belongs to no campaign.

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
    if not params.dry_run:
        campaign_id = register_campaign(db, campaign, allow_dirty=params.allow_dirty).id
    whole = find_whole(db, campaign.folder_uri, STEP, artifact=CATALOGUE)
    rows = [
        [realization, redshift, product.fingerprint, product.bytes, product.uri]
        for (realization, redshift), product in whole.items()
    ]
    inputs: dict[str, Any] = {
        "whole": _write(work_uri, "whole.json", rows),
        "device": "gpu" if placed.resources.gpus else "cpu",
    }
    if campaign_id is not None:
        inputs["first_batch"] = next_batch_number(db, campaign_id, work_uri)
    if params.failed_only:
        inputs["only"] = _write(work_uri, "only.json", _failed(db, campaign_id, params))
    return Preparation(campaign_id, inputs)


def _failed(
    db: Database, campaign_id: int | None, params: MockParams
) -> list[tuple[int, float | None]]:
    if campaign_id is None:
        return []
    failed, _ = find_failed(db, campaign_id, params.max_attempts)
    return [(element.realization, element.redshift) for element in failed]


def _write(work_uri: str, name: str, rows: Sequence[Any]) -> str:
    uri = storage.join(work_uri, name)
    storage.write_bytes(uri, json.dumps(rows).encode())
    return uri
