"""How times, sizes and numbers read in a report: pure, and "–" for what nobody knows."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

UNKNOWN = "–"
_LONGEST_FACT = 120


def format_time(moment: datetime | None) -> str:
    """Format an aware time as UTC with its zone, to the second."""
    return UNKNOWN if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def format_iso(text: object) -> str:
    """Format a time that is written as ISO 8601 with its zone."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return UNKNOWN
    return format_time(moment if moment.tzinfo else None)


def format_hours(hours: float) -> str:
    """Format CPU-hours; less than a hundredth is worth no digits."""
    return "< 0.01" if 0 < hours < 0.01 else format_number(hours)


def format_seconds(seconds: float | None) -> str:
    """Format a duration with the two units that matter."""
    if seconds is None:
        return UNKNOWN
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for length, unit, least in ((86400, "d", 3600), (3600, "h", 60), (60, "min", 1)):
        if whole >= length:
            rest = whole % length // least
            smaller = {3600: "h", 60: "min", 1: "s"}[least]
            return f"{whole // length} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def format_mib(mebibytes: float | None) -> str:
    """Format an amount of memory in MiB or GiB."""
    if mebibytes is None:
        return UNKNOWN
    if mebibytes < 1024:
        return f"{mebibytes:.0f} MiB"
    return f"{mebibytes / 1024:.1f}".removesuffix(".0") + " GiB"


def format_bytes(size_bytes: int) -> str:
    """Format a size in KiB, MiB or GiB; less than a KiB in bytes."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    return f"{size_bytes / 1024:.0f} KiB" if size_bytes < 2**20 else format_mib(size_bytes / 2**20)


def format_number(value: object, digits: int = 3) -> str:
    """Format a number with so many significant digits; great ones whole, in groups of three."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return UNKNOWN
    if isinstance(value, int) or 1000 <= abs(value) < 1e9:
        return f"{round(value):,}".replace(",", "\u202f")
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits}g}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def format_share(value: object) -> str:
    """Format a share in [0, 1] as a percentage; what is not quite all or nothing says so."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return UNKNOWN
    percent = 100 * value
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %" if 0 < percent < 100 else f"{percent:.0f} %"


def format_state(state: str) -> str:
    """Format a state's or another name as words."""
    return state.replace("_", " ")


def format_done(state: str) -> str:
    """Format a state as what was done: here a success is told from what was only reused."""
    return "computed" if state == "succeeded" else format_state(state)


def format_step(step: str) -> str:
    """Format a step's name without the family that it belongs to."""
    return step.rpartition(".")[2]


def format_facts(facts: Mapping[str, Any]) -> str:
    """Format small facts as "name value" pairs, nothing that is empty."""
    pairs = []
    for name, value in facts.items():
        if value is None or value in ("", [], {}):
            continue
        shown = format_number(value) if isinstance(value, float) else format_value(value)
        short = shown if len(shown) <= _LONGEST_FACT else f"{shown[:_LONGEST_FACT]}…"
        pairs.append(f"{format_state(name)} {short}")
    return ", ".join(pairs)


def format_value(value: object) -> str:
    """Format any JSON value: texts as they are, lists one item after the other."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: UNKNOWN}[value]
    if isinstance(value, int | float):
        return format_number(value) if isinstance(value, int) else f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(format_value(item) for item in value) or UNKNOWN
    if isinstance(value, dict) and not value:
        return UNKNOWN
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
