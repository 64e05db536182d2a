"""Whether a catalogue is what it should be, told as a list of problems, never as an exception.

The file is untrusted: :mod:`muster.mocks.catalogue.hdf5` bounds what is looked at.  Datasets are
read in slabs of rows; only ids, positions and radii of the haloes are held whole.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import MusterError, Transient
from muster.mocks.catalogue.arrays import expected_shape
from muster.mocks.catalogue.hdf5 import (
    HDF5_ERRORS,
    AttributeValue,
    explain_hdf5_error,
    list_datasets,
    open_hdf5,
    read_attributes,
    read_slabs,
)
from muster.mocks.catalogue.hosts import HaloIds, HaloPlaces, Rows
from muster.mocks.catalogue.layout import (
    ATTRIBUTE_BY_NAME,
    ATTRIBUTES,
    COLUMN_BY_PATH,
    FORMAT,
    FORMAT_VERSION,
    REFERS_TO,
    STATISTICS_GROUP,
    Column,
    Layout,
    columns_of,
    required_columns,
)
from muster.mocks.catalogue.problems import Expected, Problem, set_aside
from muster.mocks.hdf5_text import fold_hdf5_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import h5py
    from numpy.typing import NDArray

__all__ = ["Expected", "Problem", "set_aside", "validate_catalogue"]

_NOTHING = Expected()
_KINDS = {"float": float, "int": int, "text": str}
_MASS_TOLERANCE_DEX = 1e-5


def validate_catalogue(path: Path, *, expected: Expected = _NOTHING) -> list[Problem]:
    """Check a catalogue.

    Parameters
    ----------
    path : Path
        The file.
    expected : Expected
        What is known of it: box, redshift, counts, attributes.

    Returns
    -------
    list of Problem
        Empty of a good file.  Each names the dataset or attribute, and how many rows; there are at
        most a few for each dataset.  Whatever the file holds, nothing is raised for it.

    Raises
    ------
    muster.errors.Transient
        When the file system failed, which says nothing of the file.
    """
    try:
        with open_hdf5(path) as file:
            return _Validation(file, expected).run()
    except Transient:
        raise
    except MusterError as error:
        return [Problem("unreadable", "file", str(error))]


class _Validation:
    """One file, looked at from the outside in: objects, attributes, shapes, then values."""

    def __init__(self, file: h5py.File, expected: Expected) -> None:
        self.file = file
        self.expected = expected
        self.problems: list[Problem] = []
        self.datasets: dict[str, h5py.Dataset] = {}
        self.attributes: dict[str, AttributeValue] = {}
        self.ids: HaloIds | None = None

    def run(self) -> list[Problem]:
        self.datasets, refused = list_datasets(self.file)
        for name, problem in refused.items():
            self.add("hostile", name, problem)
        self._check_attributes()
        layout: Layout = self.expected.layout or (
            "full" if self.attributes.get("layout") == "full" else "lean"
        )
        whole = self._check_columns(layout, set(refused))
        self._check_counts()
        for path in whole:
            self._read(path, self._check_values)
        if "halos/id" in whole:
            self._read("halos/id", self._check_ids)
        if self.ids is not None and "galaxies/upid" in whole:
            self._read("galaxies/upid", self._check_hosts)
        return self.problems

    def add(
        self,
        kind: str,
        where: str,
        what: str,
        *,
        got: object = "",
        expected: object = "",
        rows: int | None = None,
        first_row: int | None = None,
    ) -> None:
        self.problems.append(Problem(kind, where, what, rows, first_row, str(got), str(expected)))

    def _read(self, path: str, check: Callable[[str], None]) -> None:
        """Run a check that reads a dataset; what cannot be read is a problem of it alone."""
        try:
            check(path)
        except HDF5_ERRORS as error:
            if isinstance(explain_hdf5_error(error, path), Transient):
                raise
            self.add("unreadable", path, "cannot be read", got=fold_hdf5_text(str(error)))

    # attributes

    def _check_attributes(self) -> None:
        self.attributes, refused = read_attributes(self.file)
        for name, problem in refused.items():
            self.add("attribute", name, problem)
        for attribute in ATTRIBUTES:
            value = self.attributes.get(attribute.name)
            if value is None:
                if attribute.required and attribute.name not in refused:
                    self.add("attribute", attribute.name, "is missing")
            elif type(value) is not _KINDS[attribute.kind]:
                self.add(
                    "attribute", attribute.name, "is of another kind",
                    got=repr(value), expected=attribute.kind,
                )  # fmt: skip
                del self.attributes[attribute.name]
        for name, wanted in self._wanted_attributes().items():
            self._compare_attribute(name, wanted)
        size = self.attributes.get("Lbox")
        if isinstance(size, float) and not (math.isfinite(size) and size > 0):
            self.add("attribute", "Lbox", "is no size", got=size)
            del self.attributes["Lbox"]

    def _wanted_attributes(self) -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "Lbox": self.expected.box_size_mpch,
            "z_obs": self.expected.redshift,
            "layout": self.expected.layout,
            "n_halos": self.expected.n_halos,
        }
        redshift = self.attributes.get("z_obs")
        if isinstance(redshift, float):
            wanted["redshift"] = f"z{redshift:.3f}"
        wanted.update(self.expected.attributes)
        return {name: value for name, value in wanted.items() if value is not None}

    def _compare_attribute(self, name: str, wanted: Any) -> None:
        found = self.attributes.get(name)
        if found is None:
            known = ATTRIBUTE_BY_NAME.get(name)
            if known is None or not known.required:
                self.add("attribute", name, "is missing", expected=wanted)
        elif not _is_same(found, wanted):
            self.add("attribute", name, "is another", got=found, expected=wanted)

    # shapes

    def _check_columns(self, layout: Layout, refused: set[str]) -> list[str]:
        """Check that the layout's datasets are there; return those whose values can be checked."""
        for column in required_columns(layout):
            if column.path not in self.datasets and column.path not in refused:
                self.add("missing", column.path, "the dataset is missing")
        allowed = {column.path for column in columns_of(layout)}
        sizes: dict[str, int] = {}
        whole = []
        for path in (*COLUMN_BY_PATH, *sorted(set(self.datasets) - set(COLUMN_BY_PATH))):
            if path not in self.datasets or path.startswith(f"{STATISTICS_GROUP}/"):
                continue
            if path not in allowed:
                self.add("unknown", path, f"no dataset of the layout {layout}")
            elif self._check_column(COLUMN_BY_PATH[path], sizes):
                whole.append(path)
        for name, size in (("n_galaxies", "galaxy"), ("n_halos", "halo")):
            if size in sizes and self.attributes.get(name, sizes[size]) != sizes[size]:
                self.add(
                    "attribute", name, "is not the number of rows",
                    got=self.attributes[name], expected=sizes[size],
                )  # fmt: skip
        return whole

    def _check_column(self, column: Column, sizes: dict[str, int]) -> bool:
        dataset = self.datasets[column.path]
        if dataset.dtype.name not in column.dtypes:
            self.add(
                "kind", column.path, "other numbers than those of the layout",
                got=dataset.dtype, expected=" or ".join(column.dtypes),
            )  # fmt: skip
            return False
        expected = expected_shape(column, dataset.shape, sizes)
        if dataset.shape != expected:
            self.add(
                "shape", column.path, "another shape than that of the layout",
                got=dataset.shape, expected=expected,
            )  # fmt: skip
            return False
        stated, _ = read_attributes(dataset)
        for name in ("unit", "description", "h_scaled", "comoving"):
            if stated.get(name) != getattr(column, name):
                self.add(
                    "unit", column.path, f"attribute {name} is another",
                    got=stated.get(name), expected=getattr(column, name),
                )  # fmt: skip
        if column.path == "galaxies/upid" and stated.get("refers_to") not in REFERS_TO:
            self.add(
                "unit", column.path, "attribute refers_to is another",
                got=stated.get("refers_to"), expected=" or ".join(REFERS_TO),
            )  # fmt: skip
            return False
        return True

    def _check_counts(self) -> None:
        expectation = self.expected.galaxies
        found = self.datasets.get("galaxies/pos")
        if expectation is None or found is None or not found.shape:
            return
        mean = expectation.mean
        most_off = self.expected.sigmas * expectation.standard_deviation
        if abs(found.shape[0] - mean) > most_off:
            self.add(
                "count", "galaxies", "not the number of galaxies that was expected",
                got=found.shape[0], expected=f"{mean:.1f} ± {most_off:.1f}",
            )  # fmt: skip

    # values

    def _check_values(self, path: str) -> None:
        """Check that the values of a dataset are finite and in their range, slab by slab."""
        column = COLUMN_BY_PATH[path]
        dataset = self.datasets[path]
        if dataset.dtype.kind != "f":
            return  # ids and upid have checks of their own
        axis = column.row_axis or 0
        tests = self._tests(column)
        counts: dict[str, tuple[int, int]] = {}
        for start, values in read_slabs(dataset, axis):
            if _is_plain(values, self._range(column)):
                continue
            for kind, test in tests.items():
                bad = test(np.asarray(values))
                rows = bad.any(tuple(a for a in range(bad.ndim) if a != axis)) if bad.ndim else bad
                found = np.flatnonzero(rows)
                if found.size:
                    count, first = counts.get(kind, (0, start + int(found[0])))
                    counts[kind] = (count + found.size, first)
        for kind, (count, first) in counts.items():
            self.add(kind, path, _SENTENCES[kind], rows=count, first_row=first,
                     expected=self._say_range(column) if kind != "not_finite" else "")  # fmt: skip

    def _range(self, column: Column) -> tuple[float, float]:
        """Return the least value, and the value that none reaches."""
        size = self.attributes.get("Lbox")
        if column.name == "pos" and isinstance(size, float):
            return 0.0, size
        least = self.attributes.get("lgmp_min")
        if column.path == "halos/logmhost" and isinstance(least, float):
            return max(column.limits[0], least - _MASS_TOLERANCE_DEX), column.limits[1]
        return column.limits

    def _say_range(self, column: Column) -> str:
        low, high = self._range(column)
        return f"[{low:g}, {high:g})"

    def _tests(self, column: Column) -> Mapping[str, Callable[[NDArray[Any]], NDArray[np.bool_]]]:
        low, high = (np.float64(limit) for limit in self._range(column))
        kind = "outside_box" if column.name == "pos" else "out_of_range"
        return {
            "not_finite": lambda values: ~np.isfinite(values),
            kind: lambda values: np.isfinite(values) & ((values < low) | (values >= high)),
        }

    def _check_ids(self, path: str) -> None:
        """Check that ids are unique, and keep them."""
        self.ids = HaloIds(self.datasets[path][()])
        twice = self.ids.find_doubled()
        if twice.size:
            self.add(
                "not_unique", path, "ids that stand more than once",
                rows=int(twice.size), first_row=int(twice.min()),
            )  # fmt: skip

    def _check_hosts(self, path: str) -> None:
        """Check that satellites' hosts are haloes of the box, and that galaxies lie at theirs."""
        dataset, ids, places = self.datasets[path], self.ids, self._read_places()
        if ids is None:
            return
        by_id = read_attributes(dataset)[0].get("refers_to") == REFERS_TO[0]
        homeless, misplaced = Rows(), Rows()
        for start, upid in read_slabs(dataset):
            hosts, is_host = ids.find_hosts(upid, by_id=by_id)
            is_central = upid == -1
            homeless.add(~is_central & ~is_host, start)
            if places is None:
                continue
            positions = self.datasets["galaxies/pos"][start : start + len(upid)]
            wrong = np.zeros(len(upid), bool)
            satellites = np.flatnonzero(~is_central & is_host)
            wrong[satellites] = places.find_far(positions[satellites], hosts[satellites])
            centrals = np.flatnonzero(is_central)
            wrong[centrals] = places.find_lost(positions[centrals])
            misplaced.add(wrong, start)
        for kind, where, what, found in (
            ("no_host", path, "satellites whose host is not in halos/", homeless),
            (
                "misplaced",
                "galaxies/pos",
                "galaxies that do not lie at their haloes",
                misplaced,
            ),
        ):
            if found.count:
                self.add(kind, where, what, rows=found.count, first_row=found.first)

    def _read_places(self) -> HaloPlaces | None:
        """Return where the haloes lie; None where places are wrong already, or not known."""
        size = self.attributes.get("Lbox")
        needed = {"galaxies/pos", "halos/pos", "halos/radius"}
        spoilt = {problem.where for problem in self.problems if problem.kind != "unit"}
        if not isinstance(size, float) or needed & spoilt or not needed <= set(self.datasets):
            return None
        positions, radii = (self.datasets[name][()] for name in ("halos/pos", "halos/radius"))
        return HaloPlaces(positions, radii, size)


def _is_same(found: AttributeValue, wanted: Any) -> bool:
    """Compare an attribute; sources of haloes state sizes and redshifts in single precision."""
    if isinstance(found, float) and isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-6, abs_tol=1e-6)
    return bool(found == wanted)


_SENTENCES = {
    "not_finite": "values that are not finite",
    "outside_box": "positions outside the box",
    "out_of_range": "values out of range",
}


def _is_plain(values: NDArray[Any], limits: tuple[float, float]) -> bool:
    """Say whether all values are finite and in their range, by the least and the greatest."""
    if not np.size(values):
        return True
    least, greatest = np.float64(np.min(values)), np.float64(np.max(values))  # NaN if any is
    return bool(
        np.isfinite(least) and np.isfinite(greatest) and limits[0] <= least and greatest < limits[1]
    )
