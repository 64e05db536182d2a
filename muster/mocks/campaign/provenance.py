"""provenance.json: everything that made a campaign's files, beside the haloes themselves.

Code, configuration, packages, container, host and time.  A catalogue's own attributes (fingerprint,
seed, versions) and the manifest's sha256 complete it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from muster import storage
from muster.config import find_problems
from muster.errors import InvalidInput
from muster.frozen import Frozen
from muster.mocks.campaign.code_version import CodeVersion

if TYPE_CHECKING:
    from muster.mocks.campaign.config import Campaign

MOST_BYTES = 8 << 20
IMAGE_VARIABLES = (
    "MUSTER_IMAGE",
    "APPTAINER_CONTAINER",
    "SINGULARITY_CONTAINER",
    "SHIFTER_IMAGEREQUEST",
)
"""Variables that name the container image that a process runs in; the first that is set counts."""

ShortText = Annotated[str, Field(max_length=5000)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Environment(Frozen):
    """What a process runs in.

    Attributes
    ----------
    python, platform : str
        Version of Python; operating system and machine.
    packages : dict of str to str
        Every installed package and its version, with the commit where it was installed from one.
    container : str or None
        Container image, as the environment names it.
    host : str
        Name of the machine.
    """

    python: ShortText
    platform: ShortText
    packages: Annotated[dict[ShortText, ShortText], Field(max_length=10_000)]
    container: ShortText | None = None
    host: ShortText


class Extension(Frozen):
    """Further realizations that joined a campaign.

    Attributes
    ----------
    extended_at : datetime
        When, in UTC.
    realizations : dict
        The block science.realizations with them.
    config_sha256 : str
        Of the configuration with them.
    code : CodeVersion
        The code that will make them.
    """

    extended_at: AwareDatetime
    realizations: dict[str, Any]
    config_sha256: Sha256
    code: CodeVersion


class CampaignRecord(Frozen):
    """What a campaign was initialized with.

    Attributes
    ----------
    format : int
        Version of this record.
    name, version, label : str
        Of the campaign; the label is the name of its folder.
    config_sha256 : str
        sha256 of the configuration as canonical JSON.
    configuration : dict
        The configuration itself, defaults included.
    code : CodeVersion
        The code.
    git_tag : str or None
        Tag that was made of it.
    environment : Environment
        Packages, Python, container and host.
    initialized_at : datetime
        When, in UTC.
    descends_from : str or None
        Label of the version that this one takes the place of.
    extensions : tuple of Extension
        Realizations that joined later.
    """

    format: Literal[1] = 1
    name: ShortText
    version: ShortText
    label: ShortText
    config_sha256: Sha256
    configuration: dict[str, Any]
    code: CodeVersion
    git_tag: ShortText | None = None
    environment: Environment
    initialized_at: AwareDatetime
    descends_from: ShortText | None = None
    extensions: tuple[Extension, ...] = ()

    @property
    def current_sha256(self) -> str:
        """sha256 of the configuration with all realizations that joined."""
        return self.extensions[-1].config_sha256 if self.extensions else self.config_sha256

    @property
    def current_configuration(self) -> dict[str, Any]:
        """The configuration with all realizations that joined."""
        if not self.extensions:
            return self.configuration
        science = {
            **self.configuration["science"],
            "realizations": self.extensions[-1].realizations,
        }
        return {**self.configuration, "science": science}

    def to_json(self) -> str:
        """Render the record, keys in their order."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"

    def describe_code_change(self, code: CodeVersion) -> str | None:
        """Say how the code differs from what the campaign was made with so far; None if equal."""
        last = self.extensions[-1].code if self.extensions else self.code
        if code == last:
            return None
        return f"campaign {self.label} was initialized with {last.text}; this is {code.text}"


def read_environment() -> Environment:
    """Return what this process runs in."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        packages=_list_packages(),
        container=next((os.environ[n] for n in IMAGE_VARIABLES if os.environ.get(n)), None),
        host=socket.gethostname(),
    )


def make_record(
    campaign: Campaign,
    code: CodeVersion,
    *,
    git_tag: str | None = None,
    descends_from: str | None = None,
) -> CampaignRecord:
    """Record what a campaign is initialized with, here and now."""
    return CampaignRecord(
        name=campaign.name,
        version=campaign.version,
        label=campaign.label,
        config_sha256=campaign.config.sha256,
        configuration=campaign.config.to_data(),
        code=code,
        git_tag=git_tag,
        environment=read_environment(),
        initialized_at=datetime.now(UTC),
        descends_from=descends_from,
    )


def read_provenance(uri: str) -> CampaignRecord:
    """Read a provenance.json.

    Raises
    ------
    MissingInput
        When there is none: the campaign was not initialized.
    InvalidInput
        When it is no record of this version.
    """
    size = storage.stat(uri).bytes
    if size > MOST_BYTES:
        raise InvalidInput(
            "too large",
            where=uri,
            got=f"{size} bytes",
            expected=MOST_BYTES,
            do="restore provenance.json from the staged copy or a backup",
        )
    try:
        return CampaignRecord.model_validate_json(storage.read_bytes(uri))
    except ValidationError as error:
        first = find_problems(CampaignRecord, error)[0].to_error(uri)
        raise InvalidInput(
            f"no provenance of a campaign: {first}",
            do="restore it from the staged copy, or read it with the Muster that wrote it",
        ) from None


def _list_packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if not name or name.lower() in found:
            continue  # the first on the path is the one that is imported
        commit = _commit_of(distribution)
        found[name.lower()] = f"{distribution.version}{f' ({commit})' if commit else ''}"
    return dict(sorted(found.items()))


def _commit_of(distribution: importlib.metadata.Distribution) -> str | None:
    """Return the commit that a package was installed from (PEP 610)."""
    text = distribution.read_text("direct_url.json")
    if text is None:
        return None
    try:
        said = json.loads(text)
    except ValueError:
        return None
    vcs = said.get("vcs_info") if isinstance(said, dict) else None
    commit = vcs.get("commit_id") if isinstance(vcs, dict) else None
    return commit if isinstance(commit, str) else None
