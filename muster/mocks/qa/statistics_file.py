"""Statistics of a batch's catalogues as one Parquet file: a row a catalogue, a column an array.

A file that is read may hold anything: its columns, its size and every value are checked, and a row
that cannot be true is left out by name.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from muster import __version__
from muster.errors import InvalidInput
from muster.mocks.coordinates import Coordinate
from muster.mocks.qa.bins import FIELDS, VERSION
from muster.mocks.qa.statistics import find_bad_rows
from muster.storage import os_errors_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray

    from muster.mocks.qa.statistics import CatalogueStatistics

MOST_ROWS = 100_000
MOST_BYTES = 1 << 29
"""Rows and bytes of one file; a batch has some hundred rows, of 3 kB each."""

_ROWS_PER_GROUP = 512
_MOST_TEXT_BYTES = 4096
_ROW_BYTES = sum(field.size * 8 for field in FIELDS)

_COORDINATES = pa.schema([
    pa.field("realization", pa.int32(), nullable=False),
    pa.field("redshift_index", pa.int32(), nullable=False),
    pa.field("redshift", pa.float64(), nullable=False),
    pa.field("uri", pa.string(), nullable=False),
    pa.field("fingerprint", pa.string(), nullable=False),
    pa.field("made_at", pa.timestamp("us", tz="UTC"), nullable=False),
])  # fmt: skip
_COLUMN = {field.name: f"statistics_{field.name}" for field in FIELDS}


@dataclass(frozen=True)
class StatisticsRow:
    """Statistics of one catalogue, and where it stands.

    Attributes
    ----------
    coordinate : Coordinate
        Realization and redshift, as the campaign states them.
    redshift_index : int
        Number of the redshift in the campaign.
    uri, fingerprint : str
        The catalogue, and the fingerprint that it was made with.
    made_at : datetime
        When the catalogue was written, with zone.
    statistics : CatalogueStatistics
        Of the catalogue.
    """

    coordinate: Coordinate
    redshift_index: int
    uri: str
    fingerprint: str
    made_at: datetime
    statistics: CatalogueStatistics


@dataclass(frozen=True)
class StatisticsTable:
    """Rows of one file, a row a catalogue; arrays have the length of the rows that are good.

    Attributes
    ----------
    realization, redshift_index : array of int, shape (rows,)
    redshift : array of float64, shape (rows,)
    made_at_us : array of int64, shape (rows,)
        Microseconds since 1970 UTC.
    uri, fingerprint : list of str
    row : array of int, shape (rows,)
        Number of each row in the file.
    columns : mapping of str to array, (rows, …)
        The arrays that were asked for, by name.
    problems : tuple of str
        Rows that are left out, and why, a line each.
    """

    realization: NDArray[np.int64]
    redshift_index: NDArray[np.int64]
    redshift: NDArray[np.float64]
    made_at_us: NDArray[np.int64]
    uri: list[str]
    fingerprint: list[str]
    row: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]
    problems: tuple[str, ...]


def make_schema() -> pa.Schema:
    """Make the columns of a file, each array with its unit, shape and description."""
    arrays = [
        pa.field(
            _COLUMN[field.name],
            pa.list_(
                pa.field("element", pa.type_for_alias(field.kind), nullable=False), field.size
            ),
            nullable=False,
            metadata={
                "unit": field.unit,
                "description": field.description,
                "shape": json.dumps(field.shape),
            },
        )
        for field in FIELDS
    ]
    said = {"muster": json.dumps({"muster": __version__, "statistics_version": VERSION})}
    return pa.schema([*_COORDINATES, *arrays], metadata=said)


def _element(kind: str) -> pa.Field:
    return pa.field("element", pa.type_for_alias(kind), nullable=False)


def write_statistics(path: Path, rows: Sequence[StatisticsRow]) -> None:
    """Write a batch's statistics; the same rows give the same bytes.

    Parameters
    ----------
    path : Path
        A temporary name, which the caller renames.
    rows : sequence of StatisticsRow
        May be empty.

    Raises
    ------
    Transient, InvalidInput
        When the file cannot be written.
    """
    schema = make_schema()
    columns: list[Any] = [
        [row.coordinate.realization for row in rows],
        [row.redshift_index for row in rows],
        [row.coordinate.redshift for row in rows],
        [row.uri for row in rows],
        [row.fingerprint for row in rows],
        [row.made_at for row in rows],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=False)]
    stored = [row.statistics.to_arrays() for row in rows]
    for field in FIELDS:
        flat = np.concatenate([np.zeros(0, field.kind), *(a[field.name].ravel() for a in stored)])
        kind = schema.field(_COLUMN[field.name]).type
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind))
    table = pa.Table.from_arrays(arrays, schema=schema)
    with os_errors_at(path):
        pq.write_table(
            table,
            path,
            compression="zstd",
            compression_level=3,
            row_group_size=_ROWS_PER_GROUP,
            write_page_checksum=True,
        )


def read_table(path: Path, names: Iterable[str] | None = None) -> StatisticsTable:
    """Read and check a file.

    Parameters
    ----------
    path : Path
        A file that :func:`write_statistics` wrote, or anything else.
    names : iterable of str, optional
        The arrays that are wanted; all by default, and only then their values are checked.

    Raises
    ------
    InvalidInput
        When it is no such file, or too large for one.
    MissingInput, Transient
        When it is not there or cannot be read.
    """
    wanted = [f for f in FIELDS if names is None or f.name in set(names)]
    with os_errors_at(path):
        if path.stat().st_size > MOST_BYTES:
            raise InvalidInput(
                "statistics are too large",
                where=path,
                got=f"{path.stat().st_size} bytes",
                expected=f"at most {MOST_BYTES}",
                do="remove the file: the next run collects it again",
            )
        data = path.read_bytes()
    table = _read_columns(path, data, [*_COORDINATES.names, *(_COLUMN[f.name] for f in wanted)])
    columns = {field.name: _to_rows(table, field.name, field.shape) for field in wanted}
    realization = table["realization"].to_numpy().astype(np.int64)
    redshift = table["redshift"].to_numpy()
    uri, fingerprint = (table[name].to_pylist() for name in ("uri", "fingerprint"))
    bad = find_bad_rows(columns) if names is None else {}
    for row in np.flatnonzero(~(np.isfinite(redshift) & (realization >= 0))):
        bad.setdefault(int(row), "realization or redshift is none")
    good = np.setdiff1d(np.arange(table.num_rows), np.fromiter(bad, np.int64, len(bad)))
    problems = tuple(
        f"{Coordinate(int(realization[row]), float(redshift[row])).name} in {path.name}: {why}"
        for row, why in sorted(bad.items())
    )
    return StatisticsTable(
        realization[good],
        table["redshift_index"].to_numpy().astype(np.int64)[good],
        redshift[good],
        table["made_at"].cast(pa.int64()).to_numpy()[good],
        [uri[row] for row in good],
        [fingerprint[row] for row in good],
        good,
        {name: values[good] for name, values in columns.items()},
        problems,
    )


def _read_columns(path: Path, data: bytes, names: list[str]) -> pa.Table:
    """Read columns; ``path`` is for messages, so that an OSError here is one of the content."""
    try:
        with pq.ParquetFile(
            pa.BufferReader(data),
            thrift_string_size_limit=1 << 22,
            page_checksum_verification=True,
        ) as file:
            _check_size(file, path)
            # Threads would make no file of a megabyte faster, and steps are told how many to use.
            table = file.read(columns=names, use_threads=False)
            table.validate(full=True)
            return table
    except (pa.ArrowException, EOFError, OSError) as error:
        raise InvalidInput(
            "statistics cannot be read",
            where=path,
            got=str(error)[:300],
            expected="a Parquet file of a batch's statistics",
            do="remove it; the next run of the campaign collects it again",
        ) from error


def _check_size(file: pq.ParquetFile, path: Path) -> None:
    """Refuse other columns, and what would be larger in memory than a batch can be."""
    schema = make_schema()
    if not file.schema_arrow.equals(schema):
        raise InvalidInput(
            "statistics have other columns",
            where=path,
            got=", ".join(file.schema_arrow.names[:30]),
            expected=", ".join(schema.names),
            do="remove it; the next run of the campaign collects it again",
        )
    rows = file.metadata.num_rows
    groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
    held = sum(group.total_byte_size for group in groups)
    most = rows * (_ROW_BYTES + _MOST_TEXT_BYTES) + (1 << 20)
    if not 0 <= rows <= MOST_ROWS or held > most or sum(g.num_rows for g in groups) != rows:
        raise InvalidInput(
            "statistics are too large",
            where=path,
            got=f"{rows} rows, {held} bytes",
            expected=f"at most {MOST_ROWS} rows, {most} bytes",
            do="remove the file: the next run collects it again",
        )


def _to_rows(table: pa.Table, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    column = table[_COLUMN[name]].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of a table without rows
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    flat = column.flatten()
    if column.null_count or flat.null_count or len(flat) != len(column) * math.prod(shape):
        raise InvalidInput(
            "statistics lack values",
            where=name,
            do="remove the file: the next run collects it again",
        )
    rows: NDArray[Any] = flat.to_numpy(zero_copy_only=False).reshape(len(column), *shape)
    return rows
