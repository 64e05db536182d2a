"""The campaign file: typed, strict, and every error with key, line and what is allowed.

Importable without any compute package, and without those of suites and galaxy models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from muster import storage
from muster.config import ConfigProblem, find_problems
from muster.hashing import hash_compact_json
from muster.locations import beside
from muster.mocks.campaign.execution import CampaignResources, Execution
from muster.mocks.campaign.file_names import FileNames
from muster.mocks.campaign.folder import CampaignFolder
from muster.mocks.campaign.naming import campaign_label, slug
from muster.mocks.campaign.options import NamedOptions, find_option_problems
from muster.mocks.campaign.outputs import Outputs
from muster.mocks.campaign.problems import CampaignFileError, place_problems
from muster.mocks.campaign.science import Science
from muster.mocks.campaign.values import Block, Name, Text, Version
from muster.mocks.campaign.whole_file import find_whole_problems
from muster.mocks.campaign.yaml_document import Document, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from muster.mocks.coordinates import Coordinate

TEXTS = (
    ("campaign", "name"),
    ("campaign", "version"),
    ("campaign", "description"),
    ("campaign", "tags", "*"),
    ("resources", "account"),
)
"""Values that are texts although they may look like numbers."""

_PATH_OPTIONS = ("path", "root", "folder", "file")
"""Options of a box whose relative paths are relative to the campaign file, or that end in _ and
one of these."""


def _check_name(name: str) -> str:
    if not any(character.isalnum() for character in slug(name)):
        raise ValueError("needs a letter (a-z) or digit: the campaign's folder is named by it")
    if name != name.strip() or "\n" in name:
        raise ValueError("may not hold line breaks, or begin or end with a blank")
    return name


class CampaignBlock(Block):
    """What the campaign is called."""

    name: Annotated[Name, AfterValidator(_check_name)]
    """Its name; the folder has it in lower case, other characters as _."""

    version: Version
    """Its version: a change of the campaign is a new version."""

    description: Text = ""
    """What it is for."""

    tags: Annotated[tuple[Name, ...], Field(max_length=50)] = ()
    """Words to find it by."""


class CampaignConfig(Block):
    """A campaign of mock galaxy catalogues."""

    campaign: CampaignBlock
    science: Science
    execution: Execution = Execution()
    resources: CampaignResources = CampaignResources()
    outputs: Outputs

    def to_data(self) -> dict[str, Any]:
        """Return the whole configuration as plain data, defaults included."""
        return self.model_dump(mode="json")

    @property
    def sha256(self) -> str:
        """sha256 of the whole configuration as canonical JSON, defaults included."""
        return hash_compact_json(self.to_data())


@dataclass(frozen=True)
class Campaign:
    """A campaign as its file says it.

    Attributes
    ----------
    config : CampaignConfig
        The blocks.
    where : str
        The file, or what was given in its place.
    document : Document
        Lines of the file's keys.
    """

    config: CampaignConfig
    where: str
    document: Document = field(default_factory=lambda: Document({}), compare=False)

    @property
    def science(self) -> Science:
        """Block science."""
        return self.config.science

    @property
    def execution(self) -> Execution:
        """Block execution."""
        return self.config.execution

    @property
    def resources(self) -> CampaignResources:
        """Block resources."""
        return self.config.resources

    @property
    def outputs(self) -> Outputs:
        """Block outputs."""
        return self.config.outputs

    @property
    def name(self) -> str:
        """Name of the campaign."""
        return self.config.campaign.name

    @property
    def version(self) -> str:
        """Version of the campaign."""
        return self.config.campaign.version

    @property
    def label(self) -> str:
        """Name of its folder: VERSION_NAME."""
        return campaign_label(self.version, self.name)

    @property
    def folder_uri(self) -> str:
        """Its folder."""
        return storage.join(self.outputs.base_path, self.label)

    def redshift_index(self, redshift: float) -> int:
        """Return the position of a redshift in the file, which makes the key of its draws."""
        return self.science.redshifts.index(redshift)

    @cached_property
    def file_names(self) -> FileNames:
        """Names of the catalogues' files."""
        return FileNames.of(self.science, self.outputs.naming_scheme)

    @cached_property
    def folder(self) -> CampaignFolder:
        """Places in its folder."""
        return CampaignFolder(self.folder_uri)

    def catalogue_uri(self, coordinate: Coordinate) -> str:
        """Say where a catalogue lies."""
        return self.file_names.uri_below(self.folder.catalogs_uri, coordinate)


