"""Initializing a campaign: its folder, its frozen configuration, its provenance.

A campaign is immutable from then on.  Only further realizations may join it; every other change is
a new version, which says what it descends from.  provenance.json is published whole and once, and
all else follows from it: of several initializations at a time one wins, and one that was killed is
completed by the next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from muster import storage
from muster.config import render_value
from muster.errors import ConfigError, InvalidInput, MissingInput, shorten
from muster.mocks.campaign.code_version import (
    CODE_FOLDER,
    check_clean,
    make_tag,
    read_code_version,
)
from muster.mocks.campaign.config import parse_campaign, read_campaign
from muster.mocks.campaign.folder import CampaignFolder, folder_errors_at
from muster.mocks.campaign.naming import campaign_label, slug
from muster.mocks.campaign.provenance import (
    CampaignRecord,
    Extension,
    make_record,
    read_provenance,
)
from muster.mocks.campaign.render_yaml import render_document
from muster.storage.files import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from muster.mocks.campaign.code_version import CodeVersion
    from muster.mocks.campaign.config import Campaign, CampaignConfig

_HEADER = """\
# Campaign {label} as it was initialized: every key said, paths absolute.
# Do not change it: a change is a new version of the campaign.
"""
_MOST_SHOWN = 10
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def initialize_campaign(
    campaign: Campaign,
    *,
    allow_dirty: bool = False,
    git_tag: str | None = None,
    descends_from: str | None = None,
    code_folder: Path = CODE_FOLDER,
) -> CampaignRecord:
    """Make a campaign's folder and record what it is made with.

    The same campaign again changes nothing; with further realizations, they join it.

    Parameters
    ----------
    campaign : Campaign
        The campaign.
    allow_dirty : bool
        Whether the code may differ from its commit.
    git_tag : str, optional
        Tag to make of the commit.
    descends_from : str, optional
        Version, or label VERSION_NAME, that this campaign takes the place of; needed where there
        are other versions of it in base_path.
    code_folder : Path
        Where the code lies.

    Returns
    -------
    CampaignRecord
        As it lies in metadata/provenance.json.

    Raises
    ------
    ConfigError
        When the code has changes, the tag cannot be made, the campaign was initialized with another
        configuration (says what changed), or does not say what it descends from.
    InvalidInput
        When its metadata were changed by hand, or the folder cannot be written.
    """
    folder = campaign.folder
    root = storage.local_path(folder.uri)
    if root is None:
        raise ConfigError(
            "a campaign lies on a file system",
            got=folder.uri,
            do="set outputs.base_path to a path; 'muster campaign stage' brings it to S3",
        )
    with _only_one(root):
        if not storage.exists(folder.provenance_uri):
            record = _create(campaign, git_tag, descends_from, code_folder, allow_dirty)
            # Where locks do not reach, another host may have been first: the file says who was.
            _publish_once(root / "metadata" / "provenance.json", record.to_json())
        return _join(campaign, allow_dirty, code_folder)


def check_unchanged(campaign: Campaign) -> None:
    """Refuse a campaign that may not join what was initialized, before a run of it starts.

    Raises
    ------
    ConfigError
        When it was initialized with another configuration: says what changed, and in which file.
    """
    folder = campaign.folder
    if storage.exists(folder.provenance_uri):
        recorded = _parse_recorded(folder, _read_provenance(folder))
        if recorded != campaign.config and not _is_extended(recorded, campaign.config):
            raise _refuse_change(campaign, recorded)


def read_record(folder: CampaignFolder) -> CampaignRecord:
    """Read what a campaign was initialized with, and check that its configuration is still that.

    Raises
    ------
    MissingInput
        When the campaign was not initialized.
    InvalidInput
        When the configuration was changed since, or the record is none.
    """
    record = _read_provenance(folder)
    if _parse_recorded(folder, record) != read_frozen(folder).config:
        raise _changed_by_hand(folder)
    return record


def read_frozen(folder: CampaignFolder) -> Campaign:
    """Read the configuration that a campaign was initialized with.

    Raises
    ------
    MissingInput
        When the campaign was not initialized.
    CampaignFileError
        When it was changed, and is no configuration any more.
    """
    path = storage.local_path(folder.config_uri)
    if path is None or not path.exists():
        raise MissingInput(
            "the campaign was not initialized",
            where=folder.config_uri,
            do="muster campaign init FILE",
        )
    return read_campaign(path)


def find_campaign_file(named: Path) -> Path:
    """Return the campaign file that a path names: itself, or that in a campaign's folder.

    Raises
    ------
    MissingInput
        When there is nothing, or a folder that is no campaign's.
    """
    if named.is_dir():
        inside = storage.local_path(CampaignFolder(str(named)).config_uri)
        if inside is None or not inside.exists():
            raise MissingInput(
                "the folder is no campaign's",
                where=named,
                expected="metadata/campaign_config.yaml",
                do="give a campaign's folder, or run 'muster campaign init FILE'",
            )
        return inside
    if not named.exists():
        raise MissingInput(
            "no such campaign file or folder",
            where=named,
            do="give a campaign file, a campaign's folder, or the name of one that the store knows",
        )
    return named


def list_versions(base_path: str, name: str) -> list[str]:
    """List the labels of the initialized versions of a campaign, sorted."""
    found = []
    for label in storage.list(base_path):
        _, _, rest = label.partition("_")
        if rest == slug(name):
            uri = CampaignFolder(storage.join(base_path, label)).provenance_uri
            if storage.exists(uri):
                found.append(label)
    return sorted(found)


def describe_changes(old: Any, new: Any, key: str = "") -> list[str]:
    """List the keys that differ between two configurations, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        changes: list[str] = []
        for name in [*old, *(name for name in new if name not in old)]:
            dotted = f"{key}.{name}" if key else str(name)
            changes += describe_changes(old.get(name), new.get(name), dotted)
        return changes
    if old == new:
        return []
    return [f"{key}: {shorten(render_value(old), 60)} → {shorten(render_value(new), 60)}"]


