"""What a campaign leaves on disk: place, names, layout, compression, and for how long."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
)

from muster.config import KeepS
from muster.mocks.campaign.naming import DEFAULT_SCHEME, check_scheme
from muster.mocks.campaign.values import Block, Flag, Text, Whole

GZIP_LEVEL = 4
CHUNK_ROWS = 1 << 17


class Compression(Block):
    """How the datasets of a catalogue are compressed."""

    filter: Literal["gzip", "lzf", "none"] = "none"
    """HDF5's filter: gzip is read everywhere, lzf is faster and read by h5py."""

    level: Annotated[Whole, Field(ge=1, le=9)] | None = None
    """Level of gzip, from 1 (fast) to 9 (small); 4 by default."""

    shuffle: Flag | None = None
    """Whether bytes are shuffled before they are compressed, which they are by default."""

    @field_validator("level")
    @classmethod
    def _check_level(cls, level: int | None, info: ValidationInfo) -> int | None:
        found = info.data.get("filter")
        if level is not None and found in ("lzf", "none"):
            raise ValueError(f"only gzip has a level; the filter is {found}")
        return level

    @field_validator("shuffle")
    @classmethod
    def _check_shuffle(cls, shuffle: bool | None, info: ValidationInfo) -> bool | None:
        if shuffle and info.data.get("filter") == "none":
            raise ValueError("nothing is shuffled where nothing is compressed")
        return shuffle


class CampaignRetention(Block):
    """How long files of a campaign are kept after it was staged: a time such as 90d, or never.

    "never" never removes them.
    """

    catalogs: KeepS = None
    """The working copies of the catalogues."""

    logs: KeepS = None
    """Logs of batches and elements."""

    qa: KeepS = None
    """Validation reports and plots."""


def _name_as_filter(value: Any) -> Any:
    """Take a name alone as a filter, as the original files have it: ``compression: gzip``."""
    if value is None:
        return {"filter": "none"}
    return {"filter": value} if isinstance(value, str) else value


def _auto_as_none(value: Any) -> Any:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if value != "auto" and value is not None and not is_whole:
        raise ValueError("should be auto, or the rows of a chunk")
    return None if value == "auto" else value


def _check_folder(location: str) -> str:
    if not location or location != location.strip():
        raise ValueError("should be a folder")
    if not location.isprintable():
        raise ValueError("may not hold line breaks")
    if location.startswith("~") or "$" in location:
        raise ValueError("is taken literally, ~ and $ too: write the path out")
    if "://" in location and not location.startswith("file:///"):
        raise ValueError(
            "should be a path or file:///path: catalogues are made on a file system, and "
            "'muster campaign stage' brings them elsewhere"
        )
    return location


ChunkRows = Annotated[Whole, Field(ge=1 << 10, le=1 << 24)]


class Outputs(Block):
    """Place, names, layout and compression of the catalogues."""

    base_path: Annotated[Text, AfterValidator(_check_folder)]
    """Folder of campaigns; this one lies in VERSION_NAME there. Relative to the campaign file."""

    naming_scheme: Annotated[Text, AfterValidator(check_scheme)] = DEFAULT_SCHEME
    """Name of a catalogue in the folder rNNNN of its realization; .hdf5 is appended. May hold
    {cosmology}, {phase}, {realization} and {redshift}, numbers with a format: {redshift:.3f}."""

    layout: Literal["lean", "full"] = "lean"
    """lean leaves out the formation histories, 80 to 90 % of the bytes; full has them."""

    compression: Annotated[
        Compression,
        BeforeValidator(
            _name_as_filter,
            json_schema_input_type=Literal["gzip", "lzf", "none"] | Compression | None,
        ),
    ] = Compression()
    """gzip, lzf or none; or {filter, level, shuffle}."""

    chunking: Annotated[
        ChunkRows | None,
        BeforeValidator(_auto_as_none, json_schema_input_type=Literal["auto"] | ChunkRows),
        PlainSerializer(lambda rows: "auto" if rows is None else rows, when_used="json"),
    ] = None
    """The most rows of a chunk of a dataset; auto takes 131,072."""

    metadata_format: Literal["json"] = "json"
    """Format of provenance and reports."""

    retention: CampaignRetention = CampaignRetention()
    """How long files are kept after staging."""

    @property
    def catalogue_compression(self) -> dict[str, Any]:
        """Arguments of :class:`muster.mocks.catalogue.layout.Compression`."""
        asked = self.compression
        return {
            "kind": asked.filter,
            "level": GZIP_LEVEL if asked.level is None else asked.level,
            "shuffle": asked.filter != "none" and asked.shuffle is not False,
            "chunk_rows": CHUNK_ROWS if self.chunking is None else self.chunking,
        }

    @field_validator("metadata_format", mode="before")
    @classmethod
    def _explain_metadata(cls, value: Any) -> Any:
        if value != "json":
            raise ValueError("should be json: provenance and reports have no other format")
        return value