def read_campaign(path: Path) -> Campaign:
    """Read a campaign file; relative paths in it are relative to the file.

    Raises
    ------
    MissingInput
        When there is no such file.
    CampaignFileError
        Lists everything that is wrong.
    """
    document = read_document(path, TEXTS)
    return _parse(document, path, path.absolute().parent)


def parse_campaign(
    data: Mapping[str, Any], where: object = "campaign", folder: Path | None = None
) -> Campaign:
    """Check a campaign that was given as data, as a DAG's parameters do.

    Parameters
    ----------
    data : mapping
        The blocks.
    where : object
        What it is, for messages.
    folder : Path, optional
        What relative paths are relative to; they are refused without it.

    Raises
    ------
    CampaignFileError
        Lists everything that is wrong.
    """
    return _parse(Document(dict(data)), where, folder)


def _parse(document: Document, where: object, folder: Path | None) -> Campaign:
    problems = list(document.problems)
    broken = any(problem.path == () or not document.data for problem in problems)
    config = None
    if not broken:
        data = document.data if folder is None else _put_beside(folder, document.data)
        config, found = _validate(data, absolute=folder is None)
        # What nothing was made of is no wrong value of its key, too.
        spoilt = document.unreadable
        problems += [p for p in found if not any(p.path[:n] in spoilt for n in range(1, 20))]
    if config is None or problems:
        raise CampaignFileError(where, place_problems(problems, document))
    return Campaign(config, str(where), document)


def _validate(
    data: Mapping[str, Any], *, absolute: bool
) -> tuple[CampaignConfig | None, list[ConfigProblem]]:
    """Check the blocks, and what holds between those that are right."""
    config, problems = None, []
    try:
        config = CampaignConfig.model_validate(data)
    except ValidationError as error:
        problems = find_problems(CampaignConfig, error)
    blocks: dict[str, Any] = {}
    models: dict[str, type[Block]] = {
        "science": Science,
        "outputs": Outputs,
        "resources": CampaignResources,
    }
    for name, model in models.items():
        try:
            blocks[name] = model.model_validate(data.get(name, {}))
        except ValidationError:
            blocks[name] = None
    named = None if blocks["science"] else NamedOptions.read(data.get("science"))
    if named is not None:
        problems += find_option_problems(named)
    problems += find_whole_problems(blocks["science"], blocks["outputs"], blocks["resources"])
    if absolute and blocks["outputs"] and _is_relative(blocks["outputs"].base_path):
        message = "is relative, and no file says to what: write an absolute path"
        problems.append(ConfigProblem(("outputs", "base_path"), "wrong", message))
    return config, problems


def _is_relative(location: str) -> bool:
    path = storage.local_path(location)
    return path is not None and not path.is_absolute()


def _put_beside(folder: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """Take relative locations as relative to the file's folder."""
    placed = dict(data)
    for block, inner in (("outputs", None), ("science", "box")):
        part = placed.get(block)
        if not isinstance(part, dict):
            continue
        if inner is None:
            placed[block] = _put_keys_beside(folder, part, ("base_path",))
        elif isinstance(part.get(inner), dict):
            box = part[inner]
            keys = tuple(key for key in box if key.rpartition("_")[2] in _PATH_OPTIONS)
            placed[block] = {**part, inner: _put_keys_beside(folder, box, keys)}
    return placed


def _put_keys_beside(
    folder: Path, data: Mapping[str, Any], keys: tuple[str, ...]
) -> dict[str, Any]:
    """Take the texts of some keys as relative to a folder; what is none is checked later."""
    found = {key: data[key] for key in keys if isinstance(data.get(key), str) and data[key].strip()}
    literal = {key: text for key, text in found.items() if not text.startswith(("~", "$"))}
    return {**data, **{key: beside(folder, text) for key, text in literal.items()}}