def _create(
    campaign: Campaign,
    git_tag: str | None,
    descends_from: str | None,
    code_folder: Path,
    allow_dirty: bool,
) -> CampaignRecord:
    """Make the folders of a new campaign, and its record."""
    code = _read_code(allow_dirty, code_folder)
    parent = _find_parent(campaign, descends_from)
    folder = campaign.folder
    if storage.list(folder.catalogs_uri):
        raise ConfigError(
            "the folder has catalogues, and no record of what made them",
            where=folder.catalogs_uri,
            do="move them away, or choose another version",
        )
    for uri in folder.folders:
        path = storage.local_path(uri)
        assert path is not None
        with storage.os_errors_at(path):
            path.mkdir(parents=True, exist_ok=True)
    if git_tag is not None:
        make_tag(code_folder, git_tag, code, f"mock campaign {campaign.label}")
    return make_record(campaign, code, git_tag=git_tag, descends_from=parent)


def _join(campaign: Campaign, allow_dirty: bool, code_folder: Path) -> CampaignRecord:
    """Hold a campaign against its record: the same, further realizations, or refused."""
    folder = campaign.folder
    record = _read_provenance(folder)
    recorded = _parse_recorded(folder, record)
    if recorded != campaign.config:
        if not _is_extended(recorded, campaign.config):
            raise _refuse_change(campaign, recorded)
        extension = Extension(
            extended_at=datetime.now(UTC),
            realizations=campaign.config.to_data()["science"]["realizations"],
            config_sha256=campaign.config.sha256,
            code=_read_code(allow_dirty, code_folder),
        )
        record = record.model_copy(update={"extensions": (*record.extensions, extension)})
        storage.write_text(folder.provenance_uri, record.to_json())
    _write_config(campaign)
    return record


def _write_config(campaign: Campaign) -> None:
    """Write the configuration where it is missing, or lacks realizations that joined."""
    folder = campaign.folder
    if storage.exists(folder.config_uri):
        written = read_frozen(folder).config
        if written == campaign.config:
            return
        if not _is_extended(written, campaign.config):
            raise _changed_by_hand(folder)
    storage.write_text(folder.config_uri, render_config(campaign))


