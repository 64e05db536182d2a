"""One catalogue from the ranks of an MPI job, each of which holds a share of the galaxies.

Where h5py was built with parallel HDF5, all ranks write into one file; elsewhere the shares are
gathered to rank 0.  Either way the arrays are those of a single process: galaxies in the order of
the ranks, haloes in the order of their ids.  Rank 0 alone publishes.  A rank that fails makes all
ranks fail: none waits for ever.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import h5py
import numpy as np

from muster.errors import MusterError
from muster.mocks.catalogue.arrays import Content, make_content
from muster.mocks.catalogue.hdf5 import hdf5_errors_at
from muster.mocks.catalogue.layout import COLUMN_BY_PATH, REFERS_TO, Column, Compression, Layout
from muster.mocks.catalogue.write import (
    LIBVER,
    UNCOMPRESSED,
    check_statistics,
    create_dataset,
    publish,
    write_content,
    write_head,
)
from muster.mocks.errors import MPIError, RankFailed
from muster.mocks.galaxies.catalog import GalaxyCatalog
from muster.storage import os_errors_at, temporary_sibling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from muster.mocks.halos.catalog import HaloCatalog

ROOT = 0

T = TypeVar("T")


class Ranks(Protocol):
    """What is needed of an MPI context."""

    @property
    def comm(self) -> Any:
        """Communicator of mpi4py; None of one process."""

    @property
    def rank(self) -> int:
        """Rank of this process."""

    @property
    def size(self) -> int:
        """Number of ranks."""


def has_parallel_hdf5() -> bool:
    """Say whether h5py was built with parallel HDF5."""
    return bool(h5py.get_config().mpi)


def write_catalogue_parallel(
    path: Path,
    galaxies: GalaxyCatalog,
    halos: HaloCatalog,
    *,
    mpi_context: Ranks,
    layout: Layout = "lean",
    compression: Compression = UNCOMPRESSED,
    statistics: Mapping[str, NDArray[Any]] | None = None,
    attributes: Mapping[str, Any] | None = None,
    threads: int = 1,
) -> None:
    """Write one catalogue from all ranks; each of them calls this.

    Parameters
    ----------
    path : Path
        The file, the same on all ranks.
    galaxies : GalaxyCatalog
        This rank's share; shares follow each other in the order of the ranks.
    halos : HaloCatalog
        The haloes of the whole box, the same on all ranks, or this rank's share of them; shares
        have no halo in common.
    mpi_context : Ranks
        Communicator, rank and size, see :func:`muster.mocks.mpi_setup.initialize_mpi_jax`.
    layout, compression, statistics, attributes, threads
        As of :func:`muster.mocks.catalogue.write.write_catalogue`; rank 0's statistics and
        attributes are taken.

    Raises
    ------
    MPIError
        When another rank failed, or the shares do not fit each other.
    ConfigError, ModelError, Transient, InvalidInput
        On the rank that failed, as of ``write_catalogue``.
    """
    comm = mpi_context.comm
    group = _Group(comm, mpi_context.rank, mpi_context.size if comm is not None else 1)
    share = group.together(lambda: make_content(galaxies, halos, layout, attributes, statistics))
    if group.size == 1:
        write_content(path, share, compression, threads)
        return
    counts = _count_galaxies(group, share)
    content = _with_whole_halos(group, share)
    if has_parallel_hdf5():
        _write_in_parallel(group, path, content, counts, compression)
    else:
        gathered = _gather_galaxies(group, content, counts)

        def write() -> None:
            if group.rank == ROOT:
                write_content(path, gathered, compression, threads)

        group.together(write)


def gather_galaxies(
    galaxies: GalaxyCatalog, names: Iterable[str], *, mpi_context: Ranks
) -> GalaxyCatalog | None:
    """Gather the galaxies of a box on rank 0; each rank calls this.

    Parameters
    ----------
    galaxies : GalaxyCatalog
        This rank's share; ``parent_halos`` counts in the whole box.
    names : iterable of str
        Properties that are gathered, with their galaxies along the first axis.
    mpi_context : Ranks
        Communicator, rank and size.

    Returns
    -------
    GalaxyCatalog or None
        The box with these properties alone, its galaxies in the order of the ranks; None on the
        other ranks.

    Raises
    ------
    MPIError
        When MPI failed, or the ranks lack other properties than each other.
    """
    if mpi_context.comm is None or mpi_context.size == 1:
        return galaxies
    group = _Group(mpi_context.comm, mpi_context.rank, mpi_context.size)
    columns = {name: galaxies.properties[name] for name in names if name in galaxies.properties}
    columns |= {".positions": galaxies.positions, ".parents": galaxies.parent_halos}
    kinds = {name: (array.dtype.str, array.shape[1:]) for name, array in columns.items()}
    told = group.all_of((len(galaxies), kinds))
    if any(other != kinds for _, other in told):
        raise MPIError(
            "the ranks hold galaxies of other kinds",
            got=[kinds for _, kinds in told],
            do="give every rank the same model and parameters",
        )
    counts = [count for count, _ in told]
    whole = {name: group.gather_rows(array, counts) for name, array in columns.items()}
    if group.rank != ROOT:
        return None
    positions, parents = whole.pop(".positions"), whole.pop(".parents")
    return GalaxyCatalog(positions, whole, parents, galaxies.attributes)


class _Group:
    """The ranks, which do things together or fail together."""

    def __init__(self, comm: Any, rank: int, size: int) -> None:
        self.comm, self.rank, self.size = comm, rank, size

    def together(self, work: Callable[[], T]) -> T:
        """Do something on all ranks; when it fails on any, raise on all."""
        error: MusterError | None = None
        result: Any = None
        try:
            result = work()
        except MusterError as raised:
            error = raised
        if self.size > 1:
            told = self.all_of(None if error is None else str(error))
            failed = [(rank, text) for rank, text in enumerate(told) if text is not None]
            if failed and error is None:
                rank, text = failed[0]
                raise RankFailed(
                    "another rank failed",
                    where=f"rank {rank}",
                    got=text,
                    do="see the error of that rank",
                )
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def all_of(self, value: Any) -> list[Any]:
        """Give a small value to all ranks, and return those of all."""
        with _mpi_errors():
            return list(self.comm.allgather(value))

    def of_root(self, value: Any) -> Any:
        """Return rank 0's small value."""
        with _mpi_errors():
            return self.comm.bcast(value, root=ROOT)

    def gather_rows(self, rows: NDArray[Any], counts: list[int]) -> NDArray[Any]:
        """Gather rows (first axis) of all ranks to rank 0, in their order; elsewhere no rows."""
        rows = np.ascontiguousarray(rows)
        width = int(np.prod(rows.shape[1:], dtype=int))
        total = sum(counts) if self.rank == ROOT else 0
        gathered = np.empty((total, *rows.shape[1:]), rows.dtype)
        receive = [gathered, [count * width for count in counts]] if self.rank == ROOT else None
        with _mpi_errors():
            self.comm.Gatherv(rows, receive, root=ROOT)
        return gathered


