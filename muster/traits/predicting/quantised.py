"""Tree ensembles on quantised predictors: LightGBM's own answer, to the bit, many times as fast.

A tree asks of a value only on which side of its thresholds it lies.  So a value is replaced by its
rank among all thresholds that the model has for that predictor (at most 255 of them as LightGBM
trains by default: one byte), and a split compares two bytes.  Then all nodes of a tree are
evaluated for a block of pixels, leaves first: each node picks, pixel by pixel, the leaf that its
left or right side has come to.  That is more work than to walk down each path, but it has no
branches and no scattered reads, and a vector instruction does it for 32 pixels at once.  Last, the
leaves' values are added in the order of the trees, in float64, as LightGBM does.

QuickScorer (Lucchese et al. 2015, doi:10.1145/2766462.2767733) is the ancestor of the idea; what is
kept here per pixel is the leaf's number instead of a bit mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import ConfigError, InvalidInput
from muster.raster.kernels import kernel
from muster.traits.predicting.trees import read_trees

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.traits.predicting.trees import Tree

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
AnyArray = np.ndarray[Any, Any]

BLOCK_PIXELS = 2048
"""Pixels whose ranks and leaves stay in a core's cache while all trees are asked."""

MOST_LEAVES = 1 << 16
MOST_THRESHOLDS = (1 << 16) - 1

ZERO_THRESHOLD = float(np.float32(1e-35))
"""LightGBM takes values up to this size for zero."""

_LEAF_LEAF, _LEAF_NODE, _NODE_LEAF, _LEFT_IN_TARGET, _RIGHT_IN_TARGET = range(5)
"""What the two sides of a node are: leaves or nodes; of two nodes one lies where the result goes.
(Were target, left and right three arrays, the compiler would have to fear that they overlap, as two
of them do, and would vectorise nothing.)"""


@dataclass(frozen=True)
class Ensemble:
    """A model's trees as one program for :func:`_evaluate`.

    Attributes
    ----------
    thresholds : ndarray, (predictor, rank), float64
        Distinct thresholds in order, filled up with infinity to a power of two, so that a search
        takes the same steps for all.
    operations : ndarray, (operation, 6), int32
        Kind, predictor, rank of the threshold, target, left and right: a leaf's number, or a slot
        that holds one for each pixel.
    starts : ndarray, (tree + 1,), int64
        Where the operations of each tree begin.
    leaf_values : ndarray, (tree, leaf), float64
        What is added for each leaf.
    slots : int
        How many slots an evaluation needs.
    rank_dtype, leaf_dtype : numpy.dtype
        The smallest types that hold a rank and a leaf's number.
    """

    thresholds: FloatArray
    operations: np.ndarray[Any, np.dtype[np.int32]]
    starts: np.ndarray[Any, np.dtype[np.int64]]
    leaf_values: FloatArray
    slots: int
    rank_dtype: np.dtype[Any]
    leaf_dtype: np.dtype[Any]

    def predict(self, values: FloatArray) -> FloatArray:
        """Predict.

        Parameters
        ----------
        values : ndarray, (pixel, predictor), float64
            Finite.

        Returns
        -------
        ndarray, (pixel,), float64
            The sum of the leaves, on the model's scale; a pixel's does not depend on the others.
        """
        if values.ndim != 2 or values.shape[1] != len(self.thresholds):
            raise InvalidInput(
                "values do not fit the model",
                got=f"shape {values.shape}",
                expected=f"(pixel, {len(self.thresholds)})",
            )
        predicted = np.zeros(len(values))
        ranks = np.empty((len(self.thresholds), BLOCK_PIXELS), dtype=self.rank_dtype)
        leaves = np.empty((self.slots, BLOCK_PIXELS), dtype=self.leaf_dtype)
        _predict(
            np.ascontiguousarray(values, dtype=np.float64),
            self.thresholds,
            self.operations,
            self.starts,
            self.leaf_values,
            ranks,
            leaves,
            predicted,
        )
        return predicted


