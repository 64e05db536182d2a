"""What failed in a campaign, and may be tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.mocks.campaign.placement import STEP
from muster.model.outcome import Outcome
from muster.store.campaign_state import CampaignElement, read_campaign_elements

if TYPE_CHECKING:
    from muster.store.database import Database


def find_failed(
    db: Database, campaign_id: int, max_attempts: int | None = None
) -> tuple[list[CampaignElement], list[CampaignElement]]:
    """Find what failed or was cancelled, split by whether it may be tried again.

    Parameters
    ----------
    max_attempts : int, optional
        Elements with so many attempts in their newest run are not tried again; those that were
        cancelled are.

    Returns
    -------
    may, exhausted : list of CampaignElement
        By realization and redshift.
    """
    failed = read_campaign_elements(db, campaign_id, step=STEP, states=("failed", "cancelled"))
    may: list[CampaignElement] = []
    exhausted: list[CampaignElement] = []
    for element in failed:
        spent = max_attempts is not None and element.attempts >= max_attempts
        (exhausted if spent and element.outcome != Outcome.CANCELLED else may).append(element)
    return may, exhausted