@contextlib.contextmanager
def _mpi_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of which MPI.Exception is one
        raise MPIError(
            "MPI failed", got=str(error), do="see the launcher's output, and try again"
        ) from error


def _rows_first(column: Column, array: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(array, column.row_axis or 0, 0)


def _rows_back(column: Column, rows: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(rows, 0, column.row_axis or 0))


def _columns(content: Content, rows_of: str | None) -> list[Column]:
    columns = (COLUMN_BY_PATH[path] for path in content.arrays)
    return [column for column in columns if column.rows_of == rows_of]


def _count_galaxies(group: _Group, share: Content) -> list[int]:
    """Return the galaxies of each rank; the shares must be of one kind."""
    wanted = _columns(share, "galaxy")
    kinds = {
        column.path: (
            share.arrays[column.path].dtype.str,
            _rows_first(column, share.arrays[column.path]).shape[1:],
        )
        for column in wanted
    }
    told = group.all_of((kinds, share.refers_to, len(share.arrays["galaxies/pos"])))
    for rank, (other, _, _) in enumerate(told):
        differ = sorted(
            path for path in {*kinds, *other} if told[ROOT][0].get(path) != other.get(path)
        )
        if differ:
            raise MPIError(
                "the ranks hold galaxies of other kinds",
                where=f"ranks {ROOT} and {rank}",
                got=", ".join(differ),
                do="give every rank the same model and parameters",
            )
    if any(refers_to != REFERS_TO[0] for _, refers_to, _ in told):
        raise MPIError(
            "satellites of several ranks must name their host by its id",
            got="rows of halos",
            do="take a model whose upid is an id, or one rank",
        )
    return [count for _, _, count in told]


def _with_whole_halos(group: _Group, share: Content) -> Content:
    """Bring the haloes of the box to rank 0, in the order of their ids; elsewhere there are none.

    The attributes and what has no rows are rank 0's on all ranks.
    """
    ids = share.arrays["halos/id"]
    told = group.all_of((len(ids), hashlib.sha256(ids.tobytes()).hexdigest()))
    counts = [count for count, _ in told]
    is_share = len({digest for _, digest in told}) > 1
    halos = {}
    for column in _columns(share, "halo"):
        array = share.arrays[column.path]
        halos[column.path] = (
            group.gather_rows(array, counts)
            if is_share
            else array[: len(array) if group.rank == ROOT else 0]
        )
    ids = halos["halos/id"]
    if is_share:
        order = np.argsort(ids, kind="stable")
        halos = {path: array[order] for path, array in halos.items()}
        ids = halos["halos/id"]

    def check() -> None:
        twice = ids[1:][ids[1:] == ids[:-1]]
        if twice.size:
            raise MPIError(
                "a halo is on two ranks", got=f"id {twice[0]}", do="deal each halo to one rank"
            )

    group.together(check)
    n_galaxies = sum(group.all_of(len(share.arrays["galaxies/pos"])))
    attributes, statistics = group.of_root((share.attributes, share.statistics))
    attributes |= {"n_galaxies": n_galaxies, "n_halos": group.of_root(len(ids))}
    box = {column.path: share.arrays[column.path] for column in _columns(share, None)}
    arrays = {**share.arrays, **group.of_root(box), **halos}
    return Content(arrays, attributes, share.refers_to, statistics)


def _gather_galaxies(group: _Group, content: Content, counts: list[int]) -> Content:
    """Return the content of the whole box on rank 0, and one without rows elsewhere."""
    arrays = dict(content.arrays)
    for column in _columns(content, "galaxy"):
        rows = group.gather_rows(_rows_first(column, arrays[column.path]), counts)
        arrays[column.path] = _rows_back(column, rows)
    return replace(content, arrays=arrays)


def _write_in_parallel(
    group: _Group, path: Path, content: Content, counts: list[int], compression: Compression
) -> None:
    """Write one file from all ranks, collectively."""

    def choose() -> str:
        check_statistics(content.statistics)
        with os_errors_at(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return str(temporary_sibling(path))

    temporary = Path(group.of_root(group.together(choose)))

    def write() -> None:
        with (
            hdf5_errors_at(path),
            h5py.File(
                temporary, "w", driver="mpio", comm=group.comm, libver=LIBVER, locking=False
            ) as file,
        ):
            write_head(file, content)
            for name in content.arrays:
                _write_share(group, file, COLUMN_BY_PATH[name], content, counts, compression)

    try:
        group.together(write)
        group.together(lambda: publish(temporary, path) if group.rank == ROOT else None)
    finally:
        if group.rank == ROOT:
            temporary.unlink(missing_ok=True)


def _write_share(
    group: _Group,
    file: h5py.File,
    column: Column,
    content: Content,
    counts: list[int],
    compression: Compression,
) -> None:
    array, axis = content.arrays[column.path], column.row_axis or 0
    shape, start = list(array.shape), 0
    if column.rows_of == "galaxy":
        shape[axis], start = sum(counts), sum(counts[: group.rank])
    elif column.rows_of == "halo":
        shape[axis] = int(content.attributes["n_halos"])
    dataset = create_dataset(file, column, tuple(shape), array.dtype, compression, content)
    if column.rows_of is None:
        if group.rank == ROOT:
            dataset[...] = array
        return
    if 0 in shape:
        return
    target = dataset.id.get_space()
    source = h5py.h5s.create_simple(array.shape if array.size else (1,))
    if array.size:
        offset = [0] * array.ndim
        offset[axis] = start
        target.select_hyperslab(tuple(offset), array.shape)
    else:  # takes part in the write all the same
        target.select_none()
        source.select_none()
        array = np.zeros(1, array.dtype)
    transfer = h5py.h5p.create(h5py.h5p.DATASET_XFER)
    transfer.set_dxpl_mpio(h5py.h5fd.MPIO_COLLECTIVE)
    dataset.id.write(source, target, np.ascontiguousarray(array), dxpl=transfer)
