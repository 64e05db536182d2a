"""A small version of a result, picked from its windows as they pass: every n-th row and column."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.transform import Affine

from muster.raster.grid import Grid

if TYPE_CHECKING:
    from muster.raster.grid import Window
    from muster.resampling.layer import Layer

LONGEST_PX = 1024


class Thumbnail:
    """Cells of a layer at equal distances.

    Parameters
    ----------
    layer : Layer
        The layer.
    longest_px : int
        Longest side, at most.
    """

    def __init__(self, layer: Layer, longest_px: int = LONGEST_PX) -> None:
        grid = layer.grid.to_grid()
        self._step = max(1, math.ceil(max(grid.height, grid.width) / longest_px))
        shape = (-(-grid.height // self._step), -(-grid.width // self._step))
        self._values = np.full(shape, layer.nodata_value, dtype=layer.dtype)
        transform = grid.transform @ Affine.scale(self._step)
        self._grid = Grid(grid.crs, transform, *shape)

    def take(self, window: Window, values: np.ndarray[Any, Any]) -> None:
        """Take what is picked from a window: (row, col), as stored."""
        step = self._step
        row, col = -window.row % step, -window.col % step
        picked = values[row::step, col::step]
        top, left = -(-window.row // step), -(-window.col // step)
        self._values[top : top + picked.shape[0], left : left + picked.shape[1]] = picked

    def read(self, longest_px: int) -> tuple[np.ndarray[Any, Any], Grid]:
        """Return what was picked, (row, col) as stored, and its grid, whatever size is wanted."""
        del longest_px
        return self._values, self._grid
