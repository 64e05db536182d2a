"""Step mocks.populate: one galaxy catalogue, checked before it is published.

Haloes are read, galaxies drawn slab by slab, the file written with its statistics, read again and
validated.  A file that fails is set aside with a report of its problems, and the element fails.

On several ranks each reads the haloes and populates a run of slabs; rank 0 gathers, validates and
reports.  Arrays and, where the file is gathered, bytes are those of a single process.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from muster import storage
from muster.mocks.catalogue.layout import Compression
from muster.mocks.catalogue.parallel import gather_galaxies, write_catalogue_parallel
from muster.mocks.catalogue.problems import INVALID_SUFFIX
from muster.mocks.catalogue.validate import Expected, set_aside
from muster.mocks.catalogue_check import check_catalogue
from muster.mocks.coordinates import Coordinate
from muster.mocks.errors import InvalidCatalogue
from muster.mocks.galaxies.boxes import generate_box
from muster.mocks.galaxies.model import load_model
from muster.mocks.halos.source import load_source
from muster.mocks.installed import require_installed
from muster.mocks.mpi_setup import initialize_mpi_jax
from muster.mocks.qa.statistics import NEEDED, compute_statistics
from muster.model.step import StepContext

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from muster.mocks.catalogue.validate import Problem

log = logging.getLogger(__name__)

SIGMAS = 6.0
"""Deviation of the number of galaxies from its expectation at which a catalogue is refused."""


def populate_mock(
    *,
    source: str,
    haloes: Mapping[str, Any],
    model: str,
    parameters: Mapping[str, Any],
    realization: int,
    redshift: float,
    redshift_index: int,
    seed: int,
    slabs: int,
    min_mass_msunh: float,
    layout: Literal["lean", "full"],
    compression: Mapping[str, Any],
    fingerprint: str,
    reports: str,
    catalogue: Path,
    code: str = "",
    n_gen: int | None = None,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Make the catalogue of one realization at one redshift.

    Parameters
    ----------
    source, haloes
        Halo source, and what it reads (:meth:`muster.mocks.halos.source.HaloSource.read`).
    model, parameters
        Galaxy model and its parameters.
    realization, redshift, redshift_index, seed, slabs
        Coordinates and the seed that all draws follow from.
    min_mass_msunh : float
        Least halo mass in Msun/h.
    layout, compression
        As of :mod:`muster.mocks.catalogue.layout`.
    fingerprint : str
        sha256 of all that the catalogue is made from; an attribute of the file.
    reports : str
        Folder (file URI or path) of validation reports and of files that were set aside.
    catalogue : Path
        Where the file is written.
    code : str
        Version of the code that the run was started with; an attribute of the file.
    n_gen : int, optional
        Test mode: at most so many haloes.
    context : StepContext
        Threads, progress, rank and number of ranks.

    Returns
    -------
    dict
        ``fingerprint``, ``halos``, ``galaxies``, ``satellites``, and the seconds of each phase;
        of ranks but the first nothing.

    Raises
    ------
    CatalogNotFound, ValidationError
        When haloes are absent or wrong.
    ModelNotInstalled, ModelError
        When the galaxy model cannot run, or fails.
    InvalidCatalogue
        When the file fails its validation.
    MPIError, JAXError
        When MPI or JAX is not as ranks need it, or another rank failed.
    """
    coordinate = Coordinate(realization, redshift)
    halo_source, galaxy_model = load_source(source), load_model(model)
    require_installed(halo_source, galaxy_model)
    params = galaxy_model.parse(parameters)
    on_ranks = context.ranks > 1
    mpi = initialize_mpi_jax(with_mpi=on_ranks, with_jax=on_ranks and galaxy_model.compiles)
    phases = _Phases(context)
    with phases.timed("haloes", 0.0):
        halos = halo_source.read(haloes, min_mass_msunh=min_mass_msunh, n_halos=n_gen)
    if not len(halos):
        log.warning("%s: no halo of %g Msun/h or more", coordinate.name, min_mass_msunh)
    with phases.timed("galaxies", 0.1):
        galaxies = generate_box(
            halos,
            galaxy_model,
            params,
            seed=seed,
            realization=realization,
            redshift_index=redshift_index,
            slabs=slabs,
            workers=context.threads,
            histories=layout == "full",
            mpi_context=mpi,
        )
        expectation = galaxy_model.expect(halos, params)
    with phases.timed("statistics", 0.7):
        box = gather_galaxies(galaxies, NEEDED, mpi_context=mpi)
        statistics = (
            None if box is None else compute_statistics(box, halos, workers=context.threads)
        )
        del box
    with phases.timed("write", 0.8):
        write_catalogue_parallel(
            catalogue,
            galaxies,
            halos,
            mpi_context=mpi,
            layout=layout,
            compression=Compression(**compression),
            statistics=None if statistics is None else statistics.to_arrays(),
            threads=context.threads,
            attributes={
                "galaxy_model": galaxy_model.name,
                "versions": json.dumps(galaxy_model.versions(), sort_keys=True),
                "seed": seed,
                "realization": realization,
                "redshift_index": redshift_index,
                "fingerprint": fingerprint,
                **({"code": code} if code else {}),
            },
        )
    if statistics is None:
        return {}
    with phases.timed("validation", 0.9):
        problems = check_catalogue(
            catalogue,
            statistics=True,
            expected=Expected(
                layout=layout,
                box_size_mpch=halos.metadata.box_size_mpch,
                redshift=redshift,
                n_halos=len(halos),
                galaxies=expectation,
                sigmas=SIGMAS,
                attributes={"fingerprint": fingerprint, "realization": realization, "seed": seed},
            ),
        )
    if problems:
        raise _refuse(coordinate, problems, catalogue, reports)
    for uri in _report_uris(coordinate, reports):  # of an earlier attempt
        storage.delete(uri)
    context.progress(1.0, "done")
    return {
        "fingerprint": fingerprint,
        "halos": len(halos),
        "galaxies": statistics.galaxies,
        "satellites": statistics.satellites,
        "seconds": phases.seconds,
    }


