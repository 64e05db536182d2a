"""A Gaussian density field on a grid, lognormal fields of haloes that follow it, and velocities.

Lognormal mocks after Coles and Jones (1991), as made by Agrawal et al. (2017): the field of haloes
with bias b is exp(G) up to a factor, where G is Gaussian with the correlation function
ln(1 + b² ξ); its power is then b² P.  All fields share the phases of one white noise, which the
seed and the realization alone fix: the same structure at every redshift and mass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_CELLS = 16
_LEAST_CONTRAST = -0.99
"""Below it a correlation function is clipped: 1 + ξ must be positive for its logarithm."""


def choose_cells(box_size_mpch: float, cell_mpch: float) -> int:
    """Choose the number of cells a side: even, at least 16, and quick to transform."""
    wanted = max(LEAST_CELLS, int(np.ceil(box_size_mpch / cell_mpch)))
    while True:
        cells = int(scipy.fft.next_fast_len(wanted, real=True))
        if cells % 2 == 0:
            return cells
        wanted = cells + 1


@dataclass(frozen=True)
class LinearField:
    """The linear density field of one realization, at one redshift.

    Attributes
    ----------
    box_size_mpch : float
        Side of the periodic box.
    noise : array of complex64, shape (n, n, n // 2 + 1)
        Fourier modes of white noise of unit variance on the grid.
    power : array of float32, the same shape
        Linear power of matter at each mode, in (Mpc/h)³; 0 at k = 0.
    """

    box_size_mpch: float
    noise: NDArray[np.complex64]
    power: NDArray[np.float32]

    @property
    def cells(self) -> int:
        """Cells a side."""
        return len(self.noise)

    @property
    def cell_volume(self) -> float:
        """Volume of a cell in (Mpc/h)³."""
        return (self.box_size_mpch / self.cells) ** 3

    @cached_property
    def correlation(self) -> NDArray[np.float32]:
        """Correlation function of matter on the grid, shape (n, n, n)."""
        return self._to_grid(self.power / self.cell_volume)

    def calculate_lognormal(self, bias: float) -> tuple[NDArray[np.float32], float]:
        """Calculate the density of haloes of one bias.

        Parameters
        ----------
        bias : float
            Linear bias, > 0.

        Returns
        -------
        density : array of float32, shape (n, n, n)
            Positive, up to a factor: mean of no meaning.
        clipped : float
            Share of the Gaussian field's variance that clipping changed; its power is there not
            b² P.  Small unless the cells are too small for such a bias.
        """
        xi = np.maximum(self.correlation * np.float32(bias**2), np.float32(_LEAST_CONTRAST))
        gaussian = self._to_modes(np.log1p(xi)).real
        gaussian[0, 0, 0] = 0
        negative = np.minimum(gaussian, 0)
        clipped = -float(negative.sum()) / float(np.abs(gaussian).sum())
        gaussian -= negative
        field = self._to_grid(self.noise * np.sqrt(gaussian))
        # The greatest value is 1: exp of a rare peak must not overflow.
        field -= field.max()
        return np.exp(field, out=field), clipped

    def calculate_velocities(
        self, positions_mpch: NDArray[np.float32], velocity_factor_kms: float
    ) -> NDArray[np.float32]:
        """Calculate linear-theory velocities at positions, interpolated between cells.

        Parameters
        ----------
        positions_mpch : array of float32, shape (n, 3)
            In [0, box size).
        velocity_factor_kms : float
            a H f, in km/s per Mpc/h.

        Returns
        -------
        array of float32, shape (n, 3)
            Peculiar velocities a H f ∇∇⁻²(−δ), in km/s.
        """
        density = self.noise * np.sqrt(self.power / np.float32(self.cell_volume))
        k_axes = wavenumbers(self.cells, self.box_size_mpch)
        k_squared = sum_of_squares(k_axes)
        k_squared[0, 0, 0] = 1
        density *= np.complex64(1j) / k_squared
        at = positions_mpch.T.astype(np.float64) * (self.cells / self.box_size_mpch) - 0.5
        velocities = np.empty_like(positions_mpch)
        for axis, k in enumerate(k_axes):
            # At Nyquist's frequency an odd derivative of a real field is 0.
            k_odd = np.where(np.abs(k) >= np.abs(k).max(), np.float32(0), k)
            component = self._to_grid(density * k_odd)
            component *= np.float32(velocity_factor_kms)
            velocities[:, axis] = ndimage.map_coordinates(
                component, at, order=1, mode="grid-wrap", output=np.float32
            )
        return velocities

    def _to_grid(self, modes: NDArray[Any]) -> NDArray[np.float32]:
        grid: NDArray[np.float32] = scipy.fft.irfftn(modes, s=(self.cells,) * 3)
        return grid

    def _to_modes(self, grid: NDArray[np.float32]) -> NDArray[np.complex64]:
        modes: NDArray[np.complex64] = scipy.fft.rfftn(grid)
        return modes


def draw_white_noise(cells: int, random: np.random.Generator) -> NDArray[np.complex64]:
    """Draw the Fourier modes of white noise of unit variance on a grid."""
    noise = random.standard_normal((cells,) * 3, dtype=np.float32)
    modes: NDArray[np.complex64] = scipy.fft.rfftn(noise)
    return modes


def wavenumbers(cells: int, box_size_mpch: float) -> tuple[NDArray[np.float32], ...]:
    """Return kx, ky, kz of the modes of a real grid in h/Mpc, to be broadcast to its shape."""
    spacing = box_size_mpch / cells
    full = (2 * np.pi * np.fft.fftfreq(cells, spacing)).astype(np.float32)
    half = (2 * np.pi * np.fft.rfftfreq(cells, spacing)).astype(np.float32)
    return full[:, None, None], full[None, :, None], half[None, None, :]


def sum_of_squares(axes: tuple[NDArray[np.float32], ...]) -> NDArray[np.float32]:
    """Return k² of each mode in (h/Mpc)²."""
    k_x, k_y, k_z = axes
    squares: NDArray[np.float32] = k_x**2 + k_y**2 + k_z**2
    return squares


def place_in_cells(
    density: NDArray[np.float32], count: int, box_size_mpch: float, random: np.random.Generator
) -> NDArray[np.float32]:
    """Place points in proportion to a density, uniformly within each cell.

    Parameters
    ----------
    density : array of float32, shape (n, n, n)
        Not negative, up to a factor.
    count : int
        Number of points.
    box_size_mpch : float
    random : Generator

    Returns
    -------
    array of float32, shape (count, 3)
        In [0, box size], in the order of the cells.
    """
    cells = len(density)
    cumulative = np.cumsum(density, dtype=np.float64)
    # Uniform numbers in ascending order, without a sort (Devroye 1986, chapter V.3).
    spacings = np.cumsum(random.standard_exponential(count + 1))
    chosen = np.searchsorted(cumulative, spacings[:-1] * (cumulative[-1] / spacings[-1]), "right")
    chosen = np.minimum(chosen, density.size - 1)
    corners = np.stack(np.unravel_index(chosen, density.shape), axis=1).astype(np.float32)
    corners += random.random((count, 3), dtype=np.float32)
    return corners * np.float32(box_size_mpch / cells)
