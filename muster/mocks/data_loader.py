"""Loading the haloes that one path names, with the signature that scripts and notebooks know."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from muster.errors import ConfigError
from muster.mocks.coordinates import Coordinate
from muster.mocks.errors import CatalogNotFound, ValidationError
from muster.mocks.halos.source import load_source

if TYPE_CHECKING:
    from muster.mocks.halos.catalog import HaloCatalog

SYNTHETIC_PREFIX = "synthetic:"
HDF5_SUFFIXES = (".h5", ".hdf", ".hdf5")
_REDSHIFT = re.compile(r"z(\d+\.\d+)")


def load_and_filter_halos(
    catalog_path: str | Path,
    min_mass: float,
    n_gen: int | None = None,
    mpi_context: Any = None,
    *,
    cleaned: bool = True,
) -> HaloCatalog:
    """Load the haloes of a catalogue above a mass, or this rank's slab of them.

    Parameters
    ----------
    catalog_path : str or Path
        A folder of AbacusSummit (``…/halos/z1.100``, or ``halo_info`` in it); an HDF5 file with the
        datasets of our catalogues (``halos/logmhost`` and its like); or ``synthetic:`` and options
        of a synthetic box: ``synthetic:box_size_mpch=100&redshift=1.1&seed=3&realization=7``.
    min_mass : float
        Least mass in Msun/h; haloes below it are left out.
    n_gen : int, optional
        Test mode: at most so many haloes of the box, those of the smallest x.
    mpi_context : tuple of (int, int) or object with ``rank`` and ``size``, optional
        Load slab ``rank`` of ``size`` slabs in y; the whole box by default.
    cleaned : bool
        Of AbacusSummit: whether to load the cleaned catalogue.

    Returns
    -------
    HaloCatalog
        Of length 0 where no halo is above the mass.

    Raises
    ------
    CatalogNotFound
        When there is nothing at the path, or a superslab is missing; a FileNotFoundError too.
    ValidationError
        When what is there is no halo catalogue, or a damaged one; a ValueError too.
    ConfigError
        When an argument is wrong.
    """
    name, inputs = find_catalog(catalog_path, cleaned=cleaned)
    return load_source(name).read(
        inputs, min_mass_msunh=min_mass, slab=_slab_of(mpi_context), n_halos=n_gen
    )


def find_catalog(catalog_path: str | Path, *, cleaned: bool = True) -> tuple[str, dict[str, Any]]:
    """Recognise the source of a catalogue by its path.

    Returns
    -------
    name : str
        Of the source.
    inputs : dict
        What its ``read`` is given.

    Raises
    ------
    CatalogNotFound
        When there is nothing at the path, or a superslab is missing.
    ValidationError
        When what is there is of no source.
    ConfigError
        When options of a synthetic box are wrong.
    """
    if str(catalog_path).startswith(SYNTHETIC_PREFIX):
        return "synthetic", _parse_synthetic(str(catalog_path))
    path = Path(catalog_path)
    if path.is_dir():
        return "abacus_box", _find_abacus(path, cleaned=cleaned)
    if not path.exists():
        raise CatalogNotFound("no halo catalogue", where=path, do="correct the path")
    if path.suffix in HDF5_SUFFIXES:
        return "hdf5", {"path": str(path)}
    raise ValidationError(
        "no halo catalogue that is known by its path",
        where=path,
        expected=f"a folder zN.NNN of AbacusSummit, or a file {', '.join(HDF5_SUFFIXES)}",
        do="give a path of one of these kinds, or read it with its halo source",
    )


def _find_abacus(path: Path, *, cleaned: bool) -> dict[str, Any]:
    folder = path.parent if path.name == "halo_info" else path
    found = folder / "halo_info"
    if not found.is_dir():
        raise ValidationError(
            "the folder is no halo catalogue",
            where=path,
            expected="halo_info in it",
            do="correct the path",
        )
    redshift = _REDSHIFT.fullmatch(folder.name)
    if redshift is None or folder.parent.name != "halos":
        raise ValidationError(
            "the folder is no halo catalogue of AbacusSummit",
            where=path,
            expected="SIMULATION/halos/zN.NNN",
            do="keep the folders of AbacusSummit above it",
        )
    source = load_source("abacus_box")
    options = source.parse_options({"root": str(folder.parents[1]), "cleaned": cleaned})
    coordinate = Coordinate(0, float(redshift[1]))
    state = source.find_inputs(options, [coordinate])[coordinate]
    if state.state != "present":
        raise CatalogNotFound(str(state.reason), where=folder, do="bring the missing file there")
    # Any cosmology will do, as none was asked for.
    return {**state.inputs, "cosmology": None, "realization": None}


def _parse_synthetic(text: str) -> dict[str, Any]:
    pairs = parse_qsl(text.removeprefix(SYNTHETIC_PREFIX), keep_blank_values=True)
    options: dict[str, Any] = dict(pairs)
    if len(options) < len(pairs):
        raise ConfigError("an option is given twice", where=text, do="give it once")
    inputs: dict[str, Any] = {"options": options}
    inputs |= {key: options.pop(key) for key in ("realization", "redshift") if key in options}
    return inputs


def _slab_of(mpi_context: Any) -> tuple[int, int] | None:
    if mpi_context is None:
        return None
    if isinstance(mpi_context, tuple):
        rank, size = mpi_context
    else:
        rank, size = mpi_context.rank, mpi_context.size
    return (int(rank), int(size))
