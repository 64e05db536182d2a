"""Plots as people keep them: a CSV with coordinates, trait columns, and perhaps predictors.

Everything that may be wrong with such a table is found here, before a model is trained on it, and
said with the column and the line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from muster.errors import InvalidInput, MissingInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from muster.traits.aoa.neighbours import FloatArray, IntArray

GEOGRAPHIC_CRS = "EPSG:4326"


@dataclass(frozen=True)
class Coordinates:
    """Which columns hold the plots' coordinates, and what they mean.

    Attributes
    ----------
    x, y : str
        Names of the columns; x is the longitude or easting.
    crs : str
        CRS of both, as an authority code or WKT; always x before y, whatever the authority says.
    """

    x: str = "lon"
    y: str = "lat"
    crs: str = GEOGRAPHIC_CRS


@dataclass(frozen=True)
class PlotTable:
    """A table of plots, its columns as they were read.

    Attributes
    ----------
    path : Path
        Where it was read from.
    columns : pyarrow.Table
        All columns, types as found.
    """

    path: Path
    columns: Any

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.columns.column_names)

    def __len__(self) -> int:
        return int(self.columns.num_rows)

    def check_columns(self, wanted: Sequence[str], purpose: str) -> None:
        """Refuse a table that lacks columns.

        Raises
        ------
        InvalidInput
            When any is absent; names all that are, and all that are there.
        """
        absent = [name for name in wanted if name not in self.names]
        if absent:
            raise InvalidInput(
                f"plots lack columns for {purpose}: {', '.join(absent)}",
                where=self.path,
                got=", ".join(self.names),
                expected=", ".join(wanted),
                do="check the spelling, and that columns are separated by commas",
            )

    def numbers(self, name: str) -> FloatArray:
        """Take a column of numbers.

        Returns
        -------
        ndarray, (plot,), float64
            NaN where the cell is empty, NA or NaN.

        Raises
        ------
        InvalidInput
            When a cell holds anything else; says which line.
        """
        column = self.columns.column(name)
        kind = column.type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
            self._refuse_first_text(name)
        values = np.array(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise InvalidInput(
                "plots hold an infinite value",
                where=f"{self.path}, column {name}, row {infinite[0] + 1} below the header",
                do="remove it, or leave the cell empty",
            )
        return values

    def folds(self, name: str) -> IntArray:
        """Take a column of folds, whatever their labels.

        Returns
        -------
        ndarray, (plot,), int64
            0, 1, … in the order of the sorted labels; -1 where the cell is empty.
        """
        column = self.columns.column(name).combine_chunks()
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        labels = sorted(value for value in pc.unique(column).to_pylist() if value is not None)
        number = {label: i for i, label in enumerate(labels)}
        return np.array(
            [-1 if value is None else number[value] for value in column.to_pylist()],
            dtype=np.int64,
        )

    def _refuse_first_text(self, name: str) -> None:
        for row, value in enumerate(self.columns.column(name).to_pylist(), start=1):
            if value is None or _is_number(value):
                continue
            raise InvalidInput(
                "plots hold something that is no number",
                where=f"{self.path}, column {name}, row {row} below the header",
                got=repr(value),
                expected="a number with a decimal point, or an empty cell",
            )
        raise InvalidInput(
            "plots hold something that is no number",
            where=f"{self.path}, column {name}",
            got=str(self.columns.column(name).type),
        )


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def read_plots(path: Path) -> PlotTable:
    """Read a table of plots: CSV, or Parquet where the name ends so.

    Raises
    ------
    MissingInput
        When the file is not there.
    InvalidInput
        When it is no table, has no rows, or a column name twice.
    """
    if not path.is_file():
        raise MissingInput("no table of plots", where=path)
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            columns = pa.parquet.read_table(path)
        else:
            options = pa.csv.ConvertOptions(strings_can_be_null=True)
            columns = pa.csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInput(
            "table of plots cannot be read",
            where=path,
            got=error,
            expected="a CSV file with a header line and columns separated by commas",
        ) from error
    try:
        names = columns.column_names
    except UnicodeDecodeError as error:
        raise InvalidInput(
            "table of plots is not in UTF-8", where=path, got=error, do="save it as UTF-8"
        ) from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput("plots have a column twice", where=path, got=", ".join(twice))
    if columns.num_rows == 0:
        raise InvalidInput("table of plots has no rows", where=path)
    return PlotTable(path, columns)


def read_coordinates(plots: PlotTable, coordinates: Coordinates) -> tuple[FloatArray, FloatArray]:
    """Take the plots' coordinates.

    Returns
    -------
    x, y : ndarray, (plot,), float64
        In ``coordinates.crs``; NaN where a cell is empty.

    Raises
    ------
    InvalidInput
        When a column is absent, or a latitude is beyond the poles.
    """
    plots.check_columns([coordinates.x, coordinates.y], "coordinates")
    x, y = plots.numbers(coordinates.x), plots.numbers(coordinates.y)
    if coordinates.crs == GEOGRAPHIC_CRS:
        beyond = np.flatnonzero((np.abs(y) > 90) | (np.abs(x) > 360))
        if len(beyond):
            row = int(beyond[0])
            raise InvalidInput(
                "plots hold coordinates that are no longitude and latitude",
                where=f"{plots.path}, row {row + 1} below the header",
                got=f"{coordinates.x} {x[row]:g}, {coordinates.y} {y[row]:g}",
                expected="degrees, latitude in [-90, 90]",
                do="check that the columns are not swapped, or name their CRS",
            )
    return x, y
