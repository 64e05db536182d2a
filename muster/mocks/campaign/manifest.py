"""The manifest of a campaign, and its record in files: checksums, jobs, and a small database.

``sha256sum --check metadata/manifest.sha256``, run in the campaign's folder, verifies every
catalogue without Muster.  One whose working copy was removed stays listed, with the place where it
was staged or archived.  All are written anew from the same facts in a canonical order, so that
equal facts give equal bytes.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.errors import InvalidInput
from muster.mocks.campaign.facts import (
    MOST_BYTES,
    MOST_ROWS,
    CampaignFacts,
    CatalogueFact,
    JobFact,
    check_name,
    find_absent,
    list_catalogues,
    make_fact,
    name_in_campaign,
    read_facts,
    require_local,
)
from muster.mocks.campaign.places import Copy, Place, choose_copy, find_copies
from muster.mocks.campaign.record_database import write_database
from muster.model.step import StepContext
from muster.storage import os_errors_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

MANIFEST = "metadata/manifest.sha256"
TABLE = "metadata/manifest.parquet"
JOBS = "metadata/jobs.parquet"
DATABASE = "metadata/campaign.db"
"""Where the files lie in a campaign's folder."""

MOST_NAMED = 20
"""How many absent catalogues are named."""

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")

_ARTIFACT_COLUMNS = (
    "name", "realization", "redshift", "bytes", "sha256", "fingerprint", "uri", "place",
)  # fmt: skip
_JOB_COLUMNS = tuple(JobFact.model_fields)


@dataclass(frozen=True)
class Listed:
    """A catalogue of the manifest: its name relative to the campaign's folder, and its fact.

    ``copy`` is where it lies now, where that is not the campaign's folder.
    """

    name: str
    fact: CatalogueFact
    copy: Copy | None = None

    @property
    def place(self) -> Place:
        """Where it lies now."""
        return "here" if self.copy is None else self.copy.place

    @property
    def row(self) -> tuple[Any, ...]:
        """What tables hold of it, by :data:`_ARTIFACT_COLUMNS`."""
        f = self.fact
        uri = f.uri if self.copy is None else self.copy.uri
        said = (self.name, f.realization, f.redshift, f.bytes, f.sha256, f.fingerprint)
        return (*said, uri, self.place)


def write_manifest(
    *,
    folder: str,
    manifest: Path,
    table: Path,
    jobs: Path,
    database: Path,
    facts: str | None = None,
    campaign: Mapping[str, Any] | None = None,
    expected: int | None = None,
    context: StepContext | None = None,
) -> dict[str, Any]:
    """Write a campaign's manifest and its record: the step ``mocks.manifest``.

    Parameters
    ----------
    folder : str
        The campaign's folder.
    manifest, table, jobs, database : Path
        Outputs: checksums as sha256sum reads them; the same with coordinates, Parquet; every job,
        Parquet; all of it, SQLite (tables campaign, jobs, artifacts).
    facts : str, optional
        URI of a file of facts, see :func:`muster.mocks.campaign.facts.read_facts`.  Without one
        the catalogues in the folder are listed and hashed, and no jobs are known.
    campaign : mapping, optional
        Name, version and what else the table campaign shall hold.
    expected : int, optional
        How many catalogues the campaign has when it is complete.

    Returns
    -------
    dict
        ``catalogues`` and ``bytes`` listed, ``places`` (how many of them lie here, staged alone,
        or archived alone), ``jobs`` by state, ``absent`` (how many catalogues of the facts lie
        nowhere and are left out, the first by name in ``absent_names``),
        ``missing`` (how many fewer than expected are listed).

    Raises
    ------
    MissingInput, InvalidInput
        When the facts, or the catalogues, are not there or not what they should be.
    Transient
        When an output cannot be written, as on a full disk.
    """
    context = context or StepContext()
    if facts is not None:
        known = read_facts(facts)
    else:
        found = list_catalogues(folder, threads=context.threads, progress=context.progress)
        known = CampaignFacts(catalogues=(*found, *_list_elsewhere(found, folder)))
    listed, absent = locate(sort_catalogues(known.catalogues, folder), folder)
    sorted_jobs = sort_jobs(known.jobs)
    with os_errors_at(manifest):
        manifest.write_text(render_manifest(listed), encoding="utf-8")
    _write_parquet(table, _ARTIFACT_COLUMNS, _catalogue_schema(), (c.row for c in listed))
    _write_parquet(jobs, _JOB_COLUMNS, _job_schema(), map(_job_row, sorted_jobs))
    write_database(
        database,
        {**known.campaign, **(campaign or {})},
        artifacts=(_ARTIFACT_COLUMNS, (c.row for c in listed)),
        jobs=(_JOB_COLUMNS, map(_job_row, sorted_jobs)),
    )
    counts = Counter(job.state for job in sorted_jobs)
    return {
        "catalogues": len(listed),
        "bytes": sum(catalogue.fact.bytes for catalogue in listed),
        "places": dict(sorted(Counter(catalogue.place for catalogue in listed).items())),
        "jobs": dict(sorted(counts.items())),
        "absent": len(absent),
        "absent_names": absent[:MOST_NAMED],
        "missing": None if expected is None else max(0, expected - len(listed)),
        "facts_from": "folder" if facts is None else facts,
    }


