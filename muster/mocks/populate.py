"""Step mocks.populate: one galaxy catalogue, checked before it is published.

Haloes are read, galaxies drawn slab by slab, the file written with its statistics, read again and
validated.  A file that fails is set aside with a report of its problems, and the element fails.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from muster import storage
from muster.mocks.catalogue.layout import Compression
from muster.mocks.catalogue.validate import Expected, set_aside, validate_catalogue
from muster.mocks.catalogue.write import write_catalogue
from muster.mocks.coordinates import Coordinate
from muster.mocks.errors import InvalidCatalogue, ModelNotInstalled
from muster.mocks.galaxies.boxes import generate_box
from muster.mocks.galaxies.model import load_model
from muster.mocks.halos.source import load_source
from muster.mocks.qa.statistics import compute_statistics
from muster.model.step import StepContext

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from muster.mocks.catalogue.validate import Problem
    from muster.mocks.galaxies.model import GalaxyModel
    from muster.mocks.halos.source import HaloSource

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
    n_gen : int, optional
        Test mode: at most so many haloes.
    context : StepContext
        Threads, progress.

    Returns
    -------
    dict
        ``fingerprint``, ``halos``, ``galaxies``, ``satellites``, and the seconds of each phase.

    Raises
    ------
    CatalogNotFound, ValidationError
        When haloes are absent or wrong.
    ModelNotInstalled, ModelError
        When the galaxy model cannot run, or fails.
    InvalidCatalogue
        When the file fails its validation.
    """
    coordinate = Coordinate(realization, redshift)
    halo_source, galaxy_model = load_source(source), load_model(model)
    _check_installed(halo_source, galaxy_model)
    params = galaxy_model.parse(parameters)
    phases = _Phases(context)
    with phases.timed("haloes", 0.0):
        halos = halo_source.read(haloes, min_mass_msunh=min_mass_msunh, n_halos=n_gen)
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
        )
        expectation = galaxy_model.expect(halos, params)
    with phases.timed("statistics", 0.7):
        statistics = compute_statistics(galaxies, halos)
    with phases.timed("write", 0.8):
        write_catalogue(
            catalogue,
            galaxies,
            halos,
            layout=layout,
            compression=Compression(**compression),
            statistics=statistics.to_arrays(),
            attributes={
                "galaxy_model": galaxy_model.name,
                "versions": json.dumps(galaxy_model.versions(), sort_keys=True),
                "seed": seed,
                "realization": realization,
                "redshift_index": redshift_index,
                "fingerprint": fingerprint,
            },
        )
    with phases.timed("validation", 0.9):
        problems = validate_catalogue(
            catalogue,
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
    context.progress(1.0, "done")
    return {
        "fingerprint": fingerprint,
        "halos": len(halos),
        "galaxies": len(galaxies),
        "satellites": statistics.satellites,
        "seconds": phases.seconds,
    }


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


def _check_installed(source: HaloSource, model: GalaxyModel) -> None:
    for part in (source, model):
        lacking = part.check_installed()
        if lacking is not None:
            raise ModelNotInstalled(lacking, where=part.name)


def _refuse(
    coordinate: Coordinate, problems: list[Problem], catalogue: Path, reports: str
) -> InvalidCatalogue:
    """Set a catalogue aside with the report of its problems, and return the error."""
    report = {
        "realization": coordinate.realization,
        "redshift": coordinate.redshift,
        "problems": [problem.to_dict() for problem in problems],
    }
    uri = storage.join(reports, f"{coordinate.name}.json")
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
