"""Amounts as Kubernetes writes them: "500m", "1Gi", "2"."""

from __future__ import annotations

import re

_UNITS = {
    "": 1.0,
    "m": 1e-3,
    **{unit: 10.0 ** (3 * n) for n, unit in enumerate(("k", "M", "G", "T", "P"), start=1)},
    **{unit: 2.0 ** (10 * n) for n, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), start=1)},
}


def parse_quantity(text: str | float) -> float:
    """Return the amount; ValueError where it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([a-zA-Z]*)", str(text))
    if found is None or found[2] not in _UNITS:
        raise ValueError(text)
    return float(found[1]) * _UNITS[found[2]]
