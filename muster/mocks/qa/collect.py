"""Statistics of a campaign: those of a batch's catalogues into one file, and all files read again.

A catalogue that was made again has a row in two files; the row of the catalogue that was written
last counts.  Files are read one after the other, of each only the columns that are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from muster import storage
from muster.errors import ConfigError, InvalidInput, MissingInput, Transient
from muster.mocks.coordinates import Coordinate
from muster.mocks.errors import InvalidCatalogue
from muster.mocks.qa.statistics import CatalogueStatistics
from muster.mocks.qa.statistics_file import StatisticsRow, read_table, write_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    ReadStatistics = Callable[[Path], Mapping[str, NDArray[Any]]]

SUFFIX = ".parquet"
_REDSHIFT_TOLERANCE = 5e-3
"""A simulation's snapshot is not always exactly at the redshift that it is called after."""

DECIMALS = 9
"""Redshifts that differ by less are one."""


_ENTRY: dict[str, type | tuple[type, ...]] = {
    "realization": int,
    "redshift": (int, float),
    "redshift_index": int,
    "uri": str,
    "fingerprint": str,
}


@dataclass(frozen=True)
class Collected:
    """What came of collecting a batch: the number of rows, and a line for each problem."""

    rows: int
    problems: tuple[str, ...]


def collect_statistics(
    catalogues: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    progress: Callable[[float, str], None] | None = None,
    read: ReadStatistics | None = None,
) -> Collected:
    """Collect the statistics of catalogues into one Parquet file.

    Parameters
    ----------
    catalogues : sequence of mapping
        ``realization``, ``redshift``, ``redshift_index``, ``uri`` and ``fingerprint`` of each.
    path : Path
        A temporary name, which the caller renames.
    progress : callable, optional
        Told the fraction done, and of which catalogue.
    read : callable, optional
        Reads the arrays of a catalogue; :func:`muster.mocks.catalogue.read.read_statistics`.

    Returns
    -------
    Collected
        A catalogue that is not there or cannot be read is a problem, and ends no other.

    Raises
    ------
    ConfigError
        When an entry of ``catalogues`` lacks a key or has one of another type.
    Transient
        When storage did not answer.
    """
    if read is None:
        from muster.mocks.catalogue.read import read_statistics  # h5py

        read = read_statistics
    rows: list[StatisticsRow] = []
    problems: list[str] = []
    for number, entry in enumerate(catalogues):
        coordinate = _parse_entry(entry, number)
        try:
            rows.append(_read_row(coordinate, entry, read))
        except (InvalidInput, MissingInput, InvalidCatalogue) as error:
            problems.append(f"{coordinate.name}: {error}")
        if progress is not None:
            progress((number + 1) / len(catalogues), coordinate.name)
    rows.sort(key=lambda row: row.coordinate)
    write_statistics(path, rows)
    return Collected(len(rows), tuple(problems))


def _parse_entry(entry: Mapping[str, Any], number: int) -> Coordinate:
    for name, kind in _ENTRY.items():
        value = entry.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(
                "catalogue to collect is not described",
                where=f"catalogues[{number}].{name}",
                got=repr(value),
                expected=", ".join(_ENTRY),
                do="plan the run again with this version of Muster",
            )
    return Coordinate(entry["realization"], float(entry["redshift"]))


