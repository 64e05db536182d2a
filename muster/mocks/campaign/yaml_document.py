"""A YAML file as plain data that remembers the line of every key.

The file is untrusted: size and depth are bounded, tags, anchors and merge keys are refused, and a
plain scalar means what YAML 1.2's core schema says, as editors and the JSON Schema take it.  ``no``
is a text, ``1e10`` a number, ``12:00:00`` a text, and ``010``, which some read as 8, is refused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from muster import storage
from muster.config import ConfigProblem
from muster.errors import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MOST_BYTES = 256 * 1024
"""A campaign file that says each realization by number has some ten thousand bytes."""

MOST_DEPTH = 20
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]")
_LONGEST_TAG = 80
MOST_PROBLEMS = 50

Path_ = tuple[str, ...]
_STR = "tag:yaml.org,2002:str"
_NULL, _BOOL = "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader that takes plain scalars as YAML 1.2's core schema does."""

    yaml_implicit_resolvers: dict[Any, Any] = {}


for _tag, _pattern, _first in (
    (_NULL, r"~|null|Null|NULL|", [*"~nN", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9]+", list("-+0123456789")),
    (
        _FLOAT,
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
):
    _CoreLoader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


CORE_STR = _STR


def resolve_plain(text: str) -> str:
    """Return the tag that a plain scalar has by the core schema."""
    tag: str = _CoreLoader("").resolve(  # type: ignore[no-untyped-call]
        yaml.ScalarNode, text, (True, False)
    )
    return tag


@dataclass(frozen=True)
class Document:
    """A YAML file that was read.

    Attributes
    ----------
    data : dict
        Plain data.
    lines : dict
        Path of keys → line, from 1; items of a list by their position.
    problems : tuple of ConfigProblem
        What is wrong with the YAML itself; a duplicate key's first value counts.
    unreadable : frozenset
        Paths of values that nothing was made of, a problem each.
    """

    data: dict[str, Any]
    lines: dict[Path_, int] = field(default_factory=dict)
    problems: tuple[ConfigProblem, ...] = ()
    unreadable: frozenset[Path_] = frozenset()

    def line_of(self, path: Iterable[str]) -> int | None:
        """Return the line of a key, or else of the nearest key above it."""
        where = self.existing(path)
        return self.lines.get(where) if where else None

    def existing(self, path: Iterable[str]) -> Path_:
        """Return as much of a path as the file has."""
        where = tuple(path)
        while where and where not in self.lines:
            where = where[:-1]
        return where

    def stated(self, path: Iterable[str]) -> Path_ | None:
        """Return where a value is stated: at its path, or by a value that stands for a mapping.

        ``compression: gzip`` states compression.filter.  None where the file does not state it.
        """
        wanted = tuple(path)
        found = self.existing(wanted)
        if found == wanted:
            return found
        value: Any = self.data
        for part in found:
            value = value[int(part)] if isinstance(value, list) else value[part]
        return None if isinstance(value, dict) or not found else found


@dataclass
class _Reader:
    """Makes plain data from nodes, and collects what is wrong on the way."""

    as_text: frozenset[Path_]
    lines: dict[Path_, int] = field(default_factory=dict)
    problems: list[ConfigProblem] = field(default_factory=list)
    unreadable: set[Path_] = field(default_factory=set)

    def spoil(self, path: Path_, node: yaml.Node, message: str) -> None:
        """Note a value that nothing is made of."""
        self.unreadable.add(path)
        self.refuse(path, node, message)

    def refuse(self, path: Path_, node: yaml.Node, message: str) -> None:
        """Note a problem."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(ConfigProblem(path, "wrong", message))

    def build(self, node: yaml.Node, path: Path_) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*path, str(i))) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, path)

    def _item(self, node: yaml.Node, path: Path_) -> Any:
        self.lines[path] = node.start_mark.line + 1
        return self.build(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag != _STR:
                written = getattr(key_node, "value", "")
                shown = repr(written) if isinstance(written, str) else "a list or mapping"
                self.refuse((*path, f"line {line}"), key_node, f"a key should be a text: {shown}")
                continue
            key = key_node.value
            if key == "<<" and key_node.style is None:
                self.refuse((*path, key), key_node, "merge keys are not taken: write the keys out")
                continue
            if key in data:
                first = self.lines[*path, key]
                twice = f"given twice, first in line {first}; and again in line {line}"
                self.refuse((*path, key), key_node, twice)
                continue
            self.lines[*path, key] = line
            data[key] = self.build(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.ScalarNode, path: Path_) -> Any:
        text, tag = str(node.value), node.tag
        wanted = tuple("*" if part.isdigit() else part for part in path)
        if tag == _STR or (tag in (_INT, _FLOAT) and wanted in self.as_text):
            return text
        if tag == _NULL:
            return None
        if tag == _BOOL and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if tag in (_INT, _FLOAT) and _LEADING_ZERO.match(text):
            shown = shorten(text, 20)
            self.spoil(path, node, f"a number is written without leading zeros: {shown}")
            return None
        try:
            if tag == _INT:
                # Python refuses to parse numbers of thousands of digits.
                return int(text)
            if tag == _FLOAT:
                number = float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
                return self._finite(number, path, node)
        except ValueError:
            self.spoil(path, node, "no number that can be taken")
            return None
        self.spoil(path, node, f"the tag {tag} is not taken")
        return text

    def _finite(self, number: float, path: Path_, node: yaml.Node) -> float | None:
        if math.isfinite(number):
            return number
        self.spoil(path, node, "NaN, infinities and numbers too large for a double are no values")
        return None


def read_document(path: Path, as_text: Iterable[Path_] = ()) -> Document:
    """Read a YAML file.

    Parameters
    ----------
    path : Path
        The file.
    as_text : iterable of tuple of str
        Paths of values that are texts although they look like numbers, as ``version: 1.10``; "*"
        stands for each item of a list.

    Raises
    ------
    MissingInput
        When there is no such file.
    InvalidInput
        When it is no regular file.
    """
    size = storage.stat(str(path)).bytes
    if size > MOST_BYTES:
        return _unreadable(f"the file has {size} bytes; at most {MOST_BYTES} are read")
    return parse_document(storage.read_bytes(str(path)), as_text)


def parse_document(content: bytes | str, as_text: Iterable[Path_] = ()) -> Document:
    """Parse the text of a YAML file, as :func:`read_document` does."""
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        return _unreadable(f"the file is no text in UTF-8: byte {error.start}")
    try:
        refused = _check_events(text)
        node = None if refused else yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return _unreadable(_explain(error, text), mark.line + 1 if mark else None)
    except yaml.YAMLError as error:  # a character that no YAML holds
        return _unreadable(f"not a YAML file: {str(error).splitlines()[0]}")
    if refused:
        return refused
    if not isinstance(node, yaml.MappingNode):
        found = "is empty" if node is None else "holds no keys at its top"
        return _unreadable(f"the file {found}")
    reader = _Reader(frozenset(as_text))
    data = reader.build(node, ())
    problems, unreadable = tuple(reader.problems), frozenset(reader.unreadable)
    return Document(data, reader.lines, problems, unreadable)


def _check_events(text: str) -> Document | None:
    """Refuse anchors and nesting before nodes are made of them, which is recursive."""
    depth = 0
    for event in yaml.parse(text, Loader=_CoreLoader):
        line = event.start_mark.line + 1 if event.start_mark else None
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            return _unreadable("anchors and aliases are not taken: write the value out", line)
        tag = getattr(event, "tag", None)
        if tag is not None:
            return _unreadable(_refuse_tag(tag), line)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MOST_DEPTH:
                return _unreadable(f"nested deeper than {MOST_DEPTH}", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


def _refuse_tag(tag: str) -> str:
    shown = tag.replace("tag:yaml.org,2002:", "!!")
    return f"tags are refused: {shown[:_LONGEST_TAG]}; write the value alone"


def _explain(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    lines = text.splitlines()
    if str(error.problem).startswith("found undefined tag handle"):
        assert mark is not None
        return _refuse_tag(lines[mark.line][mark.column :].split(maxsplit=1)[0])
    if mark is not None and mark.line < len(lines):
        line = lines[mark.line]
        if "\t" in line[: len(line) - len(line.lstrip())]:
            return "not a YAML file: a tab indents, where YAML takes blanks alone"
    if "single document" in str(error.context):
        return "the file holds several documents; a campaign is one"
    context = f"{error.context}, " if error.context else ""
    return f"not a YAML file: {context}{error.problem}"


def _unreadable(message: str, line: int | None = None) -> Document:
    lines: dict[Path_, int] = {} if line is None else {(f"line {line}",): line}
    path: Path_ = () if line is None else (f"line {line}",)
    return Document({}, lines, (ConfigProblem(path, "wrong", message),))
