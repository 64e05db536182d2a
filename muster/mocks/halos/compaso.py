"""Reading CompaSO halo catalogues of AbacusSummit (Hadzhiyska et al. 2022) with abacusutils.

The only module that imports abacusutils, which is under GPL-3.0 and an extra of its own.  Files are
checked before it reads them (:mod:`muster.mocks.halos.asdf_blocks`), one at a time: one superslab
is in memory beside the haloes that are kept.
"""

from __future__ import annotations

import contextlib
import gc
import math
import struct
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asdf
import blosc
import numpy as np
import yaml
from abacusnbody.data.compaso_halo_catalog import CompaSOHaloCatalog

from muster.mocks.errors import CatalogNotFound, ValidationError
from muster.mocks.halos.asdf_blocks import check_blocks, check_sums
from muster.mocks.halos.catalog import Cosmology, HaloCatalog, HaloMetadata
from muster.mocks.halos.columns import Columns
from muster.mocks.halos.cosmologies import CosmologyOptions
from muster.mocks.halos.damage import check_values, damage_at
from muster.mocks.halos.slabs import check_selection, count_strays, superslabs_near, wrap_positions
from muster.mocks.halos.superslabs import read_listed_sizes
from muster.storage import os_errors_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.mocks.halos.abacus_options import CompasoInputs
    from muster.mocks.halos.source import SlabAxis

_FIELDS = {"id": (), "N": (), "x_com": (3,), "v_com": (3,), "r100_com": ()}
"""Fields that are read, with the shape of one halo's value."""

_MOST_HALOS = 200_000_000
"""In one superslab."""

_REDSHIFT_TOLERANCE = 1e-3
_DAMAGED = (
    asdf.exceptions.AsdfWarning,
    asdf.exceptions.ValidationError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    blosc.blosc_extension.error,
    struct.error,
    yaml.YAMLError,
)
"""What asdf, PyYAML, Blosc and abacusutils raise for a file that is damaged or of another kind."""


@dataclass(frozen=True)
class Header:
    """What the file of a superslab says of its simulation.

    Attributes
    ----------
    simulation : str
        SimName.
    box_size_mpch, particle_mass_msunh, redshift : float
        Of the box.
    cosmology : Cosmology
        Omega_b, sigma8 and n_s of the options where the file has none.
    """

    simulation: str
    box_size_mpch: float
    particle_mass_msunh: float
    redshift: float
    cosmology: Cosmology


def read_compaso(
    inputs: CompasoInputs,
    *,
    min_mass_msunh: float,
    slab: tuple[int, int] | None,
    slab_axis: SlabAxis,
    n_halos: int | None,
) -> HaloCatalog:
    """Read the haloes of one box, or of a slab of it.

    Masses are N times the particle mass; positions ``x_com``, shifted from [−L/2, L/2) to [0, L);
    velocities ``v_com``; radii ``r100_com``, which hold all particles of the halo.

    Parameters
    ----------
    inputs : CompasoInputs
        Of :meth:`muster.mocks.halos.abacus.AbacusSource.find_inputs`.
    min_mass_msunh, slab, slab_axis, n_halos
        As :meth:`muster.mocks.halos.source.HaloSource.read` has them.

    Raises
    ------
    CatalogNotFound
        When a superslab is not there.
    ValidationError
        When a file is damaged, is not of the simulation, redshift or box that was asked for, holds
        values that no halo has, or an id is there twice.
    """
    check_selection(min_mass_msunh, slab, n_halos)
    numbers = list(range(inputs.superslabs))
    only_near = slab is not None and slab_axis == "x" and n_halos is None
    if slab is not None and only_near:
        numbers = superslabs_near(slab, inputs.superslabs)
    listed = read_listed_sizes(inputs.folder)
    headers: list[Header] = []
    columns = Columns(slab=slab, slab_axis=slab_axis, n_halos=n_halos)
    with _collections_of_new_objects_only(), asdf.config_context() as config:
        config.validate_on_read = False  # against ASDF's schemas, for most of the time
        for number in numbers:
            path, cleaned = _find_files(inputs, number)
            header = _check_header(_check_file(path, tuple(_FIELDS), listed), inputs, path)
            if cleaned is not None:
                _check_file(cleaned, ("N_total",), {})
            headers = headers or [header]
            _check_equal(header, headers[0], path)
            part = _read_superslab(path, cleaned, inputs, header, min_mass_msunh)
            if only_near:
                _check_strays(part[0], number, inputs.superslabs, header, path)
            columns.add(*part, box_size_mpch=header.box_size_mpch)
    first = headers[0]
    return columns.build(
        HaloMetadata(
            simulation=first.simulation,
            box_size_mpch=first.box_size_mpch,
            redshift=first.redshift,
            cosmology=first.cosmology,
            phase=inputs.phase,
            realization=inputs.realization,
            particle_mass_msunh=first.particle_mass_msunh,
            cleaned=inputs.cleaned,
            min_mass_msunh=float(min_mass_msunh),
            slab=slab,
            source={
                "suite": inputs.suite,
                "folder": inputs.folder,
                "superslabs": numbers,
                "abacusutils": version("abacusutils"),
            },
        ),
        where=inputs.folder,
    )


