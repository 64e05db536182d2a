"""Writing a catalogue: aside, synced, renamed; the same arrays give the same bytes.

Chunks are handed to HDF5 as they are to lie in the file: uncompressed ones straight from the
arrays, which is as fast as one contiguous dataset, and those of gzip compressed here, on as many
threads as may be used.  Those of lzf are compressed by HDF5 and bypass its cache: HDF5 keeps a
cached chunk that found no space on the disk, and crashes over it when the process ends.  The file
holds no times, and what pads the last chunk of a dataset is 0.
"""

from __future__ import annotations

import os
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from muster.errors import SoftwareError
from muster.mocks.catalogue.arrays import Content, make_content
from muster.mocks.catalogue.hdf5 import hdf5_errors_at
from muster.mocks.catalogue.layout import (
    COLUMN_BY_PATH,
    STATISTICS_GROUP,
    Column,
    Compression,
    Layout,
)
from muster.mocks.catalogue.read import MOST_STATISTICS_BYTES
from muster.storage import os_errors_at, temporary_sibling
from muster.storage.files import replace_durably

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from muster.mocks.galaxies.catalog import GalaxyCatalog
    from muster.mocks.halos.catalog import HaloCatalog

LIBVER = ("earliest", "v110")
"""The oldest form that holds the file is written, whatever this HDF5 would choose."""

UNCOMPRESSED = Compression()
_MOST_CHUNK_BYTES = 4 << 20
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def write_catalogue(
    path: Path,
    galaxies: GalaxyCatalog,
    halos: HaloCatalog,
    *,
    layout: Layout = "lean",
    compression: Compression = UNCOMPRESSED,
    statistics: Mapping[str, NDArray[Any]] | None = None,
    attributes: Mapping[str, Any] | None = None,
    threads: int = 1,
) -> None:
    """Write the galaxies and haloes of a box.

    Parameters
    ----------
    path : Path
        The file; it has its new content whole, or is what it was before.
    galaxies, halos : GalaxyCatalog, HaloCatalog
        Of the box; either may be of length 0.
    layout : "lean" or "full"
        With ``"lean"``, formation histories are left out.
    compression : Compression
        How chunks are stored.
    statistics : mapping of str to array, optional
        Small arrays, 256 KiB at most, of the group ``statistics``.
    attributes : mapping, optional
        Further attributes of the root: seed, realization, fingerprint, see
        :data:`muster.mocks.catalogue.layout.ATTRIBUTES`.
    threads : int
        That compress; the bytes do not depend on it.

    Raises
    ------
    ConfigError
        When the layout is full and the model made no histories.
    ModelError
        When the arrays do not fit the layout or each other.
    Transient, InvalidInput
        When the file cannot be written: no space, no permission.
    """
    content = make_content(galaxies, halos, layout, attributes, statistics)
    write_content(path, content, compression, threads)


