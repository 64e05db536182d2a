"""Lists of completion indexes as a Job's status writes them: "1,3-5,7"."""

from __future__ import annotations


def parse_indexes(text: str) -> set[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def format_indexes(indexes: set[int]) -> str:
    """Write them in order; three or more in a row as first-last."""
    rows: list[list[int]] = []
    for index in sorted(indexes):
        if rows and rows[-1][-1] == index - 1:
            rows[-1].append(index)
        else:
            rows.append([index])
    words = []
    for row in rows:
        words += [f"{row[0]}-{row[-1]}"] if len(row) > 2 else [str(index) for index in row]
    return ",".join(words)
