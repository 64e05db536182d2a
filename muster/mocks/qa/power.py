"""Power-spectrum monopole of points in a periodic box, by a fast Fourier transform.

Points are assigned to a mesh by the cloud-in-cell scheme.  Of the power on the mesh the shot noise
is subtracted as the mesh shows it, aliases included, the rest is divided by the window of the
scheme, and the shot noise is added again (Jing 2005, ApJ 620, 559, eqs. 19 and 20): the power of
Poisson points is 1/n at every k.  Aliases of the clustering itself stay; they are below a percent
up to half of the Nyquist frequency for spectra that fall as those of galaxies do.

The result does not depend on the number of threads: sums have one order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft

from muster.mocks.errors import ValidationError
from muster.mocks.qa.bins import GRID, SHELL_WIDTH, SHELLS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from muster.mocks.qa.bins import FloatArray, IntArray

_POINTS = 1 << 19
"""Points that are assigned to the mesh at a time."""


@dataclass(frozen=True)
class PowerSpectrum:
    """Power in shells of |k|.

    Attributes
    ----------
    k_hmpc : array, shape (shells,)
        Mean |k| of the modes of each shell in h/Mpc.
    power_mpch3 : array, shape (shells,)
        P(k) in (Mpc/h)³, shot noise included; NaN without points.
    modes : array of int64, shape (shells,)
        N_k, all modes, k and −k both counted: a Gaussian field has a variance of 2P²/N_k.
    shot_noise_mpch3 : float
        Volume over number of points in (Mpc/h)³; NaN without points.
    """

    k_hmpc: FloatArray
    power_mpch3: FloatArray
    modes: IntArray
    shot_noise_mpch3: float


@dataclass(frozen=True)
class _Modes:
    """The modes within the shells, of the half space that a real transform gives.

    ``reach`` is the greatest index along an axis; ``shell`` has the shape (2 reach + 1,
    2 reach + 1, reach + 1), −1 outside; ``weight`` is 1 where k and −k are both in the half space,
    else 2; ``length`` is |k| in units of the fundamental mode.
    """

    reach: int
    shell: NDArray[np.int16]
    weight: NDArray[np.float64]
    length: NDArray[np.float64]


def measure_power(
    positions: NDArray[Any],
    box_size_mpch: float,
    *,
    grid: int = GRID,
    shells: int = SHELLS,
    workers: int = 1,
) -> PowerSpectrum:
    """Measure the power-spectrum monopole of points.

    Parameters
    ----------
    positions : array, shape (n, 3)
        In Mpc/h; what lies outside the box is wrapped.
    box_size_mpch : float
        Side of the periodic box in Mpc/h.
    grid : int
        Cells along a side of the mesh.
    shells : int
        Shells in |k|, each two fundamental modes wide, from half a mode on.
    workers : int
        Threads of the transform; the result does not depend on them.

    Returns
    -------
    PowerSpectrum
        NaN in power and shot noise where there are no points.

    Raises
    ------
    ValidationError
        When positions are not finite or not of the shape (n, 3), or shells do not fit the mesh.
    """
    points = _check_points(positions, box_size_mpch)
    volume = box_size_mpch**3
    if len(points) == 0:
        empty = _bin(np.zeros((grid, grid, grid // 2 + 1)), box_size_mpch, grid, shells)
        return PowerSpectrum(empty.k_hmpc, np.full(shells, np.nan), empty.modes, float("nan"))
    transform = scipy.fft.rfftn(_assign(points, box_size_mpch, grid), workers=workers)
    scale = volume / len(points) ** 2
    return _bin(transform, box_size_mpch, grid, shells, scale, volume / len(points))


def measure_field_power(
    contrast: NDArray[np.floating[Any]],
    box_size_mpch: float,
    *,
    shells: int = SHELLS,
    workers: int = 1,
) -> PowerSpectrum:
    """Measure the power-spectrum monopole of a field on a mesh; there is no window, no shot noise.

    Parameters
    ----------
    contrast : array, shape (grid, grid, grid)
        Density contrast.
    box_size_mpch : float
        Side of the periodic box in Mpc/h.
    shells, workers : int
        As in :func:`measure_power`.

    Returns
    -------
    PowerSpectrum
        With a shot noise of 0.
    """
    grid = contrast.shape[0]
    transform = scipy.fft.rfftn(contrast, workers=workers)
    return _bin(transform, box_size_mpch, grid, shells, box_size_mpch**3 / grid**6)


def count_modes(grid: int = GRID, shells: int = SHELLS) -> IntArray:
    """Return N_k of each shell, k and −k both counted: array of int64, (shells,)."""
    modes = _find_modes(grid, shells)
    inside = modes.shell >= 0
    count = np.bincount(modes.shell[inside], modes.weight[inside], minlength=shells)
    return np.rint(count).astype(np.int64)


def _check_points(positions: NDArray[Any], box_size_mpch: float) -> NDArray[Any]:
    if not (np.isfinite(box_size_mpch) and box_size_mpch > 0):
        raise ValidationError(
            "a box has a side",
            where="box_size_mpch",
            got=box_size_mpch,
            expected="> 0 Mpc/h",
            do="give the side of the box",
        )
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise ValidationError(
            "positions have three coordinates",
            got=positions.shape,
            expected="(n, 3)",
            do="give an array of that shape",
        )
    if not np.isfinite(positions).all():
        bad = int((~np.isfinite(positions).all(axis=1)).sum())
        raise ValidationError(
            "positions are not finite",
            got=f"{bad} of {len(positions)}",
            do="leave these galaxies out, or mend their model",
        )
    return positions


def _assign(points: NDArray[Any], box_size_mpch: float, grid: int) -> FloatArray:
    """Spread each point over the eight nearest nodes of the mesh: array, (grid, grid, grid)."""
    mesh = np.zeros(grid**3)
    for start in range(0, len(points), _POINTS):
        scaled = points[start : start + _POINTS].astype(np.float64) * (grid / box_size_mpch)
        lower = np.floor(scaled)
        upper_share = (scaled - lower).T.copy()
        below = (lower.T.astype(np.int64)) % grid
        above = (below + 1) % grid
        for corner in range(8):
            sides = [(corner >> axis) & 1 for axis in range(3)]
            node = [above[axis] if side else below[axis] for axis, side in enumerate(sides)]
            share = [
                upper_share[axis] if side else 1.0 - upper_share[axis]
                for axis, side in enumerate(sides)
            ]
            index = (node[0] * grid + node[1]) * grid + node[2]
            mesh += np.bincount(index, share[0] * share[1] * share[2], minlength=grid**3)
    return mesh.reshape(grid, grid, grid)


@lru_cache(maxsize=4)
def _find_modes(grid: int, shells: int) -> _Modes:
    reach = int(0.5 + SHELL_WIDTH * shells)
    if grid < 4 or grid % 2 or reach > grid // 2 - 1:
        raise ValidationError(
            "the shells do not fit the mesh",
            got=f"{shells} shells on a mesh of {grid}",
            expected=f"an even mesh of at least {2 * (reach + 1)}",
            do="take fewer shells, or a finer mesh",
        )
    both = np.arange(-reach, reach + 1)
    half = np.arange(reach + 1)
    length = np.sqrt(
        both[:, None, None] ** 2 + both[None, :, None] ** 2 + half[None, None, :] ** 2.0
    )
    shell = np.floor((length - 0.5) / SHELL_WIDTH).astype(np.int16)
    shell[(length < 0.5) | (shell >= shells)] = -1
    weight = np.broadcast_to(np.where(half == 0, 1.0, 2.0), length.shape)
    return _Modes(reach, shell, weight, length)


def _bin(
    transform: NDArray[Any],
    box_size_mpch: float,
    grid: int,
    shells: int,
    scale: float = 1.0,
    shot_noise_mpch3: float = 0.0,
) -> PowerSpectrum:
    """Average |transform|² × scale over shells; points (with shot noise) have a window."""
    modes = _find_modes(grid, shells)
    along = np.arange(-modes.reach, modes.reach + 1)
    part = transform[np.ix_(along, along, np.arange(modes.reach + 1))]
    power = (part.real**2 + part.imag**2) * scale
    if shot_noise_mpch3:
        power -= shot_noise_mpch3 * _over_axes(_aliased_shot_noise(along, grid), modes.reach)
        power /= _over_axes(_window_squared(along, grid), modes.reach)
        power += shot_noise_mpch3
    inside = modes.shell >= 0
    shell, weight = modes.shell[inside], modes.weight[inside]
    count = np.bincount(shell, weight, minlength=shells)
    mean_k = np.bincount(shell, weight * modes.length[inside], minlength=shells) / count
    mean_power = np.bincount(shell, weight * power[inside], minlength=shells) / count
    return PowerSpectrum(
        k_hmpc=mean_k * (2 * np.pi / box_size_mpch),
        power_mpch3=mean_power,
        modes=np.rint(count).astype(np.int64),
        shot_noise_mpch3=shot_noise_mpch3,
    )


def _window_squared(along: NDArray[Any], grid: int) -> FloatArray:
    """W²(k) of cloud in cell along an axis (Hockney & Eastwood 1981)."""
    squared: FloatArray = np.sinc(along / grid) ** 4
    return squared


def _aliased_shot_noise(along: NDArray[Any], grid: int) -> FloatArray:
    """Σ W²(k + 2 k_Nyquist n) of cloud in cell along an axis: the mesh's shot noise times n."""
    aliased: FloatArray = 1.0 - (2.0 / 3.0) * np.sin(np.pi * along / grid) ** 2
    return aliased


def _over_axes(factor: FloatArray, reach: int) -> FloatArray:
    product: FloatArray = factor[:, None, None] * factor[None, :, None] * factor[None, None, reach:]
    return product
