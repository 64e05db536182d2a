"""An HTML document taken apart: whether it is whole, what it says, and what it points to."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "input", "hr"}


@dataclass
class Document:
    """What a document holds."""

    text: str = ""
    tags: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    points_to: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def row(self, *starts: str) -> list[str]:
        """The one row of a table whose cells start with these texts."""
        found = [
            row
            for row in self.rows
            if len(row) >= len(starts)
            and all(cell.startswith(start) for cell, start in zip(row, starts, strict=False))
        ]
        assert len(found) == 1, (starts, self.rows)
        return found[0]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.document = Document()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.document.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{name} in {tag}"
            if name == "id":
                self.document.ids.append(value or "")
            if name in ("href", "src", "srcset", "action"):
                self.document.points_to.append(value or "")
        if tag == "tr":
            self.document.rows.append([])
        if tag in ("td", "th"):
            self.document.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> where {self.open} is open"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.document.text += data
        if {"td", "th"} & set(self.open):
            cells = self.document.rows[-1]
            cells[-1] = f"{cells[-1]} {data.strip()}".strip()


def parse_document(html: str) -> Document:
    """Take a document apart; every element must be closed where it was opened."""
    assert html.startswith("<!DOCTYPE html>")
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert not parser.open, parser.open
    document = parser.document
    assert len(document.ids) == len(set(document.ids))
    document.text = " ".join(document.text.split())
    return document
