"""Paths of a work directory that is another one on the cluster, and JSON that holds such paths.

A batch is frozen with paths of this side, and a job reads paths of its own; what comes back (a
result, a plan) names the job's and is read here.  So these few files are translated on their way:
each string that is, as a whole, a path below the one work directory becomes the same path below
the other.  Nothing else is touched: an input that only the cluster has keeps its name, and so does
a path in the middle of a sentence.
"""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from muster.errors import InvalidInput

_FILE = "file://"
_TRANSLATED = re.compile(r"batch-[^/]*\.json|plan\.json")


def is_translated(name: str) -> bool:
    """Say whether a file of this name holds paths that jobs and this side both read."""
    return _TRANSLATED.fullmatch(name) is not None


@dataclass(frozen=True)
class WorkPaths:
    """A work directory's two names.

    Attributes
    ----------
    here, there : str
        Absolute path on this side, and on the cluster.
    """

    here: str
    there: str

    def __post_init__(self) -> None:
        for side in ("here", "there"):
            path = getattr(self, side)
            if not path.startswith("/"):
                raise InvalidInput("a work directory must be an absolute path", got=path)
            object.__setattr__(self, side, posixpath.normpath(path))

    def to_there(self, path: str) -> str:
        """Return the path on the cluster of a path on this side.

        Raises
        ------
        InvalidInput
            When it does not lie in the work directory, and so does not travel.
        """
        moved = _move(path, self.here, self.there)
        if moved is None:
            raise InvalidInput(
                "does not lie in the work directory", where=path, expected=f"{self.here}/…"
            )
        return moved

    def translate_to_there(self, data: bytes) -> bytes:
        """Translate the JSON of this side for a job.

        Raises
        ------
        ValueError
            When it is not JSON.
        """
        return _translate(data, self.here, self.there)

    def translate_to_here(self, data: bytes) -> bytes:
        """Translate the JSON of a job for this side.

        Raises
        ------
        ValueError
            When it is not JSON.
        """
        return _translate(data, self.there, self.here)


def _translate(data: bytes, source: str, target: str) -> bytes:
    """Translate JSON; what holds no such path stays as it is, byte for byte."""
    value = json.loads(data)
    moved = _move_all(value, source, target)
    return data if moved == value else json.dumps(moved, indent=1).encode()


def _move_all(value: Any, source: str, target: str) -> Any:
    if isinstance(value, str):
        moved = _move(value, source, target)
        return value if moved is None else moved
    if isinstance(value, list):
        return [_move_all(item, source, target) for item in value]
    if isinstance(value, dict):
        return {name: _move_all(item, source, target) for name, item in value.items()}
    return value


def _move(text: str, source: str, target: str) -> str | None:
    if text.startswith(f"{_FILE}/"):
        moved = _move(unquote(text.removeprefix(_FILE)), source, target)
        return None if moved is None else _FILE + quote(moved)
    inside = source.rstrip("/") + "/"
    is_below = text.startswith(inside) and (posixpath.normpath(text) + "/").startswith(inside)
    if not is_below and text != source:
        return None
    return target.rstrip("/") + text[len(inside) - 1 :] if text != source else target
