"""Haloes and galaxies of a slice of a box, side by side: the scatter plot of the original.

Left the haloes, as large as their radius and coloured by mass; right the galaxies, coloured by
stellar mass; beside them a zoom of each around the most massive halo.  What is drawn is bounded: of
a crowded slice, the most massive haloes and galaxies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from muster.errors import ConfigError, InvalidInput
from muster.mocks.catalogue.hdf5 import (
    list_datasets,
    missing,
    open_hdf5,
    read_attributes,
    read_slabs,
    refuse,
)
from muster.mocks.catalogue.write import publish
from muster.storage import os_errors_at, temporary_sibling

if TYPE_CHECKING:
    from pathlib import Path

    import h5py
    from numpy.typing import NDArray

MOST_HALOS = 50_000
MOST_GALAXIES = 100_000

_DPI = 150
_POINTS_PER_INCH = 72
_PANEL_IN = 7.0
_BAR_IN = 2.0
"""Room of a panel's colour bar."""

_ZOOM_IN = 3.2
_ZOOM_RADII = 16
"""Width of a zoom in radii of its halo."""

_GALAXY_INK = 60_000.0
"""Square points of all galaxies of a panel together, within limits for each."""

_HALO_MASS = (11.0, 14.5)
_STELLAR_MASS = (9.0, 11.5)


@dataclass(frozen=True)
class Points:
    """Haloes or galaxies of a slice.

    Attributes
    ----------
    y, z : array of float
        Mpc/h.
    mass : array of float
        log10, as in the file; ascending, so that the most massive are drawn last.
    radius : array of float
        Mpc/h; 0 of galaxies.
    in_slice : int
        How many there are in the slice, drawn or not.
    """

    y: NDArray[Any]
    z: NDArray[Any]
    mass: NDArray[Any]
    radius: NDArray[Any]
    in_slice: int


@dataclass(frozen=True)
class Slice:
    """A slice of a box.

    Attributes
    ----------
    title : str
        Box, phase and redshift.
    box_size_mpch, from_mpch, to_mpch : float
        Side of the box, and the slice in x.
    halos, galaxies : Points
        In it.
    """

    title: str
    box_size_mpch: float
    from_mpch: float
    to_mpch: float
    halos: Points
    galaxies: Points


def plot_catalogue(
    path: Path,
    image: Path,
    *,
    slice_mpch: float = 25.0,
    from_mpch: float = 0.0,
    most_halos: int = MOST_HALOS,
    most_galaxies: int = MOST_GALAXIES,
) -> None:
    """Draw a slice of a catalogue as PNG.

    Parameters
    ----------
    path : Path
        The catalogue.
    image : Path
        The picture; written aside and renamed.  The same catalogue gives the same bytes.
    slice_mpch, from_mpch : float
        Thickness and beginning of the slice in x, Mpc/h.
    most_halos, most_galaxies : int
        How many are drawn at the most.

    Raises
    ------
    MissingInput, InvalidInput
        When the catalogue is not there, or cannot be read.
    ConfigError
        When the slice is not in the box.
    """
    found = read_slice(path, slice_mpch, from_mpch, most_halos, most_galaxies)
    figure = draw_slice(found)
    temporary = temporary_sibling(image)
    try:
        with os_errors_at(image):
            image.parent.mkdir(parents=True, exist_ok=True)
            # Nothing of the machine or the moment in the file.
            figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})
        publish(temporary, image)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_slice(
    path: Path,
    slice_mpch: float = 25.0,
    from_mpch: float = 0.0,
    most_halos: int = MOST_HALOS,
    most_galaxies: int = MOST_GALAXIES,
) -> Slice:
    """Read haloes and galaxies with from ≤ x < from + thickness, slab by slab."""
    with open_hdf5(path) as file:
        datasets, refused = list_datasets(file)
        refuse(path, refused)
        attributes, _ = read_attributes(file)
        size = attributes.get("Lbox")
        if not isinstance(size, float) or not 0 < size < np.inf:
            raise InvalidInput(
                "no size of the box",
                where=path,
                got=size,
                expected="Lbox",
                do="check the file with 'muster mocks validate'",
            )
        if not (0 <= from_mpch < size and slice_mpch > 0):
            raise ConfigError(
                "slice is not in the box",
                where=path,
                got=f"{slice_mpch} Mpc/h from {from_mpch}",
                expected=f"a part of 0 to {size}",
                do="choose a slice inside the box",
            )
        limits = (from_mpch, from_mpch + slice_mpch)
        words = (attributes.get(name, "") for name in ("simulation_box", "phase", "redshift"))
        return Slice(
            " ".join(str(word)[:60] for word in words if word),
            size,
            *limits,
            _read_points(path, datasets, "halos", "logmhost", limits, most_halos),
            _read_points(path, datasets, "galaxies", "logsm_t_obs", limits, most_galaxies),
        )


