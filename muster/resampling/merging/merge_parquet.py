"""Merged datasets as a Parquet file, the same to the byte however its rows came.

A row group is written when it is full, and how many rows fill it follows from the columns alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from muster import __version__
from muster.errors import MusterError
from muster.raster.windows import MIB
from muster.raster.write.integrity import check_output_folder, explain_write_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from muster.raster.grid import Grid
    from muster.resampling.config.merge_cells import Cells
    from muster.resampling.layer import Layer

MOST_GROUP_ROWS = 1 << 20
_GROUP_MIB = 48
"""What the columns of a row group may take before it is written."""

_ZSTD_LEVEL = 3
_PLACES = (("row_idx", "int32"), ("col_idx", "int32"), ("x", "float64"), ("y", "float64"))


def write_parquet(
    path: Path,
    layers: Sequence[Layer],
    grid: Grid,
    cells: Iterable[Cells],
    said: Mapping[str, str],
) -> int:
    """Write cells as they come.

    Parameters
    ----------
    path : Path
        The file.
    layers : sequence of Layer
        In the order of their columns.
    grid : Grid
        Of all.
    cells : iterable of Cells
        Row by row.
    said : mapping of str to str
        What else the file's metadata say, under the key "muster".

    Returns
    -------
    int
        Bytes of the file.

    Raises
    ------
    InvalidInput
        When the folder is absent or read-only.
    Transient
        When there is no space.
    """
    check_output_folder(path)
    schema = make_schema(layers, grid, said)
    try:
        with pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=_ZSTD_LEVEL
        ) as writer:
            group = _Group(schema, min(group_rows(layers), grid.height * grid.width))
            for part in cells:
                for batch in group.add(part):
                    writer.write_batch(batch, row_group_size=MOST_GROUP_ROWS)
            last = group.take()
            if last.num_rows:
                writer.write_batch(last, row_group_size=MOST_GROUP_ROWS)
        return path.stat().st_size
    except MusterError:
        # Closed as it was, the file looks whole.
        path.unlink(missing_ok=True)
        raise
    except OSError as error:
        explained = explain_write_error(path, str(error), "table")
        path.unlink(missing_ok=True)
        raise explained from error


def make_schema(layers: Sequence[Layer], grid: Grid, said: Mapping[str, str]) -> pa.Schema:
    """Make the columns, and say in the metadata what they are and where they come from."""
    unit = grid.crs.linear_units if grid.crs.is_projected else "degree"
    fields = [pa.field(name, pa.type_for_alias(kind), nullable=False) for name, kind in _PLACES[:2]]
    fields += [
        pa.field(name, pa.float64(), nullable=False, metadata={"unit": unit}) for name in "xy"
    ]
    fields += [
        pa.field(
            layer.dataset.name,
            pa.from_numpy_dtype(np.dtype(layer.dtype)),
            metadata={"unit": layer.dataset.unit, "description": layer.dataset.description},
        )
        for layer in layers
    ]
    t = grid.transform
    document = {
        "muster": __version__,
        **said,
        "grid": {
            "crs": grid.crs.to_wkt(version="WKT2_2019"),
            "transform": [t.a, t.b, t.c, t.d, t.e, t.f],
            "height": grid.height,
            "width": grid.width,
        },
        "datasets": [
            {
                "name": layer.dataset.name,
                "key": layer.key,
                "unit": layer.dataset.unit,
                "description": layer.dataset.description,
                "method": layer.dataset.method,
                "sources": list(layer.sources),
                "band": layer.dataset.band,
                "kind": layer.kind,
                "reason": layer.reason,
                "fingerprint": layer.fingerprint,
            }
            for layer in layers
        ],
    }
    return pa.schema(fields, metadata={"muster": json.dumps(document, ensure_ascii=False)})


def group_rows(layers: Sequence[Layer]) -> int:
    """Say how many rows a row group has: a power of two that follows from the columns alone."""
    row_bytes = sum(np.dtype(kind).itemsize for _, kind in _PLACES)
    row_bytes += sum(np.dtype(layer.dtype).itemsize + 1 for layer in layers)
    most = max(1, min(MOST_GROUP_ROWS, _GROUP_MIB * MIB // row_bytes))
    return 1 << (most.bit_length() - 1)


class _Group:
    """Rows of the next row group, in buffers that are filled again and again."""

    def __init__(self, schema: pa.Schema, rows: int) -> None:
        self._schema = schema
        self._rows = rows
        self._filled = 0
        self._columns = [np.empty(rows, field.type.to_pandas_dtype()) for field in schema]
        self._null = [np.empty(rows, np.bool_) for _ in list(schema)[len(_PLACES) :]]

    def add(self, part: Cells) -> Iterable[pa.RecordBatch]:
        """Take cells in, and give each group that is full."""
        columns: list[np.ndarray[Any, Any]] = [part.row, part.col, part.x, part.y, *part.values]
        start = 0
        while start < len(part.row):
            length = min(len(part.row) - start, self._rows - self._filled)
            into, source = (
                slice(self._filled, self._filled + length),
                slice(start, start + length),
            )
            for buffer, values in zip(self._columns, columns, strict=True):
                buffer[into] = values[source]
            for null, valid in zip(self._null, part.valid, strict=True):
                np.logical_not(valid[source], out=null[into])
            self._filled += length
            start += length
            if self._filled == self._rows:
                yield self.take()

    def take(self) -> pa.RecordBatch:
        """Give what has been taken in, and begin anew; good until the next is taken in."""
        masks = [None] * len(_PLACES) + [null[: self._filled] for null in self._null]
        arrays = [
            pa.array(values[: self._filled], type=field.type, mask=mask)
            for values, field, mask in zip(self._columns, self._schema, masks, strict=True)
        ]
        self._filled = 0
        return pa.record_batch(arrays, schema=self._schema)