def compile_ensemble(text: str, predictors: int) -> Ensemble:
    """Make the program that evaluates a LightGBM model.

    Parameters
    ----------
    text : str
        LightGBM's text.
    predictors : int
        How many predictors there are.

    Raises
    ------
    InvalidInput
        When the text is not LightGBM's, or its trees look at a predictor that there is not.
    ConfigError
        When the model is none that this engine evaluates; the message says why.
    """
    trees, problems = read_trees(text)
    distinct: list[set[float]] = [set() for _ in range(predictors)]
    for tree in trees:
        for feature, threshold in zip(tree.feature.tolist(), tree.threshold.tolist(), strict=True):
            if not 0 <= feature < predictors:
                raise InvalidInput(
                    "model asks for a predictor that there is not",
                    got=f"feature {feature}",
                    expected=f"0 to {predictors - 1}",
                )
            distinct[feature].add(threshold)
    most = max((len(found) for found in distinct), default=0)
    leaves = max((len(tree.leaf_value) for tree in trees), default=1)
    if most > MOST_THRESHOLDS:
        problems.append(f"a predictor has {most} thresholds, and {MOST_THRESHOLDS} can be ranked")
    if leaves > MOST_LEAVES:
        problems.append(f"a tree has {leaves} leaves, and {MOST_LEAVES} can be numbered")
    if problems:
        raise ConfigError(
            "model cannot be evaluated on quantised predictors",
            got="; ".join(problems),
            do="take the engine lightgbm",
        )
    ordered = [sorted(found) for found in distinct]
    ranks = [{value: rank for rank, value in enumerate(found)} for found in ordered]
    program = _Program(ranks)
    starts = [0]
    for tree in trees:
        program.add(tree)
        starts.append(len(program.operations))
    width = max(1, 1 << most.bit_length())
    thresholds = np.full((predictors, width), np.inf)
    for row, found in zip(thresholds, ordered, strict=True):
        row[: len(found)] = found
    leaf_values = np.zeros((len(trees), leaves))
    for row, tree in zip(leaf_values, trees, strict=True):
        row[: len(tree.leaf_value)] = tree.leaf_value
    return Ensemble(
        thresholds=thresholds,
        operations=np.array(program.operations, dtype=np.int32).reshape(-1, 6),
        starts=np.array(starts, dtype=np.int64),
        leaf_values=leaf_values,
        slots=program.slots,
        rank_dtype=np.dtype(np.uint8 if most < 256 else np.uint16),
        leaf_dtype=np.dtype(np.uint8 if leaves <= 256 else np.uint16),
    )


class _Program:
    """Puts a tree's nodes into an order in which both children come before their parent."""

    def __init__(self, ranks: Sequence[dict[float, int]]) -> None:
        self.ranks = ranks
        self.operations: list[tuple[int, int, int, int, int, int]] = []
        self.slots = 1

    def add(self, tree: Tree) -> None:
        """Add a tree; a tree of one leaf needs no operation."""
        if not len(tree.feature):
            return
        needed = _count_slots(tree)
        self.slots = max(self.slots, int(needed[0]))
        # (node, slot, whether its children are done); a loop, since a tree may be as deep as it
        # has leaves.
        stack: list[tuple[int, int, bool]] = [(0, 0, False)]
        while stack:
            node, slot, done = stack.pop()
            left, right = int(tree.left[node]), int(tree.right[node])
            children = [child for child in (left, right) if child >= 0]
            # What needs more slots goes first, and leaves all but one of them to the other.
            children.sort(key=lambda child: -int(needed[child]))
            at = {child: slot + position for position, child in enumerate(children)}
            if not done:
                stack.append((node, slot, True))
                stack += [(child, at[child], False) for child in reversed(children)]
                continue
            feature, threshold = int(tree.feature[node]), float(tree.threshold[node])
            self.operations.append(
                (
                    2 * (left >= 0) + (right >= 0) + (at.get(right) == slot and left >= 0),
                    feature,
                    self.ranks[feature][threshold],
                    slot,
                    at.get(left, ~left),
                    at.get(right, ~right),
                )
            )