def _read_points(
    path: Path,
    datasets: dict[str, h5py.Dataset],
    group: str,
    mass: str,
    limits: tuple[float, float],
    most: int,
) -> Points:
    names = [f"{group}/{name}" for name in ("pos", mass, *(["radius"] if group == "halos" else []))]
    for name in names:
        if name not in datasets:
            raise missing(path, name)
    position, mass_of, *radius_of = (datasets[name] for name in names)
    rows = position.shape[0] if position.shape else 0
    if position.shape != (rows, 3) or any(d.shape != (rows,) for d in (mass_of, *radius_of)):
        raise InvalidInput(
            "datasets are not of one length",
            where=path,
            got=", ".join(names),
            do="check the file with 'muster mocks validate'",
        )
    kept = np.empty((0, 4))
    in_slice = 0
    for start, values in read_slabs(position):
        inside = np.flatnonzero((values[:, 0] >= limits[0]) & (values[:, 0] < limits[1]))
        stop = start + len(values)
        columns = [d[start:stop][inside] for d in (mass_of, *radius_of)]
        radius = columns[1] if radius_of else np.zeros(len(inside))
        new = np.column_stack([values[inside, 1], values[inside, 2], columns[0], radius])
        new = new[np.isfinite(new).all(axis=1)]
        in_slice += len(new)
        kept = np.concatenate([kept, new])
        if len(kept) > 2 * most:
            kept = _most_massive(kept, most)
    y, z, log_mass, radius = _most_massive(kept, most).T
    return Points(y, z, log_mass, radius, in_slice)


def _most_massive(rows: NDArray[Any], most: int) -> NDArray[Any]:
    """Return the most massive rows, ascending."""
    order = np.argsort(rows[:, 2], kind="stable")
    return rows[order[max(0, len(order) - most) :]]


def draw_slice(found: Slice) -> Figure:
    """Draw the two panels with their colour bars, and both zooms beside them."""
    figure = Figure(figsize=(2 * _PANEL_IN + 2 * _BAR_IN + _ZOOM_IN + 1.0, _PANEL_IN + 1.6))
    FigureCanvasAgg(figure)
    width, height = figure.get_size_inches()

    def add_axes(left: float, bottom: float, wide: float, high: float) -> Any:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    figure.suptitle(
        f"{found.title}, {found.from_mpch:g} ≤ x < {found.to_mpch:g} Mpc/h", parse_math=False
    )
    corner, side = _find_zoom(found)
    for number, (points, noun, colours, limits, label) in enumerate(
        (
            (found.halos, "haloes", "plasma", _HALO_MASS, "log10 halo mass, Msun/h"),
            (found.galaxies, "galaxies", "viridis", _STELLAR_MASS, "log10 stellar mass, Msun"),
        )
    ):
        left = 0.7 + number * (_PANEL_IN + _BAR_IN)
        axes = add_axes(left, 0.7, _PANEL_IN, _PANEL_IN)
        size = float(np.clip(_GALAXY_INK / max(1, len(points.mass)), 0.5, 8.0))
        drawn = _scatter(axes, points, found.box_size_mpch, _PANEL_IN, colours, limits, size)
        axes.set(xlim=(0, found.box_size_mpch), ylim=(0, found.box_size_mpch))
        axes.set(xlabel="y, Mpc/h", ylabel="z, Mpc/h")
        most = len(points.mass)
        shown = f", the {most} most massive drawn" if most < points.in_slice else ""
        axes.set_title(f"{points.in_slice} {noun}{shown}")
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1))
        bottom = 0.7 + (1 - number) * (_PANEL_IN - _ZOOM_IN)
        zoom = add_axes(0.7 + 2 * (_PANEL_IN + _BAR_IN), bottom, _ZOOM_IN, _ZOOM_IN)
        _scatter(zoom, points, side, _ZOOM_IN, colours, limits, 6.0)
        zoom.set(xlim=(corner[0], corner[0] + side), ylim=(corner[1], corner[1] + side))
        zoom.tick_params(labelsize=7)
        zoom.set_title(f"{noun} of the square", fontsize=9)
        key = add_axes(left + _PANEL_IN + 0.1, 0.7, 0.15, _PANEL_IN)
        figure.colorbar(drawn, cax=key).set_label(label)
    return figure


def _find_zoom(found: Slice) -> tuple[tuple[float, float], float]:
    """Return lower left corner and side of a square in the box around the most massive halo."""
    halos, size = found.halos, found.box_size_mpch
    if not len(halos.mass):
        return (3 * size / 8, 3 * size / 8), size / 4
    side = float(np.clip(_ZOOM_RADII * halos.radius[-1], 1e-3 * size, size))
    y, z = np.clip((halos.y[-1] - side / 2, halos.z[-1] - side / 2), 0, size - side)
    return (float(y), float(z)), side


def _scatter(
    axes: Any,
    points: Points,
    across_mpch: float,
    across_in: float,
    colours: str,
    limits: tuple[float, float],
    galaxy_size: float,
) -> Any:
    """Draw points; a halo is as large as its radius where the axes are so wide.

    ``galaxy_size`` is the area of a galaxy in square points.
    """
    axes.set_facecolor("black")
    per_mpch = across_in * _POINTS_PER_INCH / across_mpch
    is_halo = bool(np.any(points.radius > 0))
    sizes = (
        np.clip(2 * points.radius * per_mpch, 0.3, across_in * _POINTS_PER_INCH) ** 2
        if is_halo
        else np.full(len(points.mass), galaxy_size)
    )
    return axes.scatter(
        points.y,
        points.z,
        c=points.mass,
        s=sizes,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        alpha=0.75,
        linewidths=0.1 if is_halo else 0,
        edgecolors="white" if is_halo else "none",
    )
