"""The campaign that a person means: by its file, its folder, or its name in the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from muster import storage
from muster.errors import ConfigError, MissingInput
from muster.mocks.campaign.config import Campaign, parse_campaign, read_campaign
from muster.mocks.campaign.folder import CampaignFolder
from muster.store.campaigns import CampaignRecord, find_campaign

if TYPE_CHECKING:
    from muster.store.database import Database

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class FoundCampaign:
    """A campaign, and its record where the store has one.

    Attributes
    ----------
    campaign : Campaign
        As its file, or its record, says it.
    record : CampaignRecord or None
        None before it is initialized.
    """

    campaign: Campaign
    record: CampaignRecord | None

    def require_record(self) -> CampaignRecord:
        """Return the record.

        Raises
        ------
        MissingInput
            When the campaign was never initialized with this store.
        """
        if self.record is None:
            raise MissingInput(
                "the store does not know the campaign",
                where=self.campaign.where,
                got=self.campaign.label,
                do="'muster campaign submit' runs it",
            )
        return self.record


def read_named_campaign(text: str) -> Campaign | None:
    """Read the campaign of a file or a campaign's folder; None where the text is neither.

    Raises
    ------
    MissingInput
        When it is a file that is not there.
    CampaignFileError
        When it is wrong.
    ConfigError
        When the folder was moved.
    """
    path = Path(text.removeprefix("file://"))
    if not path.is_dir():
        return read_campaign(path) if path.suffix in SUFFIXES else None
    campaign = read_campaign(Path(CampaignFolder(str(path.absolute())).config_uri))
    place = storage.local_path(campaign.folder_uri)
    if place is None or place.resolve() != path.resolve():
        raise ConfigError(
            "the folder is not where its campaign lies",
            where=path.absolute(),
            expected=campaign.folder_uri,
            do="move it back, or give the campaign file a base_path and a version of its own",
        )
    return campaign


def find_campaign_by(db: Database, text: str) -> FoundCampaign:
    """Find a campaign by its file, its folder, its VERSION_NAME or its name.

    Raises
    ------
    MissingInput
        When there is none.
    InvalidInput
        When several fit, or its file is wrong.
    """
    campaign = read_named_campaign(text)
    if campaign is None:
        record = find_campaign(db, text)
        return FoundCampaign(parse_campaign(record.config, record.folder), record)
    return find_record_of(db, campaign)


def find_record_of(db: Database, campaign: Campaign) -> FoundCampaign:
    """Find the record of a campaign, where the store has one."""
    try:
        return FoundCampaign(campaign, find_campaign(db, campaign.folder_uri))
    except MissingInput:
        return FoundCampaign(campaign, None)


def campaign_file_of(campaign: Campaign) -> str | None:
    """Return the file that a campaign was read from; None where it was read from the store."""
    path = storage.local_path(campaign.where)
    return str(path.absolute()) if path is not None and path.suffix in SUFFIXES else None
