"""Reading haloes from an HDF5 file that others wrote, a window of rows at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from muster.mocks.errors import CatalogNotFound, ValidationError
from muster.mocks.halos.catalog import HaloMetadata
from muster.mocks.halos.columns import Columns
from muster.mocks.halos.damage import check_values, damage_at
from muster.mocks.halos.hdf5_options import DEFAULT_IDS
from muster.mocks.halos.slabs import check_selection, wrap_positions

if TYPE_CHECKING:
    from muster.mocks.halos.catalog import HaloCatalog
    from muster.mocks.halos.hdf5_options import Hdf5Inputs
    from muster.mocks.halos.source import SlabAxis

WINDOW_ROWS = 1 << 20
MOST_HALOS = 200_000_000
_MOST_CHUNK_BYTES = 1 << 30
_REDSHIFT_TOLERANCE = 1e-3
_DAMAGED = (KeyError, RuntimeError, TypeError, ValueError)
"""What h5py raises, beside OSError, for a file that is damaged or of another kind."""


def read_hdf5_halos(
    inputs: Hdf5Inputs,
    *,
    min_mass_msunh: float,
    slab: tuple[int, int] | None,
    slab_axis: SlabAxis,
    n_halos: int | None,
) -> HaloCatalog:
    """Read the haloes of one box, or of a slab of it.

    Parameters
    ----------
    inputs : Hdf5Inputs
        Of :meth:`muster.mocks.halos.hdf5.Hdf5Source.find_inputs`.
    min_mass_msunh, slab, slab_axis, n_halos
        As :meth:`muster.mocks.halos.source.HaloSource.read` has them.

    Raises
    ------
    CatalogNotFound
        When there is no such file.
    ValidationError
        When it is no HDF5 file, is damaged, lacks a dataset, takes data from other files, or holds
        values that no halo has.
    """
    check_selection(min_mass_msunh, slab, n_halos)
    path = Path(inputs.path)
    if not path.exists():
        raise CatalogNotFound(
            "no such file of haloes", where=path, do="bring it there, or correct science.box"
        )
    columns = Columns(slab=slab, slab_axis=slab_axis, n_halos=n_halos)
    with (
        damage_at(path, "HDF5 file of haloes", _DAMAGED),
        h5py.File(path, "r", locking="best-effort") as file,
    ):
        unit_mpch = {"Mpc/h": 1.0, "kpc/h": 1e-3, "Mpc": inputs.cosmology.h}[
            inputs.layout.length_unit
        ]
        box_size = _read_box_size(file, inputs, unit_mpch, path)
        redshift = _read_redshift(file, inputs, path)
        datasets = _find_datasets(file, inputs, path)
        rows = len(datasets["masses"])
        for start in range(0, rows, WINDOW_ROWS):
            window = slice(start, min(start + WINDOW_ROWS, rows))
            part = _read_window(datasets, window, inputs, unit_mpch, box_size, min_mass_msunh, path)
            columns.add(*part, box_size_mpch=box_size)
    return columns.build(
        HaloMetadata(
            simulation="hdf5",
            box_size_mpch=box_size,
            redshift=redshift,
            cosmology=inputs.cosmology.cosmology,
            phase=inputs.phase,
            realization=inputs.realization,
            min_mass_msunh=float(min_mass_msunh),
            slab=slab,
            source={"suite": "hdf5", "path": str(path), "h5py": h5py.__version__},
        ),
        where=path,
    )


def _read_box_size(file: h5py.File, inputs: Hdf5Inputs, unit_mpch: float, path: Path) -> float:
    name = inputs.layout.box_size
    stated = _read_number(file, name, path)
    if stated is None:
        if inputs.box_size_mpch is None:
            raise ValidationError(
                f"the file has no attribute {name} of the box size",
                where=path,
                do="state box_size_mpch",
            )
        return inputs.box_size_mpch
    found = stated * unit_mpch
    asked = inputs.box_size_mpch
    if not 0 < found <= 1e5 or (asked is not None and abs(found - asked) > 1e-3):
        raise ValidationError(
            f"the attribute {name} states another box size",
            where=path,
            got=f"{found} Mpc/h",
            expected=f"{asked} Mpc/h" if asked is not None else "0 to 1e5 Mpc/h",
            do="correct box_size_mpch, or the file",
        )
    return found


def _read_redshift(file: h5py.File, inputs: Hdf5Inputs, path: Path) -> float:
    name = inputs.layout.redshift
    stated = _read_number(file, name, path)
    asked = inputs.redshift
    if stated is None:
        if asked is None:
            raise ValidationError(
                f"the file has no attribute {name} of the redshift",
                where=path,
                do="add the attribute, or name another in science.box",
            )
        return asked
    if stated < -1e-6 or (asked is not None and abs(stated - asked) > _REDSHIFT_TOLERANCE):
        raise ValidationError(
            f"the attribute {name} states another redshift",
            where=path,
            got=stated,
            expected=asked if asked is not None else "≥ 0",
            do="correct the path of this redshift, or the file",
        )
    return max(0.0, stated)


def _read_number(file: h5py.File, name: str, path: Path) -> float | None:
    if name not in file.attrs:
        return None
    value = np.asarray(file.attrs[name])
    if value.size != 1 or value.dtype.kind not in "iuf" or not math.isfinite(value.item()):
        raise ValidationError(
            f"the attribute {name} is no number", where=path, do="correct the attribute"
        )
    return float(value.item())


def _find_datasets(file: h5py.File, inputs: Hdf5Inputs, path: Path) -> dict[str, h5py.Dataset]:
    names = inputs.layout.model_dump(include={"masses", "positions", "velocities", "radii", "ids"})
    if names["ids"] == DEFAULT_IDS and DEFAULT_IDS not in file:
        names["ids"] = None
    found = {
        column: _find_dataset(file, name, path)
        for column, name in names.items()
        if name is not None
    }
    rows = found["masses"].shape[0] if found["masses"].ndim else -1
    for column, dataset in found.items():
        expected = (rows, 3) if column in ("positions", "velocities") else (rows,)
        kinds = "iu" if column == "ids" else "iuf"
        if dataset.shape != expected or dataset.dtype.kind not in kinds:
            raise ValidationError(
                f"dataset {names[column]} is not what {column} should be",
                where=path,
                got=f"{dataset.dtype} {dataset.shape}",
                expected=f"{'integers' if column == 'ids' else 'numbers'} {expected}",
                do="write the dataset in that kind, or name another in science.box",
            )
    if rows > MOST_HALOS:
        raise ValidationError(
            "too many haloes", where=path, got=rows, expected=MOST_HALOS, do="cut the file by mass"
        )
    return found


def _find_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Find a dataset whose bytes lie in this file."""
    group: Any = file
    for part in name.strip("/").split("/"):
        if not isinstance(group, h5py.Group):
            break
        if isinstance(group.get(part, getlink=True), h5py.ExternalLink):
            raise _elsewhere(name, path)
        group = group.get(part)
    if not isinstance(group, h5py.Dataset):
        raise ValidationError(
            f"the file has no dataset {name}",
            where=path,
            do="name the datasets in science.box, or add it",
        )
    if group.is_virtual or group.external:
        raise _elsewhere(name, path)
    chunk_bytes = math.prod(group.chunks or (0,)) * group.dtype.itemsize
    if chunk_bytes > _MOST_CHUNK_BYTES:
        raise ValidationError(
            f"a chunk of dataset {name} is too large",
            where=path,
            got=f"{chunk_bytes} bytes",
            expected=f"at most {_MOST_CHUNK_BYTES}",
            do="write the file with smaller chunks (h5repack)",
        )
    return group


