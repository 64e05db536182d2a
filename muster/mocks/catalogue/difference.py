"""How two catalogues differ: frozen types that JSON and lines are made from.  No NumPy, no h5py."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from muster.errors import shorten


@dataclass(frozen=True)
class DatasetDifference:
    """How a dataset that both have differs.

    Attributes
    ----------
    path : str
        Group and name.
    dtypes, shapes : tuple of (str, str)
        Of A and of B.
    rows : int
        Rows of each; 0 where the shapes differ, and nothing was compared.
    rows_differ : int
        Rows with any value that differs.
    first_rows : tuple of int
        The first of them, from 0; ten at most.
    largest : float or None
        The largest |B − A| of values that differ; None where there is no finite one.
    largest_row : int or None
        Its row.
    """

    path: str
    dtypes: tuple[str, str]
    shapes: tuple[str, str]
    rows: int = 0
    rows_differ: int = 0
    first_rows: tuple[int, ...] = ()
    largest: float | None = None
    largest_row: int | None = None

    def describe(self) -> str:
        """Return the difference in one line."""
        parts = []
        if self.shapes[0] != self.shapes[1]:
            parts.append(f"shape {self.shapes[0]} and {self.shapes[1]}")
        if self.dtypes[0] != self.dtypes[1]:
            parts.append(f"dtype {self.dtypes[0]} and {self.dtypes[1]}")
        if self.rows_differ:
            rows = ", ".join(str(row) for row in self.first_rows)
            more = ", …" if self.rows_differ > len(self.first_rows) else ""
            parts.append(f"{self.rows_differ} of {self.rows} rows differ: {rows}{more}")
        if self.largest is not None:
            parts.append(f"largest difference {self.largest:g} in row {self.largest_row}")
        return f"{self.path}: {'; '.join(parts)}"


@dataclass(frozen=True)
class AttributeDifference:
    """An attribute that is not the same in both.

    Attributes
    ----------
    where : str
        Path of its dataset or group; "/" of the root.
    name : str
        Of the attribute.
    a, b : int, float, str, tuple or None
        Its values; None where it is not there.
    """

    where: str
    name: str
    a: Any
    b: Any

    def describe(self) -> str:
        """Return the difference in one line."""
        values = (
            "nothing" if value is None else shorten(repr(value), 60) for value in (self.a, self.b)
        )
        return f"{self.where}, attribute {self.name}: {' and '.join(values)}"


@dataclass(frozen=True)
class CatalogueDifference:
    """How two catalogues differ.

    Attributes
    ----------
    a, b : str
        The files.
    rtol, atol : float
        Values are equal where |B − A| ≤ atol + rtol |B|; with both 0, where their bytes are.
    compared : int
        Datasets that both have.
    only_a, only_b : tuple of str
        Datasets that only one has.
    datasets : tuple of DatasetDifference
        Datasets that both have and that differ.
    attributes : tuple of AttributeDifference
        Attributes of the root, of groups and of datasets that both have.
    """

    a: str
    b: str
    rtol: float
    atol: float
    compared: int
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    datasets: tuple[DatasetDifference, ...] = ()
    attributes: tuple[AttributeDifference, ...] = ()

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_a or self.only_b or self.datasets or self.attributes)

    def describe(self) -> list[str]:
        """Return a line for each difference, or one that says that there is none."""
        how = "to the bit" if not (self.rtol or self.atol) else "within the tolerance"
        if self.is_equal:
            return [f"equal {how}: {self.compared} datasets, and their attributes"]
        lines = [f"{path}: only in A" for path in self.only_a]
        lines += [f"{path}: only in B" for path in self.only_b]
        lines += [dataset.describe() for dataset in self.datasets]
        lines += [attribute.describe() for attribute in self.attributes]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can say of it; numbers that JSON does not know are texts."""
        answer: dict[str, Any] = {"equal": self.is_equal, **asdict(self)}
        for attribute in answer["attributes"]:
            for side in ("a", "b"):
                attribute[side] = _for_json(attribute[side])
        return answer


def _for_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_for_json(item) for item in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
