"""What is written of a box: galaxies and haloes as the arrays and attributes of the layout."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from muster import __version__
from muster.errors import ConfigError, SoftwareError
from muster.mocks.catalogue.hdf5 import MOST_ATTRIBUTE_BYTES
from muster.mocks.catalogue.layout import (
    ATTRIBUTE_BY_NAME,
    COLUMN_BY_PATH,
    COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    HISTORIES,
    MOST_PARAMETERS,
    REFERS_TO,
    Column,
    Layout,
    columns_of,
    required_columns,
)
from muster.mocks.errors import ModelError
from muster.mocks.galaxies.cosmic_time import age_gyr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from muster.mocks.galaxies.catalog import GalaxyCatalog
    from muster.mocks.halos.catalog import HaloCatalog

Arrays = dict[str, "NDArray[Any]"]
Attributes = dict[str, int | float | str]

_OF_THE_BOX = tuple(c.name for c in COLUMNS if c.group == "galaxies" and c.row_axis is None)
_SAMPLE_ROWS = 1 << 16


@dataclass(frozen=True)
class Content:
    """All that a file holds.

    Attributes
    ----------
    arrays : dict of str to array
        By path, in the order of the layout.
    attributes : dict
        Of the root, in order.
    refers_to : str
        What ``galaxies/upid`` refers to, one of ``REFERS_TO``.
    statistics : dict of str to array
        Of the group ``statistics``.
    """

    arrays: Arrays
    attributes: Attributes
    refers_to: str
    statistics: Arrays


def make_content(
    galaxies: GalaxyCatalog,
    halos: HaloCatalog,
    layout: Layout,
    attributes: Mapping[str, Any] | None = None,
    statistics: Mapping[str, NDArray[Any]] | None = None,
) -> Content:
    """Put together what a catalogue's file holds, without copying large arrays.

    Parameters
    ----------
    galaxies, halos : GalaxyCatalog, HaloCatalog
        Of the box.
    layout : "lean" or "full"
        With ``"lean"``, histories that the model made are left out.
    attributes : mapping, optional
        Further attributes of the root; numbers, texts, or what JSON can say, as which it is
        written.  They take the place of equal names in ``galaxies.attributes``.
    statistics : mapping of str to array, optional
        Of the group ``statistics``.

    Raises
    ------
    ConfigError
        When the layout is full and the model made no histories.
    ModelError
        When the arrays do not fit the layout or each other.
    SoftwareError
        When an attribute cannot be written.
    """
    arrays = galaxy_arrays(galaxies, halos, layout) | halo_arrays(halos)
    check_shapes(arrays)
    said = {**galaxies.attributes, **(attributes or {})}
    return Content(
        arrays,
        root_attributes(halos, layout, said, n_galaxies=len(galaxies), n_halos=len(halos)),
        find_refers_to(arrays["galaxies/upid"], galaxies.parent_halos, halos.ids),
        {name: np.asarray(values, order="C") for name, values in (statistics or {}).items()},
    )


def galaxy_arrays(galaxies: GalaxyCatalog, halos: HaloCatalog, layout: Layout) -> Arrays:
    """Return the datasets of the group ``galaxies``, by path, in the order of the layout."""
    given: dict[str, Any] = {
        "pos": galaxies.positions,
        **galaxies.properties,
        **_of_the_box(galaxies, halos),
    }
    unknown = sorted(name for name in given if f"galaxies/{name}" not in COLUMN_BY_PATH)
    if unknown:
        raise ModelError(
            "the galaxy model made what the layout has no dataset for",
            got=", ".join(unknown),
            do="mend the galaxy model, or add the dataset to muster/mocks/catalogue/layout.py",
        )
    galaxy_columns = [c for c in columns_of(layout) if c.group == "galaxies"]
    absent = [
        c.name for c in required_columns(layout) if c in galaxy_columns and c.name not in given
    ]
    if layout == "full" and any(name in HISTORIES for name in absent):
        raise ConfigError(
            "the galaxy model makes no formation histories",
            got="layout: full",
            do="choose the layout lean, or another galaxy model",
        )
    if absent:
        raise ModelError(
            "the galaxy model left out",
            got=", ".join(absent),
            do="mend the galaxy model: it makes every dataset of the layout",
        )
    return {c.path: np.asarray(given[c.name], order="C") for c in galaxy_columns if c.name in given}


def halo_arrays(halos: HaloCatalog) -> Arrays:
    """Return the datasets of the group ``halos``, by path, in the order of the layout."""
    with np.errstate(divide="ignore", invalid="ignore"):  # what is no mass, the validation names
        logmhost = np.log10(halos.masses).astype(np.float32)
    given = {
        "halos/id": halos.ids,
        "halos/logmhost": logmhost,
        "halos/radius": halos.radii,
        "halos/pos": halos.positions,
        "halos/vel": halos.velocities,
    }
    return {path: np.asarray(values, order="C") for path, values in given.items()}


def check_shapes(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays whose kind or shape is not that of the layout.

    Raises
    ------
    ModelError
        Names the first of them.
    """
    sizes: dict[str, int] = {}
    for path, array in arrays.items():
        column = COLUMN_BY_PATH[path]
        if array.dtype.name not in column.dtypes or not array.dtype.isnative:
            raise ModelError(
                "not the kind of numbers of the layout",
                where=path,
                got=array.dtype.str,
                expected=" or ".join(column.dtypes),
                do="mend the galaxy model: convert the array",
            )
        expected = expected_shape(column, array.shape, sizes)
        if array.shape != expected:
            raise ModelError(
                "not the shape of the layout",
                where=path,
                got=array.shape,
                expected=expected,
                do="mend the galaxy model: one row for each galaxy",
            )


