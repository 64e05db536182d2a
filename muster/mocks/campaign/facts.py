"""What is known of a campaign's catalogues and jobs, from a file of facts or from the folder.

The file is JSON (campaign, catalogues, jobs) or a Parquet table of catalogues.  It may come from
anybody: sizes, types and names are checked before anything is made of it.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from muster import storage
from muster.errors import InvalidInput, MissingInput
from muster.frozen import Frozen
from muster.storage import os_errors_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

CATALOGS = "catalogs"
"""Folder of a campaign's catalogues."""
SUFFIX = ".hdf5"
MOST_BYTES = 256 << 20
MOST_ROWS = 2_000_000
"""A campaign of 100,000 elements has 30 MB of facts."""

_REALIZATION = re.compile(r"r(\d{4,5})")
_REDSHIFT = re.compile(r"(\d+\.\d+)$")

Text = Annotated[str, Field(max_length=4096)]
Realization = Annotated[int, Field(ge=0, le=99_999)]
Redshift = Annotated[float, Field(ge=0, le=1100, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CatalogueFact(Frozen):
    """A catalogue as the record states it.

    Attributes
    ----------
    realization, redshift
        Its coordinate; None where the file's name alone is known and does not tell.
    uri : str
        Where it lies.
    sha256 : str
        64 hexadecimal digits.
    bytes : int
        Size.
    fingerprint : str or None
        Of what it was made from.
    """

    realization: Realization | None
    redshift: Redshift | None
    uri: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0, le=2**62)]
    fingerprint: Text | None = None


class JobFact(Frozen):
    """An element of the campaign, and how its newest attempt ended.

    Attributes
    ----------
    step, name, run : str
        Step, element and the run that it belongs to.
    realization, redshift
        Its coordinate, where it has one.
    state, outcome : str
        pending, queued, running, completed, failed, missing_input; and why it ended so.
    seconds, max_rss_mib : float or None
        Wall time in s and peak memory in MiB of the newest attempt.
    host, message : str or None
        Where the newest attempt ran, and its error.
    attempts : int
        How many there were.
    """

    step: Text
    name: Text
    run: Text | None = None
    realization: Realization | None = None
    redshift: Redshift | None = None
    state: Text
    outcome: Text | None = None
    seconds: Amount | None = None
    max_rss_mib: Amount | None = None
    host: Text | None = None
    attempts: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    message: Text | None = None


class CampaignFacts(Frozen):
    """All that is known of a campaign; ``campaign`` holds its name, version and description."""

    campaign: dict[str, Any] = {}
    catalogues: Annotated[tuple[CatalogueFact, ...], Field(max_length=MOST_ROWS)] = ()
    jobs: Annotated[tuple[JobFact, ...], Field(max_length=MOST_ROWS)] = ()


def read_facts(uri: str) -> CampaignFacts:
    """Read a file of facts, JSON or Parquet by its suffix.

    Raises
    ------
    MissingInput
        When there is no such file.
    InvalidInput
        When it is too large, or not what it should be.
    """
    if storage.stat(uri).bytes > MOST_BYTES:
        raise InvalidInput(
            "too large for a file of facts",
            where=uri,
            expected=f"≤ {MOST_BYTES} B",
            do="give facts of one campaign alone",
        )
    content = storage.read_bytes(uri)
    try:
        if uri.endswith(".parquet"):
            return CampaignFacts.model_validate({"catalogues": _read_rows(content, uri)})
        return CampaignFacts.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            "not a file of facts",
            where=f"{uri}: {where or 'top level'}",
            got=first["msg"],
            do="write the facts again with this version of Muster",
        ) from None