def _is_extended(old: CampaignConfig, new: CampaignConfig) -> bool:
    """Say whether a configuration differs by further realizations alone."""
    science = old.science.model_copy(update={"realizations": new.science.realizations})
    before = set(old.science.realizations.numbers)
    return old.model_copy(update={"science": science}) == new and before <= set(
        new.science.realizations.numbers
    )


def _refuse_change(campaign: Campaign, recorded: CampaignConfig) -> ConfigError:
    changes = describe_changes(recorded.to_data(), campaign.config.to_data())
    more = f"; and {len(changes) - _MOST_SHOWN} more" if len(changes) > _MOST_SHOWN else ""
    return ConfigError(
        f"campaign {campaign.label} was initialized with another configuration",
        where=campaign.where,
        got="; ".join(changes[:_MOST_SHOWN]) + more,
        do="give the changed campaign a new version, which descends from this one; only further "
        "realizations may join",
    )


def _changed_by_hand(folder: CampaignFolder) -> InvalidInput:
    return InvalidInput(
        "the configuration is not that which the campaign was initialized with",
        where=folder.config_uri,
        expected="what provenance.json has under configuration",
        do="remove it and initialize again; a change is a new version of the campaign",
    )


def _find_parent(campaign: Campaign, descends_from: str | None) -> str | None:
    """Return the label of the version that a campaign descends from."""
    others = list_versions(campaign.outputs.base_path, campaign.name)
    if descends_from is None:
        if others:
            raise ConfigError(
                "there are other versions of this campaign",
                where=campaign.outputs.base_path,
                got=", ".join(others),
                do="say which one it descends from",
            )
        return None
    for label in (descends_from, campaign_label(descends_from, campaign.name)):
        if label in others:
            return label
    raise ConfigError(
        "no initialized version that the campaign could descend from",
        where=campaign.outputs.base_path,
        got=descends_from,
        expected=", ".join(others) or "none: there is no other version",
        do="name one of these versions, or initialize that version first",
    )


def _read_code(allow_dirty: bool, folder: Path) -> CodeVersion:
    code = read_code_version(folder)
    if not allow_dirty:
        check_clean(code)
    return code


def _read_provenance(folder: CampaignFolder) -> CampaignRecord:
    try:
        return read_provenance(folder.provenance_uri)
    except MissingInput:
        raise MissingInput(
            "the campaign was not initialized",
            where=folder.provenance_uri,
            do="muster campaign init FILE",
        ) from None


def _parse_recorded(folder: CampaignFolder, record: CampaignRecord) -> CampaignConfig:
    return parse_campaign(record.current_configuration, folder.provenance_uri).config


def render_config(campaign: Campaign) -> str:
    """Render a campaign as the file that its folder keeps: every key said, paths absolute."""
    return _HEADER.format(label=campaign.label) + render_document(campaign.config.to_data())


@contextlib.contextmanager
def _only_one(root: Path) -> Iterator[None]:
    """Make the folder, and let one process at a time initialize; the next one waits."""
    with _open_lock(root) as file, storage.os_errors_at(root):
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield


def _open_lock(root: Path) -> TextIO:
    do = "make it writable, or set outputs.base_path to a folder that is"
    with folder_errors_at(root, "campaign's folder", do):
        (root / "metadata").mkdir(parents=True, exist_ok=True)
        return (root / "metadata" / ".init.lock").open("a")


def _publish_once(path: Path, text: str) -> bool:
    """Write a file that must not be there yet, whole or not at all; False where it is there."""
    temporary = storage.temporary_sibling(path)
    with storage.os_errors_at(path):
        try:
            with temporary.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            return _link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> bool:
    """Give a file its name, unless something has it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():  # a file system without links: the lock alone keeps others away
            return False
        temporary.rename(path)
    sync_folder(path.parent)
    return True
