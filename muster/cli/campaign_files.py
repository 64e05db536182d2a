"""Commands that bring a campaign's files home: stage, archive, clean."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.cli.following import showing_progress
from muster.cli.options import json_option, print_answer
from muster.cli.session import open_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from muster.mocks.campaign.config import Campaign
    from muster.mocks.campaign.stage_report import StageProgress

_WORKERS = click.option(
    "--workers",
    type=click.IntRange(min=1, max=64),
    default=4,
    show_default=True,
    help="How many files at once.",
)


@click.command()
@click.argument("named", metavar="CAMPAIGN")
@click.argument("destination")
@_WORKERS
@click.option("--verify", is_flag=True, help="Read again what was staged before, too.")
@json_option
def stage(named: str, destination: str, *, workers: int, verify: bool, as_json: bool) -> int:
    """Copy a CAMPAIGN to its permanent place: a folder, or s3://BUCKET/PREFIX.

    It may be interrupted and goes on where it was; each copy is verified by its SHA-256.
    """
    from muster.mocks.campaign.stage import stage_campaign

    campaign = _find(named)
    with _showing("staging") as tell:
        found = stage_campaign(
            campaign.folder_uri, _absolute(destination), workers=workers, verify=verify,
            progress=tell,
        )  # fmt: skip
    return _tell(found.to_dict(), found.describe(), complete=found.complete, as_json=as_json)


@click.command()
@click.argument("named", metavar="CAMPAIGN")
@click.argument("destination")
@_WORKERS
@click.option(
    "--per-tar",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Realizations in one tar.",
)
@click.option("--whole", is_flag=True, help="One tar of everything.")
@click.option("--remove", is_flag=True, help="Remove catalogues whose tar was read back whole.")
@json_option
def archive(
    named: str,
    destination: str,
    *,
    workers: int,
    per_tar: int,
    whole: bool,
    remove: bool,
    as_json: bool,
) -> int:
    """Archive a CAMPAIGN as tars with an index each; interrupted, it goes on tar by tar."""
    from muster.mocks.campaign.archive import archive_campaign

    campaign = _find(named)
    with _showing("archiving") as tell:
        found = archive_campaign(
            campaign.folder_uri,
            _absolute(destination),
            per_tar=None if whole else per_tar,
            remove=remove,
            workers=workers,
            progress=tell,
        )
    return _tell(found.to_dict(), found.describe(), complete=found.complete, as_json=as_json)


@click.command()
@click.argument("named", metavar="CAMPAIGN")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@json_option
def clean(named: str, *, dry_run: bool, as_json: bool) -> int:
    """Remove working copies of a staged CAMPAIGN after the time that outputs.retention says."""
    from muster.mocks.campaign.retention import clean_campaign

    campaign = _find(named)
    found = clean_campaign(
        campaign.folder_uri, campaign.outputs.retention, now=datetime.now(UTC), dry_run=dry_run
    )
    return _tell(found.to_dict(), found.describe(), complete=True, as_json=as_json)


def _find(named: str) -> Campaign:
    from muster.mocks.find import find_campaign_by, read_named_campaign

    return read_named_campaign(named) or find_campaign_by(open_database(), named).campaign


def _absolute(destination: str) -> str:
    return destination if "://" in destination else str(Path(destination).absolute())


@contextmanager
def _showing(what: str) -> Iterator[Callable[[StageProgress], None]]:
    with showing_progress(what) as tell:

        def follow(progress: StageProgress) -> None:
            done = progress.bytes / progress.of_bytes if progress.of_bytes else 1.0
            tell(done, f"{progress.files} of {progress.of_files} files, {progress.name}")

        yield follow


def _tell(answer: object, lines: list[str], *, complete: bool, as_json: bool) -> int:
    print_answer(answer, lines, as_json=as_json)
    return os.EX_OK if complete else 1
