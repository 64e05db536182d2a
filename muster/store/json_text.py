"""JSON as Postgres takes it."""

from __future__ import annotations

import json
import re
from typing import Any

_NUL = re.compile(r"(\\\\)|\\u0000")
"""A NUL in JSON; a backslash that is one itself is passed over, whatever follows it."""


def render_json(value: Any) -> str:
    """Render JSON that Postgres takes: it has no character for a NUL."""
    text = json.dumps(value)
    return _NUL.sub(lambda found: found[1] or "", text) if "\\u0000" in text else text
