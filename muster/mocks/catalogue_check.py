"""Whether a catalogue is whole, its statistics too, from which alone an ensemble is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.errors import InvalidInput, MissingInput
from muster.mocks.catalogue.hdf5 import open_hdf5, read_attributes
from muster.mocks.catalogue.layout import STATISTICS_GROUP
from muster.mocks.catalogue.problems import Expected, Problem
from muster.mocks.catalogue.read import read_statistics
from muster.mocks.catalogue.validate import validate_catalogue
from muster.mocks.qa.statistics import CatalogueStatistics

if TYPE_CHECKING:
    from pathlib import Path

    from muster.mocks.catalogue.hdf5 import AttributeValue

_NOTHING = Expected()


def check_catalogue(
    path: Path, *, expected: Expected = _NOTHING, statistics: bool | None = None
) -> list[Problem]:
    """Check a catalogue and the statistics in it.

    Parameters
    ----------
    path : Path
        The file.
    expected : Expected
        What is known of it, see :func:`muster.mocks.catalogue.validate.validate_catalogue`.
    statistics : bool, optional
        Whether it must have statistics; by default where it has a fingerprint, as all files of the
        step have.  Those that are there are checked in any case.

    Returns
    -------
    list of Problem
        Empty of a good file.

    Raises
    ------
    muster.errors.Transient
        When the file system failed.
    """
    problems = validate_catalogue(path, expected=expected)
    if any(problem.where == "file" for problem in problems):
        return problems
    return [*problems, *_check_statistics(path, statistics)]


def _check_statistics(path: Path, needed: bool | None) -> list[Problem]:
    try:
        with open_hdf5(path) as file:
            attributes, _ = read_attributes(file)
            has_group = STATISTICS_GROUP in file
        if not has_group and not (needed or (needed is None and "fingerprint" in attributes)):
            return []
        found = CatalogueStatistics.from_arrays(read_statistics(path))
    except MissingInput:
        return [Problem("missing", STATISTICS_GROUP, "the group is missing")]
    except InvalidInput as error:
        return [Problem("statistics", STATISTICS_GROUP, str(error))]
    return _compare(found, attributes)


def _compare(found: CatalogueStatistics, attributes: dict[str, AttributeValue]) -> list[Problem]:
    """Compare what the statistics count with what the file says of itself."""
    pairs = (("n_halos", found.halos), ("n_galaxies", found.galaxies))
    return [
        Problem(
            "statistics", STATISTICS_GROUP, f"count another {name}",
            got=str(value), expected=str(attributes[name]),
        )
        for name, value in pairs
        if name in attributes and attributes[name] != value
    ]  # fmt: skip