populate_mock.on_ranks = True  # type: ignore[attr-defined]


class _Phases:
    """Tell the log, flushed, when each phase begins, and keep how long it takes."""

    def __init__(self, context: StepContext) -> None:
        self.seconds: dict[str, float] = {}
        self._context = context

    @contextmanager
    def timed(self, name: str, fraction: float) -> Iterator[None]:
        """Time a phase that begins at a fraction of the step."""
        log.info("%s", name)
        self._context.progress(fraction, name)
        begun = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begun, 3)


def _refuse(
    coordinate: Coordinate, problems: list[Problem], catalogue: Path, reports: str
) -> InvalidCatalogue:
    """Set a catalogue aside with the report of its problems, and return the error."""
    report = {
        "realization": coordinate.realization,
        "redshift": coordinate.redshift,
        "problems": [problem.to_dict() for problem in problems],
    }
    uri, _ = _report_uris(coordinate, reports)
    storage.write_bytes(uri, json.dumps(report, indent=1).encode())
    kept = storage.local_path(storage.join(reports, f"{coordinate.name}.hdf5"))
    if kept is not None:
        set_aside(catalogue, kept)
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    return InvalidCatalogue(
        "the catalogue fails its validation",
        where=coordinate.name,
        got=f"{problems[0].describe()}{more}",
        do=f"see {uri}",
    )


def _report_uris(coordinate: Coordinate, reports: str) -> tuple[str, str]:
    """Say where the report of a bad catalogue lies, and the catalogue itself."""
    name = storage.join(reports, coordinate.name)
    return f"{name}.json", f"{name}.hdf5{INVALID_SUFFIX}"
