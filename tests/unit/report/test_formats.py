"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from muster.counts import count_of
from muster.report.formats import (
    format_bytes,
    format_facts,
    format_hours,
    format_iso,
    format_mib,
    format_number,
    format_seconds,
    format_share,
    format_value,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.61234, "0.612"), (12.345, "12.3"), (-0.05, "-0.0500"), (1234.5, "1\u202f234"),
        (19200, "19\u202f200"), (7, "7"), (0.0, "0"), (1e-7, "1e-07"), (3.2e12, "3.2e+12"),
        (math.nan, "–"), (None, "–"), (True, "–"), ("7", "–"),
    ],
)  # fmt: skip
def test_numbers(value: object, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (9.96, "10 s"), (59.7, "1 min"), (61, "1 min 1 s"),
     (3600, "1 h"), (3725, "1 h 2 min"), (90000, "1 d 1 h"), (None, "–")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.876, "87.6 %"), (0.0, "0 %"), (1, "100 %"), (0.99999, "> 99.9 %"),
     (0.00001, "< 0.1 %"), (None, "–")],
)  # fmt: skip
def test_a_share_is_never_all_or_nothing_by_rounding(share: object, text: str) -> None:
    assert format_share(share) == text


def test_no_size_reads_as_nothing() -> None:
    sizes = (1, 1023, 2048, 3 << 20, 5 << 30)
    assert [format_bytes(s) for s in sizes] == ["1 B", "1023 B", "2 KiB", "3 MiB", "5 GiB"]


def test_what_is_one_is_not_told_as_several() -> None:
    told = [count_of(1, "job"), count_of(4000, "job"), count_of(0, "box", "boxes")]
    assert told == ["1 job", "4,000 jobs", "0 boxes"]


def test_sizes_hours_times_and_json() -> None:
    assert [format_mib(m) for m in (None, 512.4, 2048, 1536)] == [
        "–",
        "512 MiB",
        "2 GiB",
        "1.5 GiB",
    ]
    assert [format_hours(h) for h in (0.0, 0.004, 0.25)] == ["0", "< 0.01", "0.250"]
    assert format_iso("2026-03-01T05:00:00+05:00") == "2026-03-01 00:00:00 UTC"
    assert [format_iso(text) for text in ("2026-03-01T05:00:00", "no time")] == ["–", "–"]
    assert format_value([1, "a", True, None]) == "1, a, yes, –"
    assert format_value({"b": 1}) == '{"b": 1}'
    assert format_facts({"a_b": 0.51234, "none": None, "n": 3}) == "a b 0.512, n 3"