def publish_manifest(
    folder: str, *, check: Callable[[], None] | None = None, **inputs: Any
) -> dict[str, Any]:
    """Write manifest and record into a campaign's folder, each file whole or not at all.

    Parameters
    ----------
    check : callable, optional
        Called before each file gets its name; what it raises keeps it from that.
    **inputs
        Those of :func:`write_manifest`.
    """
    paths = {"manifest": MANIFEST, "table": TABLE, "jobs": JOBS, "database": DATABASE}
    uris = {name: storage.join(folder, path) for name, path in paths.items()}
    for uri in uris.values():
        storage.sweep(uri, folder)
    staged = {name: storage.stage(uri, owner=folder) for name, uri in uris.items()}
    try:
        done = write_manifest(
            folder=folder,
            manifest=staged["manifest"].path,
            table=staged["table"].path,
            jobs=staged["jobs"].path,
            database=staged["database"].path,
            **inputs,
        )
        for one in staged.values():
            one.publish(check)
    finally:
        for one in staged.values():
            one.discard()
    return done


def sort_catalogues(facts: Iterable[CatalogueFact], folder: str) -> list[Listed]:
    """Name catalogues relative to their campaign's folder, and bring them into canonical order.

    Raises
    ------
    InvalidInput
        When one lies elsewhere, or two facts of one file differ.
    """
    by_name: dict[str, CatalogueFact] = {}
    for fact in facts:
        name = name_in_campaign(fact.uri, folder)
        known = by_name.setdefault(name, fact)
        if (known.sha256, known.bytes) != (fact.sha256, fact.bytes):
            raise InvalidInput(
                "two facts of one catalogue differ",
                where=name,
                got=f"{fact.sha256[:12]}, {fact.bytes} B",
                expected=f"{known.sha256[:12]}, {known.bytes} B",
                do="keep the fact that sha256sum confirms",
            )
    return [Listed(name, by_name[name]) for name in sorted(by_name)]


def locate(catalogues: Sequence[Listed], folder: str) -> tuple[list[Listed], list[str]]:
    """Say of catalogues where they lie now; return them, and the names of those that lie nowhere.

    A copy that was staged or archived counts where it is the very file that the record states.
    """
    gone = frozenset(find_absent(folder, [catalogue.name for catalogue in catalogues]))
    if not gone:
        return list(catalogues), []
    copies = find_copies(require_local(folder))
    found, absent = [], []
    for listed in catalogues:
        if listed.name not in gone:
            found.append(listed)
            continue
        fact = listed.fact
        copy = choose_copy(copies.get(listed.name, ()), fact.sha256, fact.bytes)
        if copy is not None:
            found.append(replace(listed, copy=copy))
        else:
            absent.append(listed.name)
    if absent:
        _log_absent(absent, folder)
    return found, absent


