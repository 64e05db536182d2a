"""Writing under the names of the original: paths checked, files named, one catalogue written."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from muster.errors import ConfigError, MusterError
from muster.mocks.catalogue.layout import HISTORIES
from muster.mocks.catalogue.parallel import write_catalogue_parallel
from muster.mocks.catalogue.write import write_catalogue
from muster.mocks.errors import CatalogNotFound, ValidationError

if TYPE_CHECKING:
    from muster.mocks.catalogue.layout import Layout
    from muster.mocks.catalogue.parallel import Ranks
    from muster.mocks.galaxies.catalog import GalaxyCatalog
    from muster.mocks.halos.catalog import HaloCatalog

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")


def write_parallel_hdf5(
    galcat: GalaxyCatalog,
    halo_data: HaloCatalog,
    output_path: str | Path,
    mpi_context: Ranks | None,
    box_size: float,
) -> bool:
    """Write the catalogue of a box, from one process or from all ranks of an MPI job.

    Parameters
    ----------
    galcat : GalaxyCatalog
        Of the box, or this rank's share of it; a full catalogue is written where it has formation
        histories, a lean one elsewhere.
    halo_data : HaloCatalog
        Of the box, or this rank's share of it.
    output_path : str or Path
        The file; missing folders are made.
    mpi_context : Ranks or None
        See :func:`muster.mocks.mpi_setup.initialize_mpi_jax`; None of a single process.
    box_size : float
        Side of the box, comoving Mpc/h; that of the haloes.

    Returns
    -------
    bool
        True: the file is there, whole.

    Raises
    ------
    MPIError
        When another rank failed, or the shares do not fit each other.
    OSError
        When the file cannot be written.
    ValidationError
        When the box is not that of the haloes.
    """
    stated = halo_data.metadata.box_size_mpch
    if not math.isclose(box_size, stated, rel_tol=1e-6):
        raise ValidationError(
            "not the box of the haloes",
            where="box_size",
            got=box_size,
            expected=stated,
            do="give the box size of the haloes, or leave it out",
        )
    path = Path(output_path)
    has_histories = all(
        name in galcat.properties or name in galcat.attributes for name in HISTORIES
    )
    layout: Layout = "full" if has_histories else "lean"
    try:
        if mpi_context is None or mpi_context.size == 1:
            write_catalogue(path, galcat, halo_data, layout=layout)
        else:
            write_catalogue_parallel(
                path, galcat, halo_data, mpi_context=mpi_context, layout=layout
            )
    except MusterError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from error
        raise
    return True


def validate_catalog_path(catalog_path: str | Path) -> bool:
    """Check that the folder of a halo catalogue is there and can be listed.

    Returns
    -------
    bool
        True.

    Raises
    ------
    CatalogNotFound
        When it is not; it is a FileNotFoundError.
    """
    path = Path(catalog_path)
    if not path.is_dir():
        raise CatalogNotFound(
            "no such halo catalogue", where=path, expected="a folder", do="correct the path"
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise CatalogNotFound(
            "halo catalogue cannot be read", where=path, do="correct its permissions"
        )
    return True


def generate_output_filename(
    simulation_box: str, phase: str, redshift: str, n_gen: int | None = None
) -> str:
    """Name the file of a catalogue as the original does.

    Parameters
    ----------
    simulation_box : str
        AbacusSummit_small_c000.
    phase : str
        ph3000.
    redshift : str
        z1.100.
    n_gen : int, optional
        Number of haloes of a test, which the name then tells.

    Returns
    -------
    str
        mock_AbacusSummit_small_c000_ph3000_z1.100.hdf5, or ..._test5000.hdf5.

    Raises
    ------
    ConfigError
        When one of them is no plain word, so that the name could lead elsewhere.
    """
    words = {"simulation_box": simulation_box, "phase": phase, "redshift": redshift}
    for name, word in words.items():
        if not _WORD.fullmatch(word):
            raise ConfigError(
                "not a part of a file name",
                where=name,
                got=repr(word),
                expected="letters, digits, _ . + -",
                do="leave other characters out",
            )
    if n_gen is not None and n_gen < 0:
        raise ConfigError(
            "number of haloes is negative",
            where="n_gen",
            got=n_gen,
            do="give 0 or more, or leave it out",
        )
    test = "" if n_gen is None else f"_test{n_gen}"
    return f"mock_{'_'.join(words.values())}{test}.hdf5"
