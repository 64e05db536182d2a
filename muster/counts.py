"""Numbers of things in messages: one word where there is one of them, another where not."""

from __future__ import annotations


def count_of(number: int, one: str, more: str = "") -> str:
    """State a number of things: 1 job, 4,000 jobs, 2 batches."""
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"