def _list_elsewhere(here: Iterable[CatalogueFact], folder: str) -> list[CatalogueFact]:
    """State the catalogues that were staged or archived, and are not in the folder any more."""
    names = {name_in_campaign(fact.uri, folder) for fact in here}
    copies = find_copies(require_local(folder))
    return [
        make_fact(name, folder, sha256=found[-1].sha256, size=found[-1].bytes)
        for name, found in sorted(copies.items())
        if name not in names
    ]


def _log_absent(absent: Sequence[str], folder: str) -> None:
    named = ", ".join(absent[:MOST_NAMED]) + (", …" if len(absent) > MOST_NAMED else "")
    log.warning(
        "%s: %d catalogues are recorded, and lie neither here nor staged nor archived; they are"
        " left out: %s", folder, len(absent), named,
    )  # fmt: skip


def sort_jobs(facts: Iterable[JobFact]) -> list[JobFact]:
    """Bring jobs into canonical order: by step, coordinate, name and run."""

    def rank(job: JobFact) -> tuple[Any, ...]:
        realization = -1 if job.realization is None else job.realization
        redshift = -1.0 if job.redshift is None else job.redshift
        return job.step, realization, redshift, job.name, job.run or ""

    return sorted(facts, key=rank)


def render_manifest(listed: Iterable[Listed]) -> str:
    """Render checksums and names as ``sha256sum --check`` reads them."""
    return "".join(f"{catalogue.fact.sha256}  {catalogue.name}\n" for catalogue in listed)


def parse_manifest(text: str, where: object) -> dict[str, str]:
    """Parse a manifest: name → SHA-256.

    Raises
    ------
    InvalidInput
        At the first line that is none of a manifest, or that names a file twice or outside.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        match = _LINE.fullmatch(line)
        at = f"{where}, line {number}"
        if match is None or number > MOST_ROWS:
            raise InvalidInput(
                "not a line of a manifest",
                where=at,
                got=repr(line[:100]),
                do="remove the manifest: the next run writes it again",
            )
        sha256, name = match.groups()
        check_name(name, where=at)
        if found.setdefault(name, sha256) != sha256:
            raise InvalidInput(
                "a file has two checksums",
                where=at,
                got=name,
                do="remove the manifest: the next run writes it again",
            )
    return found


def read_manifest(uri: str) -> dict[str, str]:
    """Read a manifest: name → SHA-256; see :func:`parse_manifest`."""
    if storage.stat(uri).bytes > MOST_BYTES:
        raise InvalidInput(
            "too large for a manifest",
            where=uri,
            expected=f"≤ {MOST_BYTES} B",
            do="remove it: the next run writes it again",
        )
    try:
        return parse_manifest(storage.read_text(uri), uri)
    except UnicodeDecodeError as error:
        raise InvalidInput(
            "not a manifest", where=uri, got=error, do="remove it: the next run writes it again"
        ) from error


def _job_row(job: JobFact) -> tuple[Any, ...]:
    return tuple(getattr(job, name) for name in _JOB_COLUMNS)


def _catalogue_schema() -> Any:
    import pyarrow as pa

    types = (pa.string(), pa.int32(), pa.float64(), pa.int64(), *[pa.string()] * 4)
    return pa.schema(list(zip(_ARTIFACT_COLUMNS, types, strict=True)))


def _job_schema() -> Any:
    import pyarrow as pa

    numbers = {
        "realization": pa.int32(),
        "attempts": pa.int32(),
        **dict.fromkeys(("redshift", "seconds", "max_rss_mib"), pa.float64()),
    }
    return pa.schema([(name, numbers.get(name, pa.string())) for name in _JOB_COLUMNS])


def _write_parquet(
    path: Path, names: Sequence[str], schema: Any, rows: Iterable[Sequence[Any]]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    with os_errors_at(path):
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="zstd")