def _read_row(
    coordinate: Coordinate, entry: Mapping[str, Any], read: ReadStatistics
) -> StatisticsRow:
    uri = entry["uri"]
    path = storage.local_path(uri)
    if path is None:
        raise InvalidInput(
            "catalogues are read from a file system",
            where=uri,
            expected="a path or file://",
            do="set outputs.base_path to a path",
        )
    with storage.os_errors_at(uri):
        made_ns = Path(path).stat().st_mtime_ns
    statistics = CatalogueStatistics.from_arrays(read(Path(path)), uri)
    if abs(statistics.redshift - coordinate.redshift) > _REDSHIFT_TOLERANCE:
        raise InvalidInput(
            "catalogue is of another redshift",
            where=uri,
            got=statistics.redshift,
            expected=coordinate.redshift,
            do="make the catalogue again",
        )
    made_at = datetime.fromtimestamp(made_ns // 1000 / 1e6, UTC)
    return StatisticsRow(
        coordinate, entry["redshift_index"], uri, entry["fingerprint"], made_at, statistics
    )


@dataclass(frozen=True)
class CampaignStatistics:
    """All statistics of a campaign: which rows count, and where they are.

    Attributes
    ----------
    files : tuple of Path
        The files that can be read.
    file, row : array of int, shape (catalogues,)
        Where each catalogue's row is; ordered by redshift and realization.
    realization : array of int, shape (catalogues,)
    redshift : array of float64, shape (catalogues,)
    uri : tuple of str
    box_size_mpch : float
        Of all.
    problems : tuple of str
        Files and rows that are left out, a line each.
    """

    files: tuple[Path, ...]
    file: NDArray[np.int64]
    row: NDArray[np.int64]
    realization: NDArray[np.int64]
    redshift: NDArray[np.float64]
    uri: tuple[str, ...]
    box_size_mpch: float
    problems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def coordinates(self) -> list[Coordinate]:
        """Of each catalogue, in order."""
        pairs = zip(self.realization.tolist(), self.redshift.tolist(), strict=True)
        return [Coordinate(realization, redshift) for realization, redshift in pairs]

    @cached_property
    def redshifts(self) -> list[float]:
        """Ascending."""
        return [float(z) for z in np.unique(self.redshift)]

    def at(self, redshift: float) -> NDArray[np.int64]:
        """Return the numbers of the catalogues at a redshift, by realization."""
        return np.flatnonzero(self.redshift == redshift)

    def read_parts(self, *names: str) -> Iterator[tuple[NDArray[np.int64], dict[str, Any]]]:
        """Yield file by file the numbers of catalogues, and their arrays of these names.

        Raises
        ------
        Transient, InvalidInput, MissingInput
            When a file is no longer as it was when the campaign was read.
        """
        for number, path in enumerate(self.files):
            mine = np.flatnonzero(self.file == number)
            if not len(mine):
                continue
            table = read_table(path, names)
            places = np.searchsorted(table.row, self.row[mine])
            if places.max() >= len(table.row) or not (
                np.array_equal(table.realization[places], self.realization[mine])
                and np.array_equal(np.round(table.redshift[places], DECIMALS), self.redshift[mine])
            ):
                raise Transient(
                    "statistics changed while they were read",
                    where=path,
                    do="try again when nothing writes them",
                )
            yield mine, {name: values[places] for name, values in table.columns.items()}

    def read(self, name: str) -> NDArray[Any]:
        """Read one array of every catalogue: (catalogues, …), in order."""
        values: NDArray[Any] | None = None
        for mine, columns in self.read_parts(name):
            part = columns[name]
            if values is None:
                values = np.empty((len(self), *part.shape[1:]), part.dtype)
            values[mine] = part
        return np.empty((0, 0)) if values is None else values


def read_campaign(folder: Path) -> CampaignStatistics:
    """Find the statistics of a campaign, and of each catalogue the row that counts.

    Parameters
    ----------
    folder : Path
        Of the files of its batches.  One that does not exist has none.

    Returns
    -------
    CampaignStatistics
        A file that cannot be read, and a row that cannot be true, is a problem and left out.

    Raises
    ------
    Transient
        When the file system did not answer.
    """
    names = [n for n in storage.list(str(folder)) if n.endswith(SUFFIX)]
    files: list[Path] = []
    parts: list[dict[str, Any]] = []
    problems: list[str] = []
    for name in names:
        try:
            table = read_table(folder / name)
        except (InvalidInput, MissingInput) as error:
            problems.append(str(error))
            continue
        problems += table.problems
        parts.append(
            {
                "file": np.full(len(table.row), len(files)),
                "row": table.row,
                "realization": table.realization,
                "redshift": np.round(table.redshift, DECIMALS),
                "made_at_us": table.made_at_us,
                "box_size_mpch": table.columns["box_size_mpch"][:, 0],
                "uri": np.array(table.uri, object),
            }
        )
        files.append(folder / name)
    if not parts:
        none = np.zeros(0, np.int64)
        return CampaignStatistics(
            (), none, none, none, np.zeros(0), (), float("nan"), tuple(problems)
        )
    rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    kept = _find_newest(rows)
    box_size_mpch, kept, others = _keep_one_box_size(rows, kept)
    return CampaignStatistics(
        files=tuple(files),
        file=rows["file"][kept],
        row=rows["row"][kept],
        realization=rows["realization"][kept],
        redshift=rows["redshift"][kept],
        uri=tuple(rows["uri"][kept]),
        box_size_mpch=box_size_mpch,
        problems=(*problems, *others),
    )


def read_collected(folder: str) -> set[tuple[int, float, str]]:
    """List the catalogues whose statistics a campaign has: realization, redshift, fingerprint.

    Redshifts have :data:`DECIMALS` digits; a file that cannot be read has none.

    Raises
    ------
    Transient
        When the file system did not answer.
    """
    found: set[tuple[int, float, str]] = set()
    for name in storage.list(folder):
        path = storage.local_path(storage.join(folder, name))
        if path is None or not name.endswith(SUFFIX):
            continue
        try:
            table = read_table(path)
        except (InvalidInput, MissingInput):  # the ensemble names it
            continue
        redshifts = np.round(table.redshift, DECIMALS).tolist()
        found.update(zip(table.realization.tolist(), redshifts, table.fingerprint, strict=True))
    return found


def _find_newest(rows: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Return the newest row of each coordinate, by redshift and realization."""
    order = np.lexsort((
        rows["row"], rows["file"], rows["made_at_us"], rows["realization"], rows["redshift"]
    ))  # fmt: skip
    same = (np.diff(rows["redshift"][order]) == 0) & (np.diff(rows["realization"][order]) == 0)
    return order[np.append(~same, True)] if len(order) else order


def _keep_one_box_size(
    rows: Mapping[str, NDArray[Any]], kept: NDArray[np.int64]
) -> tuple[float, NDArray[np.int64], list[str]]:
    """Leave out boxes of another size than most have: their statistics are of other volumes."""
    sizes, counts = np.unique(rows["box_size_mpch"][kept], return_counts=True)
    if not len(sizes):
        return float("nan"), kept, []
    usual = float(sizes[counts.argmax()])
    alike = rows["box_size_mpch"][kept] == usual
    problems = [
        f"{Coordinate(int(rows['realization'][row]), float(rows['redshift'][row])).name}: a box of"
        f" {rows['box_size_mpch'][row]:g} Mpc/h among boxes of {usual:g} Mpc/h"
        for row in kept[~alike]
    ]
    return usual, kept[alike], problems
