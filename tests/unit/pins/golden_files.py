"""What is stored, or known outside, is compared with a text that is kept beside the tests.

A pin that fails names what has moved.  Runs that are under way, and products, records and scripts
of earlier versions go by it, so the code is mended, or a migration reads both.  Where the change is
meant, ``python -m tests.unit.pins.write`` writes the golden files anew: read its diff.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "golden"

writing = False
"""Set by ``tests.unit.pins.write`` alone: write the files instead of comparing with them."""


def read_golden(name: str) -> str:
    """Read a golden file, as it is."""
    return (FOLDER / name).read_bytes().decode()


def check_golden(name: str, now: str, user: str) -> None:
    """Fail where a text is not, byte for byte, that of a golden file.

    ``user`` says who reads or stores it: "is stored by …", "is called by …".
    """
    if writing:
        (FOLDER / name).write_bytes(now.encode())
        return
    kept = read_golden(name) if (FOLDER / name).exists() else ""
    if now != kept:
        _fail(f"golden/{name}", kept.splitlines(), now.splitlines(), user)


def check_literal(what: str, now: Any, kept: Any, user: str) -> None:
    """Fail where a value is not the one that a test spells out."""
    if now != kept:
        _fail(what, render_json(kept).splitlines(), render_json(now).splitlines(), user)


def render_json(value: Any) -> str:
    """Render a value so that each line of a diff tells one thing."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, default=str) + "\n"


def _fail(what: str, kept: list[str], now: list[str], user: str) -> None:
    lines = difflib.unified_diff(kept, now, lineterm="", n=0)
    moved = [line for line in lines if line[:2] not in ("--", "++", "@@")]
    shown = (
        "; ".join(f"{line[0]} {line[1:].strip().rstrip(',')}" for line in moved[:4])
        or "bytes differ"
    )
    more = f"; and {len(moved) - 4} lines more" if len(moved) > 4 else ""
    text = f"{what} moved: {shown}{more}. It {user}: keep it, or add a migration"
    pytest.fail(" ".join(text.split()), pytrace=False)