def _count_slots(tree: Tree) -> AnyArray:
    """Count, for each node, the slots that its subtree needs at once (Sethi & Ullman 1970)."""
    needed = np.ones(len(tree.feature), dtype=np.int64)
    order: list[int] = []
    stack = [0]
    while stack:
        node = stack.pop()
        order.append(node)
        stack += [int(c) for c in (tree.left[node], tree.right[node]) if c >= 0]
    for node in reversed(order):
        both = [int(needed[c]) for c in (tree.left[node], tree.right[node]) if c >= 0]
        if len(both) == 2:
            needed[node] = both[0] + 1 if both[0] == both[1] else max(both)
        elif both:
            needed[node] = both[0]
    return needed


@kernel
def _rank(values: AnyArray, thresholds: AnyArray, ranks: AnyArray) -> None:
    """Count, for each value, the thresholds below it, in as many steps whatever the value."""
    for j in range(values.shape[1]):
        ordered = thresholds[j]
        for i in range(values.shape[0]):
            value = values[i, j]
            value = 0.0 if abs(value) <= ZERO_THRESHOLD else value
            rank = np.int64(0)
            step = np.int64(ordered.shape[0] >> 1)
            while step > 0:
                # All bits of a negative difference's sign, or none.  A comparison would become a
                # branch, which goes either way like a tossed coin and costs most when mistaken.
                gap = np.float64(ordered[rank + step - 1] - value)
                sign = gap.view(np.int64) >> 63
                rank += step & sign
                step >>= 1
            ranks[j, i] = rank


# Matrices are passed whole, with the numbers of the rows: a row on its own costs its reference
# count, and of a part of one the compiler does not know that its members lie side by side.


@kernel
def _evaluate(
    ranks: AnyArray,
    operations: AnyArray,
    starts: AnyArray,
    leaf_values: AnyArray,
    leaves: AnyArray,
    predicted: AnyArray,
) -> None:
    """Ask all trees about a block of pixels, and add up their leaves."""
    count = predicted.shape[0]
    rank_type, leaf_type = ranks.dtype.type, leaves.dtype.type
    for tree in range(starts.shape[0] - 1):
        for at in range(starts[tree], starts[tree + 1]):
            kind, j, target = operations[at, 0], operations[at, 1], operations[at, 3]
            threshold = rank_type(operations[at, 2])
            left, right = operations[at, 4], operations[at, 5]
            # Both sides are read before one is chosen: only so can a loop be vectorised.
            if kind == _LEAF_LEAF:
                first, change, same = leaf_type(left), leaf_type(left ^ right), leaf_type(0)
                for i in range(count):
                    leaves[target, i] = first ^ (change if ranks[j, i] > threshold else same)
            elif kind == _LEAF_NODE:
                first = leaf_type(left)
                for i in range(count):
                    other = leaves[target, i]
                    leaves[target, i] = other if ranks[j, i] > threshold else first
            elif kind == _NODE_LEAF:
                second = leaf_type(right)
                for i in range(count):
                    one = leaves[target, i]
                    leaves[target, i] = second if ranks[j, i] > threshold else one
            elif kind == _LEFT_IN_TARGET:
                for i in range(count):
                    one, other = leaves[target, i], leaves[right, i]
                    leaves[target, i] = other if ranks[j, i] > threshold else one
            else:
                for i in range(count):
                    one, other = leaves[left, i], leaves[target, i]
                    leaves[target, i] = other if ranks[j, i] > threshold else one
        if starts[tree] == starts[tree + 1]:
            for i in range(count):
                predicted[i] += leaf_values[tree, 0]
        else:
            for i in range(count):
                predicted[i] += leaf_values[tree, leaves[0, i]]


@kernel
def _predict(
    values: AnyArray,
    thresholds: AnyArray,
    operations: AnyArray,
    starts: AnyArray,
    leaf_values: AnyArray,
    ranks: AnyArray,
    leaves: AnyArray,
    predicted: AnyArray,
) -> None:
    """Work through all pixels in blocks."""
    size = ranks.shape[1]
    for start in range(0, values.shape[0], size):
        stop = min(start + size, values.shape[0])
        _rank(values[start:stop], thresholds, ranks)
        _evaluate(ranks, operations, starts, leaf_values, leaves, predicted[start:stop])
