"""Campaigns in the store: what each is made from, and which runs it has."""

from __future__ import annotations

import json
import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.errors import InvalidInput, MissingInput, Transient
from muster.store.locks import hold_lock
from muster.store.runs import RUN_COLUMNS, make_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from muster.store.database import Database
    from muster.store.locks import HeldLock
    from muster.store.records import Run

log = logging.getLogger(__name__)

_COLUMNS = "id, name, version, folder, config, config_sha256, provenance, descends_from, created_at"

_FIND = f"""
    SELECT {_COLUMNS} FROM campaign
    WHERE folder = %(folder)s OR name = %(text)s OR lower(version || ' ' || name) = lower(%(text)s)
       OR lower(name || ' ' || version) = lower(%(text)s)
       OR regexp_replace(folder, '^.*/', '') = %(text)s
    ORDER BY folder = %(folder)s DESC, created_at DESC, id DESC
"""


@dataclass(frozen=True)
class CampaignRecord:
    """A campaign in the store.

    Attributes
    ----------
    id : int
        In the store.
    name, version : str
        As the campaign file has them.
    folder : str
        URI of its folder, VERSION_NAME.
    config : dict
        The campaign file, as it was validated.
    config_sha256 : str
        sha256 of its canonical form.
    provenance : dict
        Code version, packages, host: what it was initialized with.
    descends_from : str or None
        VERSION_NAME of the campaign that it was changed from.
    created_at : datetime
        When it was initialized, in UTC.
    """

    id: int
    name: str
    version: str
    folder: str
    config: dict[str, Any]
    config_sha256: str
    provenance: dict[str, Any]
    descends_from: str | None
    created_at: datetime


def create_campaign(
    db: Database,
    *,
    name: str,
    version: str,
    folder: str,
    config: Mapping[str, Any],
    config_sha256: str,
    provenance: Mapping[str, Any] | None = None,
    descends_from: str | None = None,
) -> CampaignRecord:
    """Record a campaign, or what has joined the one that is there; else a campaign is immutable.

    Parameters
    ----------
    folder : str
        URI of its folder; of several campaigns, no two lie in the same.
    config_sha256 : str
        sha256 of all of the configuration that may not change, in lower-case hexadecimal.

    Raises
    ------
    InvalidInput
        When the version is there with another configuration or folder, or the folder belongs to
        another campaign.
    """
    with db.transaction() as cursor:
        cursor.execute(
            f"INSERT INTO campaign (name, version, folder, config, config_sha256, provenance,"
            f" descends_from) VALUES (%s, %s, %s, %s, %s, %s, %s)"
            f" ON CONFLICT DO NOTHING RETURNING {_COLUMNS}",
            (
                *(name, version, name_folder(folder), json.dumps(config), config_sha256),
                *(json.dumps(provenance or {}), descends_from),
            ),
        )
        row = cursor.fetchone()
        if row is not None:
            return CampaignRecord(*row)
        cursor.execute(
            "UPDATE campaign SET config = %s, provenance = coalesce(%s, provenance)"
            " WHERE name = %s AND version = %s AND folder = %s AND config_sha256 = %s",
            (
                *(json.dumps(config), None if provenance is None else json.dumps(provenance)),
                *(name, version, name_folder(folder), config_sha256),
            ),
        )
        cursor.execute(
            f"SELECT {_COLUMNS} FROM campaign WHERE (name = %s AND version = %s) OR folder = %s"
            " ORDER BY name = %s AND version = %s DESC LIMIT 1",
            (name, version, name_folder(folder), name, version),
        )
        found = CampaignRecord(*(cursor.fetchone() or ()))
    wanted = (name, version, name_folder(folder), config_sha256)
    if (found.name, found.version, found.folder, found.config_sha256) != wanted:
        raise InvalidInput(
            "the campaign is there already, and is another one",
            where=found.folder,
            got=f"{version} of {name} in {name_folder(folder)}, configuration {config_sha256[:12]}",
            expected=f"{found.version} of {found.name}, configuration {found.config_sha256[:12]}",
            do="give a changed campaign another version",
        )
    return found


def read_campaign(db: Database, campaign_id: int) -> CampaignRecord:
    """Read a campaign by its id.

    Raises
    ------
    MissingInput
        When there is none.
    """
    with db.transaction() as cursor:
        cursor.execute(f"SELECT {_COLUMNS} FROM campaign WHERE id = %s", (campaign_id,))
        row = cursor.fetchone()
    if row is None:
        raise MissingInput("the store knows no such campaign", got=campaign_id)
    return CampaignRecord(*row)