def write_content(path: Path, content: Content, compression: Compression, threads: int = 1) -> None:
    """Write what :func:`make_content` put together, aside, and rename it."""
    check_statistics(content.statistics)
    with os_errors_at(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        with (
            hdf5_errors_at(path),
            h5py.File(temporary, "w", libver=LIBVER, locking=False) as file,
        ):
            _write(file, content, compression, threads)
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def publish(temporary: Path, path: Path) -> None:
    """Sync a complete file and rename it."""
    with os_errors_at(path):
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        replace_durably(temporary, path)


def check_statistics(statistics: Mapping[str, NDArray[Any]]) -> None:
    """Refuse statistics that a reader would refuse."""
    total = sum(values.nbytes for values in statistics.values())
    if total > MOST_STATISTICS_BYTES:
        raise SoftwareError(
            "statistics are too large",
            got=f"{total} bytes",
            expected=f"at most {MOST_STATISTICS_BYTES}",
            do="give fewer bins",
        )
    for name, values in statistics.items():
        if not _NAME.fullmatch(name) or values.dtype.kind not in "iufb" or values.ndim > 3:
            raise SoftwareError(
                "statistics are not plain arrays of numbers",
                where=name,
                got=f"{values.dtype}, {values.ndim} dimensions",
                do="give arrays of numbers with plain names",
            )


def _write(file: h5py.File, content: Content, compression: Compression, threads: int) -> None:
    write_head(file, content)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for path, array in content.arrays.items():
            column = COLUMN_BY_PATH[path]
            dataset = create_dataset(file, column, array.shape, array.dtype, compression, content)
            if dataset.chunks is None:
                dataset[...] = array
            elif compression.kind == "lzf":
                _write_through_hdf5(dataset, array, column.row_axis or 0)
            else:
                _write_chunks(dataset, array, column.row_axis or 0, compression, pool, threads)


def write_head(file: h5py.File, content: Content) -> None:
    """Write the attributes of the root, the statistics, and the groups."""
    for name, value in content.attributes.items():
        write_attribute(file, name, value)
    if content.statistics:
        group = file.create_group(STATISTICS_GROUP)
        for name in sorted(content.statistics):
            group.create_dataset(name, data=content.statistics[name])
    for name in ("galaxies", "halos"):
        file.create_group(name)


def create_dataset(
    file: h5py.File,
    column: Column,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    compression: Compression,
    content: Content,
) -> h5py.Dataset:
    """Create a dataset of the layout with its unit and description; chunked if it has rows."""
    options: dict[str, Any] = {}
    chunks = chunk_shape(column, shape, dtype.itemsize, compression.chunk_rows)
    if chunks is not None:
        options["chunks"] = chunks
        if compression.kind != "none":
            options["compression"] = compression.kind
            options["shuffle"] = compression.shuffle
        if compression.kind == "lzf":
            options["rdcc_nbytes"] = 1  # less than a chunk: see the module's docstring
        if compression.kind == "gzip":
            options["compression_opts"] = compression.level
    dataset = file.create_dataset(column.path, shape, dtype, track_times=False, **options)
    for name in ("unit", "description", "h_scaled", "comoving"):
        write_attribute(dataset, name, getattr(column, name))
    if column.path == "galaxies/upid":
        write_attribute(dataset, "refers_to", content.refers_to)
    return dataset


def write_attribute(owner: h5py.HLObject, name: str, value: float | str) -> None:
    """Write a scalar attribute, as ``owner.attrs[name] = value`` does in four times the time."""
    dtype = h5py.string_dtype() if isinstance(value, str) else np.asarray(value).dtype
    kind = h5py.h5t.py_create(dtype, logical=True)
    made = h5py.h5a.create(owner.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
    made.write(np.asarray(value, dtype))


def chunk_shape(
    column: Column, shape: tuple[int, ...], itemsize: int, most_rows: int
) -> tuple[int, ...] | None:
    """Return the shape of chunks; None of a dataset that has no rows, or grows with nothing.

    The rows are dealt evenly to the fewest chunks, so that next to nothing of the file is padding.
    """
    axis = column.row_axis
    if axis is None or 0 in shape:
        return None
    rows = shape[axis]
    row_bytes = itemsize * int(np.prod(shape)) // rows
    most = max(1, min(most_rows, _MOST_CHUNK_BYTES // row_bytes))
    each = -(-rows // -(-rows // most))
    return (*shape[:axis], each, *shape[axis + 1 :])


def _blocks(array: NDArray[Any], axis: int, chunk: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    """Yield the chunks of an array, C-contiguous, the last one padded with 0."""
    rows, each = array.shape[axis], chunk[axis]
    before = (slice(None),) * axis
    for start in range(0, rows, each):
        block = array[(*before, slice(start, start + each))]
        if block.shape[axis] < each:
            padded = np.zeros(chunk, array.dtype)
            padded[(*before, slice(block.shape[axis]))] = block
            block = padded
        yield np.ascontiguousarray(block)


def _write_chunks(
    dataset: h5py.Dataset,
    array: NDArray[Any],
    axis: int,
    compression: Compression,
    pool: ThreadPoolExecutor,
    threads: int,
) -> None:
    blocks = _blocks(array, axis, dataset.chunks)
    each, offset = dataset.chunks[axis], [0] * array.ndim
    if compression.kind == "none":
        for block in blocks:
            dataset.id.write_direct_chunk(tuple(offset), block)
            offset[axis] += each
        return
    for encoded in _in_order(pool, blocks, compression, ahead=2 * threads):
        dataset.id.write_direct_chunk(tuple(offset), encoded)
        offset[axis] += each


def _in_order(
    pool: ThreadPoolExecutor, blocks: Iterator[NDArray[Any]], compression: Compression, ahead: int
) -> Iterator[bytes]:
    """Compress blocks, a few at a time, and yield them in order."""
    waiting = []
    for block in blocks:
        waiting.append(pool.submit(encode, block, compression))
        if len(waiting) > ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def encode(block: NDArray[Any], compression: Compression) -> bytes:
    """Shuffle and deflate a chunk as HDF5's own filters do."""
    data: Any = block
    if compression.shuffle and block.dtype.itemsize > 1:
        data = np.ascontiguousarray(block.view(np.uint8).reshape(-1, block.dtype.itemsize).T)
    return zlib.compress(data, compression.level)


def _write_through_hdf5(dataset: h5py.Dataset, array: NDArray[Any], axis: int) -> None:
    each, before = dataset.chunks[axis], (slice(None),) * axis
    for start in range(0, array.shape[axis], each):
        rows = (*before, slice(start, start + each))
        dataset[rows] = array[rows]
