"""Reading catalogues: datasets by name, attributes, and the small group of statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from muster.errors import InvalidInput
from muster.mocks.catalogue.hdf5 import (
    AttributeValue,
    list_datasets,
    missing,
    open_hdf5,
    read_attributes,
    refuse,
)
from muster.mocks.catalogue.layout import STATISTICS_GROUP

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MOST_STATISTICS_BYTES = 1 << 18
"""Of all arrays of the group ``statistics`` together."""


def read_catalogue(
    path: Path, names: Sequence[str] | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, AttributeValue]]:
    """Read datasets of a catalogue whole, and the attributes of its root.

    Parameters
    ----------
    path : Path
        The file.
    names : sequence of str, optional
        Paths of datasets, see :data:`muster.mocks.catalogue.layout.COLUMNS`; by default all but
        the statistics.

    Returns
    -------
    arrays : dict of str to array
        By path, as stored; a scalar has shape ().
    attributes : dict
        Of the root.

    Raises
    ------
    MissingInput
        When there is no file, or one of the names is not in it.
    InvalidInput
        When the file is not HDF5, or holds anything but plain datasets.
    """
    with open_hdf5(path) as file:
        datasets, refused = list_datasets(file)
        refuse(path, refused)
        attributes, refused = read_attributes(file)
        refuse(path, refused)
        if names is None:
            names = [name for name in datasets if not name.startswith(f"{STATISTICS_GROUP}/")]
        for name in names:
            if name not in datasets:
                raise missing(path, name)
        return {name: _whole(datasets[name]) for name in names}, attributes


def read_statistics(path: Path) -> dict[str, NDArray[Any]]:
    """Read the group ``statistics`` of a catalogue, and nothing else of it.

    Returns
    -------
    dict of str to array
        As they were given to the writer.

    Raises
    ------
    MissingInput
        When there is no file, or no such group in it.
    InvalidInput
        When the file is not HDF5, or the group is not small plain arrays.
    """
    with open_hdf5(path) as file:
        group = file.get(STATISTICS_GROUP) if _has_group(file) else None
        if group is None:
            raise missing(path, STATISTICS_GROUP)
        datasets, refused = list_datasets(group)
        refuse(path, refused)
        total = sum(dataset.nbytes for dataset in datasets.values())
        if total > MOST_STATISTICS_BYTES:
            raise InvalidInput(
                "statistics are too large",
                where=path,
                got=f"{total} bytes",
                expected=f"at most {MOST_STATISTICS_BYTES}",
                do="check the file with 'muster mocks validate'",
            )
        return {name: _whole(dataset) for name, dataset in datasets.items()}


def _has_group(file: h5py.File) -> bool:
    link = file.get(STATISTICS_GROUP, getlink=True)
    is_here = isinstance(link, h5py.HardLink)
    return is_here and file.get(STATISTICS_GROUP, getclass=True) is h5py.Group


def _whole(dataset: h5py.Dataset) -> NDArray[Any]:
    return np.asarray(dataset[()])
