"""The training table of a bundle: what every plot had, in the model's order, with its fold.

The area of applicability needs the very rows that the model was trained on, and which of them
were held out together; so they travel with the model, as Parquet, which any language reads.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from muster.errors import InvalidInput

NEVER_HELD_OUT = -1
"""Fold of a plot that no fold model left out."""

_FloatArray = np.ndarray[Any, np.dtype[np.float64]]
_IntArray = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class TrainingTable:
    """Plots of one trait, as the model saw them.

    Attributes
    ----------
    values : ndarray, (plot, predictor), float64
        Predictor values in the model's order and the predictors' own units.
    fold : ndarray, (plot,), int32
        Which fold model held the plot out; -1 where none did.
    target : ndarray, (plot,), float64
        The trait, in its own unit.
    x, y : ndarray, (plot,), float64, or None
        Coordinates in the bundle's CRS, where they are known.
    """

    values: _FloatArray
    fold: _IntArray
    target: _FloatArray
    x: _FloatArray | None = None
    y: _FloatArray | None = None


def render_training_table(table: TrainingTable, predictors: tuple[str, ...]) -> bytes:
    """Render a training table as Parquet.

    Parameters
    ----------
    table : TrainingTable
        The plots.
    predictors : tuple of str
        Names of the columns of ``table.values``.

    Returns
    -------
    bytes
        A Parquet file with the predictors as float64, then fold, target, and x and y if known.
    """
    columns: dict[str, Any] = {
        name: np.ascontiguousarray(table.values[:, i], dtype=np.float64)
        for i, name in enumerate(predictors)
    }
    columns["fold"] = np.asarray(table.fold, dtype=np.int32)
    columns["target"] = np.asarray(table.target, dtype=np.float64)
    if table.x is not None and table.y is not None:
        columns["x"] = np.asarray(table.x, dtype=np.float64)
        columns["y"] = np.asarray(table.y, dtype=np.float64)
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def read_training_table(path: Path, predictors: tuple[str, ...]) -> TrainingTable:
    """Read a training table back.

    Parameters
    ----------
    path : Path
        training.parquet of a bundle.
    predictors : tuple of str
        The model's predictors, in its order.

    Returns
    -------
    TrainingTable
        As it was written.

    Raises
    ------
    InvalidInput
        When the file is no Parquet file, or lacks a column, or a column holds no numbers.
    """
    try:
        columns = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInput(
            "training table cannot be read", where=path, got=error, expected="a Parquet file"
        ) from error
    wanted = (*predictors, "fold", "target")
    absent = [name for name in wanted if name not in columns.column_names]
    if absent:
        raise InvalidInput(
            "training table lacks columns",
            where=path,
            got=", ".join(columns.column_names),
            expected=", ".join(wanted),
            do="make the bundle again",
        )

    def column(name: str) -> _FloatArray:
        try:
            array = columns.column(name).cast(pa.float64()).to_numpy()
        except pa.ArrowInvalid as error:
            raise InvalidInput(
                "training table column holds no numbers", where=f"{path}: {name}", got=error
            ) from error
        return np.ascontiguousarray(array, dtype=np.float64)

    values = np.empty((columns.num_rows, len(predictors)), dtype=np.float64)
    for i, name in enumerate(predictors):
        values[:, i] = column(name)
    located = "x" in columns.column_names and "y" in columns.column_names
    return TrainingTable(
        values=values,
        fold=column("fold").astype(np.int32),
        target=column("target"),
        x=column("x") if located else None,
        y=column("y") if located else None,
    )


def count_plots(path: Path) -> int:
    """Count the plots of a training table.

    Raises
    ------
    InvalidInput
        As :func:`read_training_table`.
    """
    try:
        rows: int = pq.read_metadata(path).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInput(
            "training table cannot be read", where=path, got=error, do="make the bundle again"
        ) from error
    return rows


def read_training_sample(path: Path, predictors: tuple[str, ...], most_rows: int) -> _FloatArray:
    """Read predictor values of plots that lie evenly in the table, in bounded memory.

    Parameters
    ----------
    path : Path
        training.parquet of a bundle.
    predictors : tuple of str
        The model's predictors, in its order.
    most_rows : int
        How many plots at most; all where there are no more.

    Returns
    -------
    ndarray, (plot, predictor), float64
        In the table's order.

    Raises
    ------
    InvalidInput
        As :func:`read_training_table`.
    """
    parts = []
    first = 0
    try:
        file = pq.ParquetFile(path)
        step = max(1, -(-file.metadata.num_rows // most_rows))
        for batch in file.iter_batches(columns=list(predictors)):
            rows = pa.array(range(-first % step, batch.num_rows, step))
            table = batch.take(rows).select(list(predictors))
            parts.append(np.column_stack([column.cast(pa.float64()) for column in table.columns]))
            first += batch.num_rows
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise InvalidInput(
            "training table cannot be read", where=path, got=error, do="make the bundle again"
        ) from error
    return np.ascontiguousarray(np.concatenate(parts))