def find_campaign(db: Database, text: str, version: str | None = None) -> CampaignRecord:
    """Find a campaign as a person names it: folder, VERSION_NAME, name and version, or name.

    Of a name alone that several versions have, the newest is meant.

    Raises
    ------
    MissingInput
        When none fits.
    InvalidInput
        When campaigns of several names fit.
    """
    with db.transaction() as cursor:
        cursor.execute(_FIND, {"text": text.rstrip("/"), "folder": name_folder(text)})
        found = [CampaignRecord(*row) for row in cursor.fetchall()]
    found = [c for c in found if version in (None, c.version)]
    if not found:
        raise MissingInput(
            "the store knows no such campaign",
            where=db.place,
            got=text if version is None else f"{text}, version {version}",
            do="see 'muster campaign list', name the campaign's file or folder, or set MUSTER_HOME"
            " or MUSTER_STORE_URL to the store that has it",
        )
    if found[0].folder != name_folder(text) and len({c.name for c in found}) > 1:
        names = ", ".join(f"{c.version} of {c.name}" for c in found)
        raise InvalidInput("several campaigns fit", got=text, expected=f"one of {names}")
    return found[0]


def list_campaigns(db: Database, limit: int = 100) -> list[CampaignRecord]:
    """List the newest campaigns, newest first."""
    with db.transaction() as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM campaign ORDER BY created_at DESC, id DESC LIMIT %s", (limit,)
        )
        return [CampaignRecord(*row) for row in cursor.fetchall()]


def read_campaign_runs(db: Database, campaign_id: int) -> list[Run]:
    """List the runs of a campaign, newest first."""
    with db.transaction() as cursor:
        cursor.execute(
            f"SELECT {RUN_COLUMNS} FROM run WHERE campaign_id = %s"
            " ORDER BY created_at DESC, id DESC",
            (campaign_id,),
        )
        return [make_run(row) for row in cursor.fetchall()]


@contextmanager
def hold_record_lock(db: Database, campaign_id: int, wait_s: float) -> Iterator[HeldLock]:
    """Hold the lock on the files that are a campaign's record.

    Raises
    ------
    Transient
        When another run of the campaign still writes them after ``wait_s`` seconds.
    """

    def log_wait() -> None:
        log.info("another run of the campaign writes its record: waiting up to %g s", wait_s)

    def refuse() -> Transient:
        return Transient(
            "another run of the campaign writes its record",
            got=f"no end of it in {wait_s:g} s",
            do="try again when it has ended",
        )

    name = f"muster campaign record {campaign_id}"
    with hold_lock(db, name, wait_s, log_wait=log_wait, refuse=refuse) as lock:
        yield lock


@contextmanager
def hold_opening_lock(db: Database, folder: str, wait_s: float) -> Iterator[HeldLock]:
    """Hold the lock under which the runs of a campaign are opened one after the other.

    Parameters
    ----------
    folder : str
        URI of the campaign's folder: the store may not know the campaign yet.

    Raises
    ------
    Transient
        When another run of the campaign is still being opened after ``wait_s`` seconds.
    """

    def log_wait() -> None:
        log.info("another run of the campaign is being opened: waiting up to %g s", wait_s)

    def refuse() -> Transient:
        return Transient(
            "another run of the campaign is being opened",
            where=folder,
            got=f"no end of it in {wait_s:g} s",
            do="try again when it is open",
        )

    name = f"muster campaign opening {name_folder(folder)}"
    with hold_lock(db, name, wait_s, log_wait=log_wait, refuse=refuse) as lock:
        yield lock


def name_folder(uri: str) -> str:
    """Name a folder alike, however it was written."""
    return re.sub(r"(?<=.)/+$", "", uri.removeprefix("file://"))


def reserve_batch_numbers(db: Database, campaign_id: int, work_uri: str, count: int) -> int:
    """Reserve numbers for the batches of a run, which no other run of the campaign has.

    Runs of a campaign may be planned side by side, and files are named by these numbers.  A run
    that is opened again keeps its numbers where they suffice.

    Parameters
    ----------
    work_uri : str
        Folder of the run.
    count : int
        The most batches that it may have.

    Returns
    -------
    int
        The first of its numbers.
    """
    with db.transaction() as cursor:
        cursor.execute("SELECT 1 FROM campaign WHERE id = %s FOR UPDATE", (campaign_id,))
        cursor.execute(
            "SELECT first, count FROM batch_numbers WHERE campaign_id = %s AND work_uri = %s",
            (campaign_id, work_uri),
        )
        own = cursor.fetchone()
        if own is not None and own[1] >= count:
            return int(own[0])
        cursor.execute(
            "SELECT coalesce(max(first + count), 0) FROM batch_numbers"
            " WHERE campaign_id = %s AND work_uri <> %s",
            (campaign_id, work_uri),
        )
        row = cursor.fetchone()
        free = int(row[0]) if row else 0
        first = free if own is None else max(free, int(own[0]))
        cursor.execute(
            "INSERT INTO batch_numbers (campaign_id, work_uri, first, count)"
            " VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (campaign_id, work_uri)"
            " DO UPDATE SET first = excluded.first, count = excluded.count",
            (campaign_id, work_uri, first, count),
        )
        return first