def _find_files(inputs: CompasoInputs, number: int) -> tuple[Path, Path | None]:
    """Return a superslab's file, and that of its cleaning."""
    path = Path(inputs.folder, "halo_info", f"halo_info_{number:03d}.asdf")
    if not inputs.cleaned:
        return path, None
    if inputs.cleaned_folder is None:
        raise CatalogNotFound(
            "no cleaned halo catalogue", where=inputs.folder, do="cleaned: false, or fetch it"
        )
    return path, Path(inputs.cleaned_folder, f"cleaned_halo_info_{number:03d}.asdf")


def _check_file(path: Path, columns: tuple[str, ...], listed: dict[str, int]) -> dict[str, Any]:
    """Check a file's size, its blocks, and shapes and checksums of columns; return its header."""
    if not path.exists():
        raise CatalogNotFound(
            "a superslab is not there", where=path, do="bring all superslabs of the redshift there"
        )
    with os_errors_at(path):
        expected_bytes, found_bytes = listed.get(path.name), path.stat().st_size
        if expected_bytes is not None and found_bytes != expected_bytes:
            raise ValidationError(
                "the file has not the size that checksums.crc32 states",
                where=path,
                got=f"{found_bytes} bytes",
                expected=f"{expected_bytes} bytes",
                do="fetch it again from where it came from",
            )
        blocks = check_blocks(path)
    with (
        damage_at(path, "CompaSO halo catalogue", _DAMAGED),
        asdf.open(path, lazy_load=True, memmap=False) as file,
    ):
        data = file["data"]
        _check_shapes({n: (tuple(data[n].shape), data[n].dtype.kind) for n in columns}, path)
        check_sums(path, blocks, {name: data[name][:] for name in columns})
        return dict(file["header"])


def _check_shapes(shapes: dict[str, tuple[tuple[int, ...], str]], path: Path) -> None:
    first = next(iter(shapes.values()))[0]
    halos = first[0] if first else -1
    for name, (shape, kind) in shapes.items():
        expected = (halos, *_FIELDS.get(name, ()))
        if shape != expected or kind not in "uif":
            raise ValidationError(
                f"column {name} has not the shape that it should have",
                where=path,
                got=shape,
                expected=expected,
                do="copy the file again from where it is whole",
            )
    if halos > _MOST_HALOS:
        raise ValidationError(
            "too many haloes",
            where=path,
            got=halos,
            expected=_MOST_HALOS,
            do="raise min_mass_msunh, or cut the box into slabs",
        )


