"""Names of the tars of an archive: by range of realizations, numbered where a range has several."""

from __future__ import annotations

import re

from muster.mocks.campaign.facts import CATALOGS
from muster.mocks.campaign.tar_file import INDEX_SUFFIX

RECORD, WHOLE, OTHER = "record", "whole", "other"
_REALIZATION = re.compile(rf"{CATALOGS}/r(\d{{4,5}})/.*")


def label_of(name: str, per_tar: int | None) -> str:
    """Name the range that a file is archived with: r0000-r0099, record, other; or whole."""
    if per_tar is None:
        return WHOLE
    found = _REALIZATION.fullmatch(name)
    if found is None:
        return OTHER if name.startswith(f"{CATALOGS}/") else RECORD
    first = int(found[1]) // per_tar * per_tar
    return f"r{first:04d}-r{first + per_tar - 1:04d}"


def next_tar(campaign: str, label: str, names: set[str]) -> str:
    """Name the next tar of a range: the first that has no index yet."""
    number = 1
    while (tar := f"{campaign}_{label}{f'.{number}' if number > 1 else ''}.tar") and (
        tar + INDEX_SUFFIX in names
    ):
        number += 1
    return tar
