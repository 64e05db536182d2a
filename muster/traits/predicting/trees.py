"""LightGBM's text as arrays: the trees of a model, and whether they are of the plain kind.

What LightGBM can do and a plain regression never needs (linear leaves, categorical splits, links
other than the identity) is named here, so that whoever evaluates trees can refuse it in words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

IDENTITY_OBJECTIVES = frozenset(
    {"", "fair", "huber", "mape", "quantile", "regression", "regression_l1"}
)
"""Objectives whose prediction is the plain sum of the leaves; none is written for a custom one."""

_VALUES = "num_tree_per_iteration"
_HEADER_NUMBERS = ("label_index", "max_feature_idx", "num_class")
_LISTS_OF_PREDICTORS = ("feature_names", "feature_infos")

_CATEGORICAL = 1
_MISSING_SHIFT, _MISSING_MASK, _MISSING_ZERO = 2, 3, 1


@dataclass(frozen=True)
class Tree:
    """One tree; an inner node's child is another inner node, or a leaf as its complement (~leaf).

    Attributes
    ----------
    feature : ndarray, (node,), int64
        Which feature an inner node looks at.
    threshold : ndarray, (node,), float64
        A value up to it goes left.
    left, right : ndarray, (node,), int64
        Children.
    leaf_value : ndarray, (leaf,), float64
        What a leaf adds to the prediction.
    """

    feature: np.ndarray[Any, np.dtype[np.int64]]
    threshold: np.ndarray[Any, np.dtype[np.float64]]
    left: np.ndarray[Any, np.dtype[np.int64]]
    right: np.ndarray[Any, np.dtype[np.int64]]
    leaf_value: np.ndarray[Any, np.dtype[np.float64]]


def check_model_text(text: str) -> list[str]:
    """List, in sentences, why a text is no whole LightGBM model.

    LightGBM ends the whole process over a text that was cut short, so that this is looked at
    before it is loaded: the header says how many bytes each tree takes.
    """
    header, found, _ = text.partition("\nTree=0\n")
    sizes = next((x for x in header.splitlines() if x.startswith("tree_sizes=")), None)
    if not found or sizes is None:
        return ["it has no list of trees"]
    try:
        length = sum(map(int, sizes.removeprefix("tree_sizes=").split()))
    except ValueError:
        return ["its list of trees holds something that is no size"]
    encoded = text.encode()
    end = len(header.encode()) + 1 + length
    if not encoded[end:].startswith(b"end of trees"):
        return [f"its trees end at byte {len(encoded)}, not at byte {end}: it was cut or changed"]
    fields = dict(_pairs(header))
    lacking = [key for key in (*_HEADER_NUMBERS, *_LISTS_OF_PREDICTORS) if key not in fields]
    if lacking:
        return [f"its header lacks {', '.join(lacking)}"]
    numbers = [*_HEADER_NUMBERS, *({_VALUES} & fields.keys())]
    wrong = [key for key in numbers if not re.fullmatch(r"\s*-?[0-9]+\s*", fields[key])]
    if wrong:
        return [f"{key} of its header is {fields[key]!r} and no number" for key in wrong]
    predictors = int(fields["max_feature_idx"]) + 1
    counts = {key: len(fields[key].split()) for key in _LISTS_OF_PREDICTORS}
    return [
        f"it has {predictors} predictors and {count} {key}"
        for key, count in counts.items()
        if count != predictors
    ]


@dataclass(frozen=True)
class Shape:
    """What a model takes, and how many values it gives."""

    predictors: int
    values: int


def read_shape(text: str) -> Shape:
    """Read the shape of a model, in whose text :func:`check_model_text` finds nothing wrong."""
    fields = dict(_pairs(text.partition("\nTree=0\n")[0]))
    return Shape(
        predictors=int(fields["max_feature_idx"]) + 1,
        values=int(fields.get(_VALUES, fields["num_class"])),
    )


def read_trees(text: str) -> tuple[list[Tree], list[str]]:
    """Read the trees of a model.

    Parameters
    ----------
    text : str
        LightGBM's text.

    Returns
    -------
    trees : list of Tree
        In the order in which they are added up.
    problems : list of str
        In sentences, why the plain sum of the leaves is not what LightGBM would predict; empty
        for a plain regression.  Values are taken to be there: trees are not asked about a pixel
        that lacks one.

    Raises
    ------
    InvalidInput
        When the text is not LightGBM's.
    """
    header, found, body = text.partition("\nTree=0\n")
    if not found:
        raise InvalidInput("not a LightGBM text model", got=repr(text[:40]))
    problems = _check_header(dict(_pairs(header)), header)
    trees: list[Tree] = []
    for section in body.partition("\nend of trees")[0].split("\nTree="):
        fields = dict(_pairs(section))
        try:
            trees.append(_read_tree(fields))
        except (KeyError, ValueError, OverflowError) as error:
            raise InvalidInput(
                "not a LightGBM text model", where=f"tree {len(trees)}", got=error
            ) from error
        problems += [p for p in _check_tree(fields) if p not in problems]
    return trees, problems


def _pairs(section: str) -> Iterator[tuple[str, str]]:
    for line in section.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            yield key, value


def _read_tree(fields: dict[str, str]) -> Tree:
    values = np.array(fields["leaf_value"].split(), dtype=np.float64)
    nodes = int(fields["num_leaves"]) - 1

    def numbers(name: str, dtype: type) -> Any:
        # A tree of one leaf has no nodes, and may say so by leaving the line out.
        found: Any = np.array(fields.get(name, "").split() if nodes else [], dtype=dtype)
        if len(found) != nodes:
            raise ValueError(f"{name} has {len(found)} values for {nodes} nodes")
        return found

    if len(values) != nodes + 1:
        raise ValueError(f"leaf_value has {len(values)} values for {nodes + 1} leaves")
    for side in ("left_child", "right_child"):
        child = numbers(side, np.int64)
        # A node is made after the one that it hangs from, so that no walk down goes in a circle.
        below = np.where(child < 0, ~child <= nodes, (child > np.arange(nodes)) & (child < nodes))
        if not below.all():
            raise ValueError(f"{side} leads to what is no node or leaf below")
    return Tree(
        feature=numbers("split_feature", np.int64),
        threshold=numbers("threshold", np.float64) + 0.0,  # of two zeros only one is left
        left=numbers("left_child", np.int64),
        right=numbers("right_child", np.int64),
        leaf_value=values,
    )


def _check_header(fields: dict[str, str], header: str) -> list[str]:
    problems = []
    if fields.get(_VALUES, "1") != "1":
        problems.append("it predicts several values")
    if "average_output" in header.splitlines():
        problems.append("it averages its trees")
    objective = fields.get("objective", "").split()
    if objective and (objective[0] not in IDENTITY_OBJECTIVES or "sqrt" in objective):
        problems.append(f"its objective {' '.join(objective)} transforms the sum of the leaves")
    return problems


def _check_tree(fields: dict[str, str]) -> list[str]:
    kinds = {int(kind) for kind in fields.get("decision_type", "").split()}
    problems = []
    if fields.get("is_linear", "0") != "0":
        problems.append("it has linear models in its leaves")
    if fields.get("num_cat", "0") != "0" or any(kind & _CATEGORICAL for kind in kinds):
        problems.append("it has categorical splits")
    if any((kind >> _MISSING_SHIFT) & _MISSING_MASK == _MISSING_ZERO for kind in kinds):
        problems.append("it takes zero for a missing value")
    return problems