def _check_header(header: dict[str, Any], inputs: CompasoInputs, path: Path) -> Header:
    stated = inputs.cosmology or CosmologyOptions()
    found = Header(
        simulation=str(header.get("SimName", "")),
        box_size_mpch=_number(header, "BoxSize", path),
        particle_mass_msunh=_number(header, "ParticleMassHMsun", path),
        redshift=max(0.0, _number(header, "Redshift", path, least=-1e-6)),
        cosmology=Cosmology(
            h=_number(header, "H0", path) / 100,
            omega_m=_number(header, "Omega_M", path),
            omega_b=stated.omega_b
            if "omega_b" not in header
            else _number(header, "omega_b", path) / (_number(header, "H0", path) / 100) ** 2,
            sigma8=_number(header, "sigma8_m", path, default=stated.sigma8),
            n_s=_number(header, "n_s", path, default=stated.n_s),
            w0=_number(header, "w0", path, least=-3, default=-1.0),
            wa=_number(header, "wa", path, least=-3, default=0.0),
        ),
    )
    asked = inputs.cosmology.cosmology if inputs.cosmology else found.cosmology
    wrong: list[tuple[str, Any, Any]] = []
    if inputs.simulation is not None and found.simulation != inputs.simulation:
        wrong.append(("SimName", found.simulation, inputs.simulation))
    for name, got, expected, tolerance in (
        ("Redshift", found.redshift, inputs.redshift, _REDSHIFT_TOLERANCE),
        ("BoxSize in Mpc/h", found.box_size_mpch, inputs.box_size_mpch, 1e-3),
        ("H0 / 100", found.cosmology.h, asked.h, 1e-4),
        ("Omega_M", found.cosmology.omega_m, asked.omega_m, 1e-4),
    ):
        if expected is not None and abs(got - expected) > tolerance:
            wrong.append((name, got, expected))
    if wrong:
        name, got, expected = wrong[0]
        raise ValidationError(
            f"the header states another {name}",
            where=path,
            got=got,
            expected=expected,
            do="correct the folder, or science.box",
        )
    return found


def _number(
    header: dict[str, Any],
    key: str,
    path: Path,
    *,
    least: float = 0.0,
    default: float | None = None,
) -> float:
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        value = math.nan
    if not math.isfinite(value) or value < least or (least == 0 and value == 0):
        raise ValidationError(
            f"the header's {key} is no number that it can be",
            where=path,
            got=repr(header.get(key))[:80],
            do="copy the file again from where it is whole",
        )
    return float(value)


def _check_equal(header: Header, first: Header, path: Path) -> None:
    for field in fields(Header):
        got, expected = getattr(header, field.name), getattr(first, field.name)
        if got != expected:
            raise ValidationError(
                f"superslabs of two boxes: the header states another {field.name}",
                where=path,
                got=got,
                expected=expected,
                do="keep the superslabs of each box in a folder of their own",
            )


def _read_superslab(
    path: Path,
    cleaned: Path | None,
    inputs: CompasoInputs,
    header: Header,
    min_mass_msunh: float,
) -> tuple[Any, Any, Any, Any, Any]:
    """Return positions, masses, ids, velocities and radii of a file's haloes above the mass."""
    with damage_at(path, "CompaSO halo catalogue", _DAMAGED):
        halos = CompaSOHaloCatalog(
            path,
            cleaned=cleaned is not None,
            cleandir=Path(inputs.cleaning) if inputs.cleaning is not None else None,
            fields=list(_FIELDS),
            halo_lc=False,
        ).halos
        columns = {name: np.asarray(halos[name]) for name in _FIELDS}
    masses = columns["N"].astype(np.float64) * header.particle_mass_msunh
    # Cleaning leaves merged haloes in their rows, with no particles.
    kept = (columns["N"] > 0) & (masses >= min_mass_msunh)
    x, v, radii, ids = (columns[name][kept] for name in ("x_com", "v_com", "r100_com", "id"))
    half = header.box_size_mpch / 2
    check_values(np.abs(x) <= half * (1 + 1e-5), "x_com", f"at most {half} Mpc/h", path)
    check_values(np.abs(v) < 3e5, "v_com", "slower than light", path)
    check_values((radii >= 0) & (radii < half), "r100_com", f"0 to {half} Mpc/h", path)
    check_values(ids <= np.iinfo(np.int64).max, "id", "below 2**63", path)
    positions = wrap_positions(x + np.float32(half), header.box_size_mpch)
    return positions, masses[kept], ids.astype(np.int64), v, radii


def _check_strays(positions: Any, number: int, superslabs: int, header: Header, path: Path) -> None:
    strays = count_strays(positions[:, 0], number, superslabs, header.box_size_mpch)
    if strays:
        raise ValidationError(
            "a superslab holds haloes far from its part of the box",
            where=path,
            got=f"{strays} haloes",
            do="cut the slabs in y, which reads every file",
        )


@contextlib.contextmanager
def _collections_of_new_objects_only() -> Iterator[None]:
    """Keep abacusutils' garbage collections, two a file, from walking all that was there before."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
