"""Spatial blocks: which plots are held out together, so that a fold is not its own neighbour.

Plots that lie side by side share soil, climate and observer; held out one by one they flatter a
model.  So whole blocks of a regular grid go to a fold, and the folds get equal numbers of plots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from muster.errors import InvalidInput

if TYPE_CHECKING:
    from muster.traits.aoa.neighbours import FloatArray, IntArray

_BLOCKS_A_FOLD = 4
_HALVINGS = 12


def assign_blocks(x: FloatArray, y: FloatArray, size: float) -> IntArray:
    """Give numbers to the blocks of a regular grid that hold plots.

    Parameters
    ----------
    x, y : ndarray, (plot,), float64
        Coordinates.
    size : float
        Side of a block in the coordinates' unit, greater than zero; blocks start at the origin.

    Returns
    -------
    ndarray, (plot,), int64
        0, 1, … by column, then row of the grid.
    """
    cells = np.stack([np.floor(x / size), np.floor(y / size)], axis=1)
    _, block = np.unique(cells, axis=0, return_inverse=True)
    return np.asarray(block, dtype=np.int64).reshape(-1)


def choose_block_size(x: FloatArray, y: FloatArray, fold_count: int) -> float:
    """Choose the side of a block where nobody gave one.

    Parameters
    ----------
    x, y : ndarray, (plot,), float64
        Coordinates.
    fold_count : int
        Number of folds.

    Returns
    -------
    float
        A tenth of the longer side of the plots' extent, halved until there are four blocks with
        plots for each fold.

    Raises
    ------
    InvalidInput
        When the plots do not lie apart enough for any size.
    """
    size = max(float(np.ptp(x)), float(np.ptp(y))) / 10
    for _ in range(_HALVINGS):
        if size > 0 and assign_blocks(x, y, size).max() + 1 >= _BLOCKS_A_FOLD * fold_count:
            return size
        size /= 2
    raise InvalidInput(
        "plots lie too close together for spatial blocks",
        got=f"{len(x)} plots within {np.ptp(x):g} × {np.ptp(y):g}",
        expected=f"plots in {_BLOCKS_A_FOLD * fold_count} places at least",
        do="give a block size, fewer folds, or a fold column",
    )


def assign_folds(block: IntArray, fold_count: int, seed: int) -> IntArray:
    """Deal blocks out to folds so that the folds get equal numbers of plots.

    Parameters
    ----------
    block : ndarray, (plot,), int64
        From :func:`assign_blocks`.
    fold_count : int
        Number of folds, at least 2.
    seed : int
        Decides between blocks of equal size.

    Returns
    -------
    ndarray, (plot,), int64
        Fold of each plot, 0 to ``fold_count`` - 1, none empty.

    Raises
    ------
    InvalidInput
        When there are fewer blocks than folds.
    """
    sizes = np.bincount(block)
    if len(sizes) < fold_count:
        raise InvalidInput(
            "fewer spatial blocks than folds",
            got=f"{len(sizes)} blocks with plots",
            expected=f"at least {fold_count}",
            do="choose smaller blocks or fewer folds",
        )
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    # The greatest blocks first, each to the fold with the fewest plots so far.
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    fold_of_block = np.empty(len(sizes), dtype=np.int64)
    filled = np.zeros(fold_count, dtype=np.int64)
    for number in order:
        fold = int(filled.argmin())
        fold_of_block[number] = fold
        filled[fold] += sizes[number]
    return fold_of_block[block]
