"""HDF5 files as others may have written them: opened, listed and read within bounds.

Only hard links are followed, only numbers of native kinds are read, through no filter but HDF5's
own and h5py's; what a dataset says that it holds must fit what the file holds.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from muster.errors import InvalidInput, MissingInput, MusterError
from muster.mocks.hdf5_text import fold_hdf5_text
from muster.storage import explain_os_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)
"""What h5py raises for a file that it cannot make sense of."""

MOST_OBJECTS = 1024
"""Links in a group, and objects in a file, that are looked at."""

MOST_ATTRIBUTE_BYTES = 1 << 15
SLAB_BYTES = 8 << 20
"""About as many bytes of a dataset are held at a time."""

_DEEPEST = 4
_MOST_ROWS = 1 << 33
_MOST_CHUNK_BYTES = 64 << 20
_MOST_DIMENSIONS = 3
_GREATEST_RATIO = 1100
"""Deflate makes 1032 bytes of one, at the most."""

_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_LZF,
}

AttributeValue = int | float | str | tuple[int | float, ...]


def explain_hdf5_error(error: Exception, where: object) -> MusterError:
    """Turn what h5py raised into a Muster error of its class.

    An error of the file system keeps its class (see :func:`muster.storage.explain_os_error`),
    although h5py may raise it as RuntimeError with the number in its text; all else is
    InvalidInput, as the file is not what HDF5 can read.
    """
    text = str(error)
    told = re.search(r"\berrno = (\d+)", text)
    number = getattr(error, "errno", None) or (int(told[1]) if told else 0)
    if number:
        return explain_os_error(OSError(number, os.strerror(number)), where)
    return InvalidInput(
        "not a file that HDF5 can read",
        where=where,
        got=fold_hdf5_text(text),
        do="copy the file again from where it is whole",
    )


@contextlib.contextmanager
def hdf5_errors_at(where: object) -> Iterator[None]:
    """Raise what h5py raises in the block as a Muster error."""
    try:
        yield
    except MusterError:
        raise
    except HDF5_ERRORS as error:
        raise explain_hdf5_error(error, where) from error


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading.

    Raises
    ------
    MissingInput
        When there is none.
    InvalidInput
        When it is no regular file, or no HDF5, or cut short.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise explain_os_error(error, path) from error
    if not stat.S_ISREG(mode):
        raise InvalidInput("not a file", where=path, do="give a regular file")
    with hdf5_errors_at(path):
        if not h5py.is_hdf5(path):
            raise InvalidInput("not an HDF5 file", where=path, do="give an HDF5 file")
        file = h5py.File(path, "r", locking=False)
    try:
        with hdf5_errors_at(path):
            yield file
    finally:
        file.close()


def list_datasets(top: h5py.Group) -> tuple[dict[str, h5py.Dataset], dict[str, str]]:
    """List the datasets of a file, or of a group.

    Returns
    -------
    datasets : dict of str to h5py.Dataset
        By path without a leading slash, in the order of names.
    refused : dict of str to str
        By path, what keeps it from being read: links that lead elsewhere, unknown objects, data
        that is not as it says.
    """
    datasets: dict[str, h5py.Dataset] = {}
    refused: dict[str, str] = {}
    file_bytes = top.file.id.get_filesize()
    waiting: list[tuple[str, h5py.Group]] = [("", top)]
    while waiting:
        prefix, group = waiting.pop()
        if len(group) + len(datasets) + len(refused) > MOST_OBJECTS:
            refused[prefix or "/"] = f"more than {MOST_OBJECTS} objects in the file"
            break
        for name in group:
            path = f"{prefix}{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                refused[path] = "a link that may lead elsewhere; only hard links are followed"
                continue
            found = group[name]
            if isinstance(found, h5py.Dataset):
                problem = find_fault(found, file_bytes)
                if problem is None:
                    datasets[path] = found
                else:
                    refused[path] = problem
            elif isinstance(found, h5py.Group) and path.count("/") < _DEEPEST:
                waiting.append((f"{path}/", found))
            else:
                refused[path] = "neither a dataset nor a group of datasets"
    return dict(sorted(datasets.items())), refused


def find_fault(dataset: h5py.Dataset, file_bytes: int) -> str | None:
    """Say what keeps a dataset from being read, from its header alone; None if nothing does."""
    if dataset.dtype.kind not in "iufb" or dataset.dtype.itemsize > 8:
        return f"no numbers but {dataset.dtype}"
    if dataset.shape is None or len(dataset.shape) > _MOST_DIMENSIONS:
        return f"no array of up to {_MOST_DIMENSIONS} dimensions: {dataset.shape}"
    if max(dataset.shape, default=0) > _MOST_ROWS:
        return f"too large: {dataset.shape}"
    if dataset.is_virtual or dataset.external:
        return "kept in other files"
    created = dataset.id.get_create_plist()
    filters = {created.get_filter(number)[0] for number in range(created.get_nfilters())}
    if not filters <= _FILTERS:
        return f"filters that are not known: {sorted(filters - _FILTERS)}"
    return _find_fault_of_size(dataset, file_bytes, compressed=bool(filters))


def _find_fault_of_size(dataset: h5py.Dataset, file_bytes: int, *, compressed: bool) -> str | None:
    claimed = math.prod(dataset.shape) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    if dataset.chunks is not None:
        chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
        if chunk_bytes > _MOST_CHUNK_BYTES:
            return f"chunks of {chunk_bytes} bytes, at most {_MOST_CHUNK_BYTES} are read"
        pairs = zip(dataset.shape, dataset.chunks, strict=True)
        chunks = math.prod(-(-length // chunk) for length, chunk in pairs)
        if dataset.id.get_num_chunks() != chunks:
            return f"{dataset.id.get_num_chunks()} of {chunks} chunks are there"
    if stored > file_bytes or claimed > stored * (_GREATEST_RATIO if compressed else 1):
        return f"says {claimed} bytes, has {stored}, in a file of {file_bytes}"
    return None


def read_attributes(owner: h5py.HLObject) -> tuple[dict[str, AttributeValue], dict[str, str]]:
    """Read the attributes of a file, group or dataset.

    Returns
    -------
    attributes : dict
        Numbers, texts, and short tuples of numbers.
    refused : dict of str to str
        By name, what keeps one from being read.
    """
    attributes: dict[str, AttributeValue] = {}
    refused: dict[str, str] = {}
    if len(owner.attrs) > MOST_OBJECTS:
        return {}, {"": f"more than {MOST_OBJECTS} attributes"}
    for name in owner.attrs:
        header = owner.attrs.get_id(name)
        is_text = h5py.check_string_dtype(header.dtype) is not None
        if header.shape is None or header.get_storage_size() > MOST_ATTRIBUTE_BYTES:
            refused[name] = "empty or too large"
        elif is_text and header.shape == ():
            value = owner.attrs[name]
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            if len(text) > MOST_ATTRIBUTE_BYTES:
                refused[name] = "too long"
            else:
                attributes[name] = text
        elif not is_text and header.dtype.kind in "iufb":
            attributes[name] = _plain(np.asarray(owner.attrs[name]))
        else:
            refused[name] = f"neither a number nor a text: {header.dtype}"
    return attributes, refused


def _plain(value: NDArray[Any]) -> AttributeValue:
    listed = value.tolist()
    return tuple(np.ravel(listed).tolist()) if isinstance(listed, list) else listed


def row_slabs(
    shape: tuple[int, ...], itemsize: int, chunk_rows: int | None, axis: int = 0
) -> Iterator[tuple[int, int]]:
    """Cut an axis into slabs of about ``SLAB_BYTES``, along chunks where there are any."""
    rows = shape[axis]
    row_bytes = itemsize * math.prod(shape[:axis] + shape[axis + 1 :])
    step = max(1, SLAB_BYTES // max(1, row_bytes))
    if chunk_rows:
        step = max(chunk_rows, step // chunk_rows * chunk_rows)
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def read_slabs(dataset: h5py.Dataset, axis: int = 0) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the first row and the values of each slab of a dataset; a scalar is one slab."""
    if dataset.shape == ():
        yield 0, dataset[()]
        return
    chunk_rows = dataset.chunks[axis] if dataset.chunks else None
    before = (slice(None),) * axis
    for start, stop in row_slabs(dataset.shape, dataset.dtype.itemsize, chunk_rows, axis):
        yield start, dataset[(*before, slice(start, stop))]


def refuse(path: Path, refused: dict[str, str]) -> None:
    """Raise InvalidInput for the first of what cannot be read, if there is any."""
    for name, problem in refused.items():
        raise InvalidInput(
            "cannot be read",
            where=f"{path}, {name}",
            got=problem,
            do="write the file again without this object",
        )


def missing(path: Path, name: str) -> MissingInput:
    """Make the error of a file without a group or dataset."""
    return MissingInput(
        "not in the file",
        where=path,
        expected=name,
        do="give a file of the layout in docs/mocks.md",
    )
