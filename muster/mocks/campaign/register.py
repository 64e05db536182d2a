"""A campaign's two records: its folder, and the store."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from muster.hashing import hash_json
from muster.mocks.campaign.code_version import read_code_version
from muster.mocks.campaign.init import initialize_campaign
from muster.store.campaigns import create_campaign

if TYPE_CHECKING:
    from muster.mocks.campaign.config import Campaign
    from muster.store.campaigns import CampaignRecord
    from muster.store.database import Database

log = logging.getLogger(__name__)


def register_campaign(
    db: Database,
    campaign: Campaign,
    *,
    allow_dirty: bool = False,
    git_tag: str | None = None,
    descends_from: str | None = None,
) -> CampaignRecord:
    """Initialize a campaign where that was not done, and let the store know it.

    Parameters
    ----------
    allow_dirty, git_tag, descends_from
        As of :func:`muster.mocks.campaign.init.initialize_campaign`.

    Raises
    ------
    ConfigError
        When the code has changes, or the campaign was initialized with another configuration.
    InvalidInput
        When the store knows another campaign in this folder, or of this name and version.
    """
    initialized = initialize_campaign(
        campaign, allow_dirty=allow_dirty, git_tag=git_tag, descends_from=descends_from
    )
    changed = initialized.describe_code_change(read_code_version())
    if changed is not None:
        log.warning("%s", changed)
    return create_campaign(
        db,
        name=campaign.name,
        version=campaign.version,
        folder=campaign.folder_uri,
        config=campaign.config.to_data(),
        config_sha256=identity_sha256(campaign),
        provenance=initialized.model_dump(mode="json"),
        descends_from=initialized.descends_from,
    )


def identity_sha256(campaign: Campaign) -> str:
    """Return the sha256 of all that may not change: further realizations may join a campaign."""
    data = campaign.config.to_data()
    del data["science"]["realizations"]
    return hash_json(data)