def expected_shape(
    column: Column, shape: tuple[int, ...], sizes: dict[str, int]
) -> tuple[int, ...] | str:
    """Return the shape that a dataset should have, given the sizes known so far.

    ``sizes`` of the dimensions galaxy, halo and time are filled in from the first dataset that has
    them.
    """
    if len(shape) != len(column.dims):
        return f"{len(column.dims)} dimensions: {column.dims}"
    expected = []
    for length, dim in zip(shape, column.dims, strict=True):
        if dim == "parameter":
            expected.append(min(length, MOST_PARAMETERS))
        elif isinstance(dim, int):
            expected.append(dim)
        else:
            expected.append(sizes.setdefault(dim, length))
    return tuple(expected)


def find_refers_to(
    upid: NDArray[Any], parent_halos: NDArray[np.int64], ids: NDArray[np.int64]
) -> str:
    """Find out what ``upid`` refers to, from the first satellites.

    Raises
    ------
    ModelError
        When it is neither the id nor the row of the galaxy's halo.
    """
    start = upid[:_SAMPLE_ROWS]
    satellites = np.flatnonzero(start != -1)
    rows = parent_halos[satellites]
    if satellites.size and not (rows.min() >= 0 and rows.max() < len(ids)):
        raise ModelError(
            "halo of a galaxy is not in the halo catalogue",
            where="parent_halos",
            got=f"{rows.min()} to {rows.max()}",
            expected=f"0 to {len(ids) - 1}",
            do="mend the galaxy model: parent_halos counts in the haloes that it was given",
        )
    for refers_to, host in zip(REFERS_TO, (ids[rows], rows), strict=True):
        if np.array_equal(start[satellites], host):
            return refers_to
    first = satellites[0]
    raise ModelError(
        "neither the id nor the row of the satellite's halo",
        where=f"upid of galaxy {first}",
        got=upid[first],
        expected=f"{ids[parent_halos[first]]} or {parent_halos[first]}",
        do="mend the galaxy model: upid names the host of a satellite",
    )


def root_attributes(
    halos: HaloCatalog,
    layout: Layout,
    more: Mapping[str, Any],
    *,
    n_galaxies: int,
    n_halos: int,
) -> Attributes:
    """Return the attributes of the root: those of the layout, then all others by name."""
    box, cosmology = halos.metadata, halos.metadata.cosmology
    least = box.min_mass_msunh
    stated: dict[str, Any] = {
        "Lbox": box.box_size_mpch,
        "z_obs": box.redshift,
        "lgmp_min": math.log10(least) if least > 0 else 0.0,
        "n_halos": n_halos,
        "n_galaxies": n_galaxies,
        "simulation_box": box.simulation,
        "phase": box.phase,
        "redshift": f"z{box.redshift:.3f}",
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "layout": layout,
        "muster_version": __version__,
        **{name: getattr(cosmology, name) for name in _COSMOLOGY},
        "realization": box.realization,
        "particle_mass_msunh": box.particle_mass_msunh,
        "cleaned": box.cleaned,
    }
    given = {name: value for name, value in more.items() if name not in _OF_THE_BOX}
    merged = {**stated, **given}
    known = [name for name in ATTRIBUTE_BY_NAME if merged.get(name) is not None]
    others = sorted(name for name in merged if name not in ATTRIBUTE_BY_NAME)
    return {name: _attribute(name, merged[name]) for name in [*known, *others]}


_COSMOLOGY = ("h", "omega_m", "omega_b", "sigma8", "n_s", "w0", "wa")


def _attribute(name: str, value: Any) -> int | float | str:
    """Bring a value to the kind of its attribute; unknown ones keep theirs."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, int | float | str):
        value = json.dumps(value, sort_keys=True, default=str)
    known = ATTRIBUTE_BY_NAME.get(name)
    kind = known.kind if known else "text" if isinstance(value, str) else None
    try:
        if kind == "int" or (kind is None and isinstance(value, int)):
            plain: int | float | str = int(value)
        else:
            plain = str(value) if kind == "text" else float(value)
    except ValueError:
        raise SoftwareError(
            "attribute of a catalogue is of another kind",
            where=name,
            got=value,
            expected=kind,
            do="give a value of that kind",
        ) from None
    if isinstance(plain, int) and not -(2**63) <= plain < 2**63:
        plain = str(plain)
    if isinstance(plain, str) and len(plain.encode()) > MOST_ATTRIBUTE_BYTES:
        raise SoftwareError(
            "attribute of a catalogue is too long",
            where=name,
            got=f"{len(plain.encode())} bytes",
            expected=f"at most {MOST_ATTRIBUTE_BYTES}",
            do="shorten it",
        )
    return plain


def _of_the_box(galaxies: GalaxyCatalog, halos: HaloCatalog) -> dict[str, Any]:
    """Return what has no rows: z_obs, t_obs, t0, t_table; what the model did not give, computed."""
    redshift, cosmology = halos.metadata.redshift, halos.metadata.cosmology
    given = {**galaxies.attributes, **galaxies.properties}
    found = {name: given[name] for name in _OF_THE_BOX if given.get(name) is not None}
    found.setdefault("z_obs", redshift)
    for name, of in (("t_obs", redshift), ("t0", 0.0)):
        if name not in found:
            found[name] = age_gyr(cosmology, of)
    arrays = {name: np.asarray(value) for name, value in found.items()}
    return {
        name: array if array.dtype.kind == "f" else array.astype(np.float64)
        for name, array in arrays.items()
    }