def _read_rows(content: bytes, uri: str) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        if file.metadata.num_rows > MOST_ROWS:
            raise InvalidInput(
                "too many rows",
                where=uri,
                got=file.metadata.num_rows,
                do="give facts of one campaign alone",
            )
        names = set(file.schema_arrow.names) & set(CatalogueFact.model_fields)
        rows: list[dict[str, Any]] = file.read(columns=sorted(names)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(
            "not a Parquet file", where=uri, got=error, do="write the facts again"
        ) from error
    return rows


def list_catalogues(
    folder: str, *, threads: int = 1, progress: Callable[[float, str], None] | None = None
) -> list[CatalogueFact]:
    """List and hash the catalogues of a campaign's folder: catalogs/rNNNN/NAME.hdf5.

    The realization is that of the folder; the redshift is the number at the end of the file's
    name, or None.

    Parameters
    ----------
    folder : str
        The campaign's folder, on this machine.
    threads : int
        How many files are hashed at once.
    progress : callable, optional
        ``progress(fraction, message)``.

    Raises
    ------
    MissingInput
        When there is no folder of catalogues.
    """
    found = find_catalogue_files(folder)
    root = require_local(folder)

    def hash_one(name: str) -> CatalogueFact:
        sha256 = storage.sha256(str(root / name))
        return make_fact(name, folder, sha256=sha256, size=found[name])

    facts = []
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for fact in pool.map(hash_one, sorted(found)):
            facts.append(fact)
            if progress is not None:
                progress(len(facts) / len(found), f"{len(facts)} of {len(found)} hashed")
    return facts


def make_fact(name: str, folder: str, *, sha256: str, size: int) -> CatalogueFact:
    """Make the fact of a catalogue from its name, which tells its coordinate."""
    realization = _REALIZATION.fullmatch(name.split("/")[1])
    redshift = _REDSHIFT.search(name.removesuffix(SUFFIX))
    return CatalogueFact(
        realization=int(realization[1]) if realization else None,
        redshift=float(redshift[1]) if redshift else None,
        uri=storage.join(folder, name),
        sha256=sha256,
        bytes=size,
    )


def find_catalogue_files(folder: str) -> dict[str, int]:
    """List the catalogues below a campaign's folder: name relative to it → bytes.

    Raises
    ------
    MissingInput
        When there is no folder of catalogues.
    """
    root = require_local(folder)
    catalogs = root / CATALOGS
    with os_errors_at(catalogs):
        if not catalogs.is_dir():
            raise MissingInput("no catalogues", where=catalogs, do="is this a campaign's folder?")
    return {
        f"{CATALOGS}/{entry.name}": entry.bytes
        for entry in storage.walk(str(catalogs))
        if entry.name.count("/") == 1
        and entry.name.endswith(SUFFIX)
        and not entry.is_link
        and not is_hidden(entry.name)
    }


def is_hidden(name: str) -> bool:
    """Tell whether a file, or a folder above it, is hidden: temporaries and ledgers are."""
    return any(part.startswith(".") for part in name.split("/")) or storage.is_temporary(
        name.rpartition("/")[2]
    )


def require_local(folder: str) -> Path:
    """Return the path of a campaign's folder, which must be on this machine.

    Raises
    ------
    InvalidInput
        When it is an object store's.
    """
    what = "a campaign's folder must be on this machine"
    return storage.require_local(folder, what, do="mount it, or copy it here")


def require_campaign(folder: str) -> Path:
    """Return the path of a campaign's folder, which must be there, on this machine.

    Raises
    ------
    InvalidInput
        When it is an object store's.
    MissingInput
        When it is no campaign's.
    """
    root = require_local(folder)
    if not (root / CATALOGS).is_dir():
        raise MissingInput(
            "not a campaign's folder",
            where=root,
            expected=f"{CATALOGS}/ in it",
            do="name the campaign's folder, or its file",
        )
    return root


def name_in_campaign(uri: str, folder: str) -> str:
    """Return the name of a catalogue relative to its campaign's folder.

    Raises
    ------
    InvalidInput
        When it lies elsewhere, or its name cannot stand in a manifest.
    """
    start = folder.rstrip("/") + "/"
    # By its text where that says it: following the links of 40,000 paths takes minutes.
    name = uri[len(start) :] if uri.startswith(start) else storage.name_below(uri, folder)
    if name is None:
        raise InvalidInput(
            "lies outside the campaign's folder",
            where=folder,
            got=uri,
            do="give the folder that the catalogues lie in",
        )
    check_name(name, where=folder)
    return name


def check_name(name: str, *, where: object) -> None:
    """Refuse a name that leads out of its folder, or that a line of a manifest cannot hold."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or {"", ".", ".."} & set(parts):
        raise InvalidInput(
            "not a name of a file below a folder",
            where=where,
            got=repr(name),
            do="rename the file, or move it out of the folder",
        )


def find_absent(folder: str, names: Sequence[str]) -> list[str]:
    """List which of the names have no file, by listing the folders: never a stat a file."""
    root = require_local(folder)
    seen: dict[str, frozenset[str]] = {}
    absent = []
    for name in names:
        parent, _, file = name.rpartition("/")
        if parent not in seen:
            seen[parent] = frozenset(storage.list(str(root / parent)))
        if file not in seen[parent]:
            absent.append(name)
    return absent
