"""Hashes of what JSON can say: equal for equal values, and kept in records for good."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def hash_json(value: Any) -> str:
    """Return the SHA-256 of a value as JSON with its keys in order, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hash_compact_json(value: Any) -> str:
    """Return the SHA-256 of a value as JSON with its keys in order and without spaces.

    Raises
    ------
    ValueError
        When a number is NaN or infinite.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
