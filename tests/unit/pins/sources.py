"""The source as text: where a name stands in a string, no type checker sees it move."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
ROOMS = ("muster", "operators", "plugins", "dags")


def find_all(pattern: str, *suffixes: str) -> list[str]:
    """List, sorted and each once, what the first group of a pattern finds in any source file."""
    found: set[str] = set()
    for room in ROOMS:
        for path in (REPOSITORY / room).rglob("*"):
            if path.suffix in suffixes:
                text = path.read_text(encoding="utf-8")
                found |= {match[1] for match in re.finditer(pattern, text)}
    return sorted(found)
