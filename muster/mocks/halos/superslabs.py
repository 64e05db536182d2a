"""The files of a box of AbacusSummit, by their names alone; imports no compute library."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muster.mocks.halos.listing import Listing

_SUPERSLAB = re.compile(r"halo_info_(\d{3})\.asdf")
_CLEANED = re.compile(r"cleaned_halo_info_(\d{3})\.asdf")
_SHOWN = 8
_MOST_LISTED_BYTES = 1 << 20


@dataclass(frozen=True)
class Cleaning:
    """What cleaning changed of one box and redshift.

    Attributes
    ----------
    root : str
        The folder ``cleaning``.
    folder : str
        The folder in it that holds this box's files.
    found : frozenset of int
        Numbers of the superslabs that are there.
    """

    root: str
    folder: str
    found: frozenset[int]


def find_cleaning(folder: str, listing: Listing) -> Cleaning | None:
    """Find what cleaning changed of one box and redshift, where abacusutils looks for it.

    Parameters
    ----------
    folder : str
        Folder of the redshift: ``ROOT/SIMULATION/halos/zN.NNN``.
    listing : Listing

    Returns
    -------
    Cleaning or None
        In the nearest folder ``cleaning``, at the simulation or up to two folders above.
    """
    simulation = os.path.dirname(os.path.dirname(os.path.abspath(folder)))
    above = simulation
    for _ in range(3):
        if "cleaning" in listing.names(above):
            root = os.path.join(above, "cleaning")
            inner = os.path.relpath(simulation, above)
            place = os.path.normpath(os.path.join(root, inner, os.path.basename(folder)))
            names = listing.names(place)
            if "cleaned_halo_info" in names:
                place = os.path.join(place, "cleaned_halo_info")
                names = listing.names(place)
            return Cleaning(root, place, _numbers(_CLEANED, names))
        above = os.path.dirname(above)
    return None


def count_listed(folder: str) -> int:
    """Count the superslabs that checksums.crc32 lists; 0 where there is no such file."""
    sizes = read_listed_sizes(folder)
    return max((int(match[1]) + 1 for n in sizes if (match := _SUPERSLAB.fullmatch(n))), default=0)


def read_listed_sizes(folder: str) -> dict[str, int]:
    """Read the sizes in bytes that checksums.crc32 states of a box's superslabs.

    Parameters
    ----------
    folder : str
        Folder of the redshift.

    Returns
    -------
    dict
        Name of a file → bytes; empty where there is no such file, or it is none of ``cksum``.
    """
    path = os.path.join(folder, "halo_info", "checksums.crc32")
    try:
        with open(path, encoding="ascii") as file:
            lines = file.read(_MOST_LISTED_BYTES).splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    words = [line.split() for line in lines]
    return {w[2]: int(w[1]) for w in words if len(w) == 3 and w[0].isdigit() and w[1].isdigit()}


def find_superslabs(names: frozenset[str]) -> frozenset[int]:
    """Return the numbers of the superslabs among names."""
    return _numbers(_SUPERSLAB, names)


def _numbers(pattern: re.Pattern[str], names: frozenset[str]) -> frozenset[int]:
    return frozenset(int(match[1]) for n in names if (match := pattern.fullmatch(n)))


def describe_lacking(found: frozenset[int], superslabs: int, stem: str) -> str | None:
    """Say which files of a box are not there; None if all are."""
    lacking = sorted(set(range(superslabs)) - found)
    if not lacking:
        return None
    names = ", ".join(f"{stem}_{number:03d}.asdf" for number in lacking[:_SHOWN])
    more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
    return f"{names}{more} of {superslabs} superslabs not there"
