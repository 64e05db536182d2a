"""Cells of many datasets on one grid: what a merge hands to whoever writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from muster.raster.nodata import BoolArray

CELL_COLUMNS = ("row_idx", "col_idx", "x", "y")
"""Columns that say which cell a row is of; no dataset may be called so."""


@dataclass(frozen=True)
class Cells:
    """Cells that are kept, in the order of the grid: row by row, each from the left.

    Attributes
    ----------
    row, col : ndarray, (cell,), int32
        From 0.
    x, y : ndarray, (cell,), float64
        Centres, in the CRS's units.
    values : tuple of ndarray, (cell,)
        For each dataset, in its type; anything where it has no value.
    valid : tuple of ndarray, (cell,), bool
        For each dataset, whether it has a value.
    """

    row: np.ndarray[Any, np.dtype[np.int32]]
    col: np.ndarray[Any, np.dtype[np.int32]]
    x: np.ndarray[Any, np.dtype[np.float64]]
    y: np.ndarray[Any, np.dtype[np.float64]]
    values: tuple[np.ndarray[Any, Any], ...]
    valid: tuple[BoolArray, ...]


@dataclass
class Counts:
    """What has been seen.

    Attributes
    ----------
    rows : int
        Rows of the table.
    complete, incomplete : int
        Cells in which all datasets, or some but not all, have a value.
    """

    rows: int = 0
    complete: int = 0
    incomplete: int = 0