def _elsewhere(name: str, path: Path) -> ValidationError:
    return ValidationError(
        f"dataset {name} takes data from another file",
        where=path,
        expected="all in the file",
        do="copy the data into the file (h5repack)",
    )


def _read_window(
    datasets: dict[str, h5py.Dataset],
    window: slice,
    inputs: Hdf5Inputs,
    unit_mpch: float,
    box_size: float,
    min_mass_msunh: float,
    path: Path,
) -> tuple[Any, Any, Any, Any, Any]:
    """Return positions, masses, ids, velocities and radii of a window's haloes above the mass."""
    masses = datasets["masses"][window].astype(np.float64)
    unit = inputs.layout.mass_unit
    if unit == "log10(Msun/h)":
        check_values((masses >= 0) & (masses < 20), "masses", "log10 of 1 to 1e20 Msun/h", path)
        masses = 10**masses
    elif unit == "Msun":
        masses *= inputs.cosmology.h
    check_values((masses >= 0) & (masses < 1e20), "masses", "0 to 1e20 Msun/h", path)
    kept = (masses > 0) & (masses >= min_mass_msunh)
    if "ids" in datasets:
        ids = datasets["ids"][window][kept]
        check_values(ids <= np.iinfo(np.int64).max, "ids", "below 2**63", path)
    else:
        ids = np.arange(window.start, window.stop)[kept]
    positions = datasets["positions"][window][kept]
    velocities = datasets["velocities"][window][kept]
    radii = datasets["radii"][window][kept]
    if unit_mpch != 1.0:
        positions, radii = positions * unit_mpch, radii * unit_mpch
    inside = (positions >= -1e-5 * box_size) & (positions <= box_size * (1 + 1e-5))
    check_values(inside, "positions", f"0 to {box_size} Mpc/h", path)
    check_values(np.abs(velocities) < 3e5, "velocities", "slower than light", path)
    check_values((radii >= 0) & (radii < box_size / 2), "radii", f"0 to {box_size / 2}", path)
    wrapped = wrap_positions(positions, box_size)
    return wrapped, masses[kept], ids.astype(np.int64), velocities, radii
