"""Comparing two catalogues, array by array and attribute by attribute, in slabs of rows.

Files of any layout are compared, those of the original among them: all datasets of numbers below
the root but the statistics.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import ConfigError
from muster.mocks.catalogue.difference import (
    AttributeDifference,
    CatalogueDifference,
    DatasetDifference,
)
from muster.mocks.catalogue.hdf5 import (
    AttributeValue,
    hdf5_errors_at,
    list_datasets,
    open_hdf5,
    read_attributes,
    refuse,
    row_slabs,
)
from muster.mocks.catalogue.layout import COLUMN_BY_PATH, STATISTICS_GROUP

if TYPE_CHECKING:
    from pathlib import Path

    import h5py
    from numpy.typing import NDArray

_FIRST_ROWS = 10


def compare_catalogues(
    a: Path, b: Path, *, rtol: float = 0.0, atol: float = 0.0
) -> CatalogueDifference:
    """Compare two catalogues.

    Parameters
    ----------
    a, b : Path
        The files.
    rtol, atol : float
        Values of arrays are equal where |B − A| ≤ atol + rtol |B|, or both are NaN, or the same
        infinity.  With both 0 they are equal where their bytes are: 0 and -0 differ, and a NaN
        equals the same NaN.  Attributes that are numbers follow the same rule, but that 0 is -0.

    Returns
    -------
    CatalogueDifference
        Which datasets and attributes are only in one, or differ, in how many rows and where.

    Raises
    ------
    MissingInput
        When one of the files is not there.
    InvalidInput
        When one of them cannot be read.
    ConfigError
        When a tolerance is negative or not finite.
    """
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(
                "tolerance must be 0 or more",
                where=name,
                got=value,
                do="give a number of 0 or more",
            )
    with open_hdf5(a) as file_a, open_hdf5(b) as file_b:
        of_a, of_b = _datasets(file_a, a), _datasets(file_b, b)
        common = [path for path in of_a if path in of_b]
        attributes = _compare_attributes(file_a, file_b, (a, b), "/", rtol, atol)
        datasets = []
        for path in common:
            with hdf5_errors_at(f"{a} and {b}, {path}"):
                found = _compare_dataset(path, of_a[path], of_b[path], rtol, atol)
            if found is not None:
                datasets.append(found)
            attributes += _compare_attributes(of_a[path], of_b[path], (a, b), path, rtol, atol)
        return CatalogueDifference(
            str(a),
            str(b),
            rtol,
            atol,
            len(common),
            tuple(path for path in of_a if path not in of_b),
            tuple(path for path in of_b if path not in of_a),
            tuple(datasets),
            tuple(attributes),
        )


def _datasets(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    datasets, refused = list_datasets(file)
    refuse(path, refused)
    return {
        name: dataset
        for name, dataset in datasets.items()
        if not name.startswith(f"{STATISTICS_GROUP}/")
    }


def _compare_attributes(
    owner_a: h5py.HLObject,
    owner_b: h5py.HLObject,
    paths: tuple[Path, Path],
    where: str,
    rtol: float,
    atol: float,
) -> list[AttributeDifference]:
    found: list[dict[str, AttributeValue]] = []
    for path, owner in zip(paths, (owner_a, owner_b), strict=True):
        attributes, refused = read_attributes(owner)
        refuse(path, {f"{where}, attribute {name}": text for name, text in refused.items()})
        found.append(attributes)
    of_a, of_b = found
    pairs = ((name, of_a.get(name), of_b.get(name)) for name in sorted({*of_a, *of_b}))
    return [
        AttributeDifference(where, name, one, other)
        for name, one, other in pairs
        if not _is_equal_attribute(one, other, rtol, atol)
    ]


def _is_equal_attribute(a: object, b: object, rtol: float, atol: float) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(
            _is_equal_attribute(one, other, rtol, atol) for one, other in zip(a, b, strict=True)
        )
    if isinstance(a, float) and isinstance(b, float):
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) and math.isnan(b)
        return a == b or abs(b - a) <= atol + rtol * abs(b) < math.inf
    return type(a) is type(b) and a == b


def _compare_dataset(
    path: str, a: h5py.Dataset, b: h5py.Dataset, rtol: float, atol: float
) -> DatasetDifference | None:
    dtypes, shapes = (str(a.dtype), str(b.dtype)), (str(a.shape), str(b.shape))
    if a.shape != b.shape:
        return DatasetDifference(path, dtypes, shapes)
    column = COLUMN_BY_PATH.get(path)
    axis = column.row_axis or 0 if column and len(column.dims) == a.ndim else 0
    rows = _Rows()
    for start, values_a, values_b in _slabs(a, b, axis):
        rows.add(start, values_a, values_b, rtol, atol, is_bytewise=not (rtol or atol))
    if dtypes[0] == dtypes[1] and not rows.differ:
        return None
    return DatasetDifference(
        path,
        dtypes,
        shapes,
        a.shape[axis] if a.shape else 1,
        rows.differ,
        tuple(rows.first),
        rows.largest,
        rows.largest_row,
    )


def _slabs(a: h5py.Dataset, b: h5py.Dataset, axis: int) -> Any:
    """Yield the first row and the values of both, rows along the first axis."""
    if a.shape == ():
        yield 0, np.asarray(a[()])[np.newaxis], np.asarray(b[()])[np.newaxis]
        return
    chunk_rows = max((d.chunks[axis] for d in (a, b) if d.chunks), default=None)
    before = (slice(None),) * axis
    for start, stop in row_slabs(a.shape, a.dtype.itemsize, chunk_rows, axis):
        window = (*before, slice(start, stop))
        yield start, np.moveaxis(a[window], axis, 0), np.moveaxis(b[window], axis, 0)


class _Rows:
    """The rows that differ, from slabs in order."""

    def __init__(self) -> None:
        self.differ = 0
        self.first: list[int] = []
        self.largest: float | None = None
        self.largest_row: int | None = None

    def add(
        self,
        start: int,
        a: NDArray[Any],
        b: NDArray[Any],
        rtol: float,
        atol: float,
        *,
        is_bytewise: bool,
    ) -> None:
        """Take a slab in."""
        if is_bytewise and a.dtype == b.dtype and np.array_equal(_as_bytes(a), _as_bytes(b)):
            return
        unequal = _find_unequal(a, b, rtol, atol, is_bytewise=is_bytewise)
        unequal = unequal.reshape(len(unequal), -1)
        rows = np.flatnonzero(unequal.any(axis=1))
        if not rows.size:
            return
        self.differ += int(rows.size)
        self.first += (start + rows[: _FIRST_ROWS - len(self.first)]).tolist()
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.abs(_subtract(b, a).reshape(unequal.shape))
        off[~unequal | ~np.isfinite(off)] = -1
        each = off.max(axis=1)
        row = int(each.argmax())
        if each[row] >= 0 and (self.largest is None or each[row] > self.largest):
            self.largest, self.largest_row = float(each[row]), start + row


def _find_unequal(
    a: NDArray[Any], b: NDArray[Any], rtol: float, atol: float, *, is_bytewise: bool
) -> NDArray[np.bool_]:
    if is_bytewise and a.dtype == b.dtype:
        differ = _as_bytes(a) != _as_bytes(b)
        return np.asarray(differ.reshape(*a.shape, a.dtype.itemsize).any(axis=-1))
    both_nan = (a != a) & (b != b)
    equal = (a == b) | both_nan
    if not is_bytewise:
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.abs(_subtract(b, a))
            limit = atol + rtol * np.abs(b.astype(np.float64))
        equal |= np.isfinite(off) & (off <= limit)
    return np.asarray(~equal)


def _subtract(b: NDArray[Any], a: NDArray[Any]) -> NDArray[np.float64]:
    """Return B − A; of integers exactly before it is rounded."""
    if a.dtype.kind == b.dtype.kind == "i":
        return np.asarray(np.subtract(b, a, dtype=np.int64).astype(np.float64))
    return np.asarray(b.astype(np.float64) - a.astype(np.float64))


def _as_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
