"""The ledger of a staging: one line a file that lies at its permanent place, verified.

A line is durable before its file counts as staged, and only one process holds the ledger.  A kill
between a copy and its line leaves a copy without a line, which the next staging finds to be the
same file and enters.  A line that a kill has torn is cut off.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from muster.errors import InvalidInput, Transient
from muster.frozen import Frozen
from muster.storage import explain_os_error, os_errors_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

log = logging.getLogger(__name__)

FOLDER = ".staging"
"""Hidden folder in a campaign's folder that keeps the ledgers."""
MOST_BYTES = 1 << 30
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Opened(Frozen):
    """First line: where the files go."""

    kind: Literal["opened"] = "opened"
    destination: str


class StagedFile(Frozen):
    """A file that lies at its permanent place.

    Attributes
    ----------
    name : str
        Relative to the campaign's folder.
    sha256 : str
        Of the copy.
    bytes : int
        Size.
    version : str
        Size and time of change of the working copy, by which a later change is seen.
    """

    kind: Literal["staged"] = "staged"
    name: str
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]
    version: str


class Intended(Frozen):
    """A file that is about to take the place of its older copy."""

    kind: Literal["intended"] = "intended"
    name: str
    sha256: Sha256


class Completed(Frozen):
    """All files of the campaign were at their place."""

    kind: Literal["completed"] = "completed"
    at: AwareDatetime
    files: int


Line = Annotated[Opened | StagedFile | Intended | Completed, Field(discriminator="kind")]
_LINE: TypeAdapter[Opened | StagedFile | Intended | Completed] = TypeAdapter(Line)


class Ledger:
    """The ledger of one campaign and one destination, held by this process.

    Parameters
    ----------
    folder : Path
        The campaign's folder.
    destination : str
        Where its files go.

    Raises
    ------
    Transient
        When another process holds it.
    InvalidInput
        When it is not a ledger.
    """

    def __init__(self, folder: Path, destination: str) -> None:
        self.path = ledger_path(folder, destination)
        self.files: dict[str, StagedFile] = {}
        self.intended: dict[str, set[str]] = {}
        self.completed_at: datetime | None = None
        self._writing = threading.Lock()
        with os_errors_at(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            hold_alone(self._descriptor, self.path, "staging this campaign")
            self._load(destination)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the ledger."""
        os.close(self._descriptor)

    def is_ours(self, name: str, sha256: str) -> bool:
        """Tell whether this ledger has put, or was about to put, such a copy at its place."""
        staged = self.files.get(name)
        return sha256 in self.intended.get(name, ()) or (
            staged is not None and staged.sha256 == sha256
        )

    def enter(self, line: StagedFile | Intended | Completed) -> None:
        """Add a line durably; any thread may."""
        text = line.model_dump_json() + "\n"
        with self._writing, os_errors_at(self.path):
            _write_all(self._descriptor, text.encode())
            os.fdatasync(self._descriptor)
            self._take(line)

    def complete(self) -> None:
        """Add the line that all files are at their place."""
        self.enter(Completed(at=datetime.now(UTC), files=len(self.files)))

    def _load(self, destination: str) -> None:
        content = read_whole_lines(self.path)
        with os_errors_at(self.path):
            if os.fstat(self._descriptor).st_size > len(content):
                os.ftruncate(self._descriptor, len(content))
        for line in parse_lines(content, self.path):
            self._take(line)
        if not content:
            with os_errors_at(self.path):
                opened = Opened(destination=destination).model_dump_json() + "\n"
                _write_all(self._descriptor, opened.encode())
                os.fsync(self._descriptor)

    def _take(self, line: Opened | StagedFile | Intended | Completed) -> None:
        if isinstance(line, StagedFile):
            self.files[line.name] = line
            self.intended.pop(line.name, None)
        elif isinstance(line, Intended):
            self.intended.setdefault(line.name, set()).add(line.sha256)
        elif isinstance(line, Completed):
            self.completed_at = line.at


def hold_alone(descriptor: int, path: Path, doing: str) -> None:
    """Lock an open file for this process alone, until it is closed.

    Raises
    ------
    Transient
        When another process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Transient(f"another process is {doing}", where=path, do="wait for its end") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise explain_os_error(error, path) from error
        log.warning("%s: this file system has no locks; start one process at a time", path)


def ledger_path(folder: Path, destination: str) -> Path:
    """Return where the ledger of a destination lies in a campaign's folder."""
    return folder / FOLDER / f"{name_of_destination(destination)}.jsonl"


def name_of_destination(destination: str) -> str:
    """Return what a campaign's folder calls a destination in the names of files."""
    return hashlib.sha256(destination.encode()).hexdigest()[:12]


def read_whole_lines(path: Path) -> bytes:
    """Read a ledger without the line that a kill may have torn.

    Raises
    ------
    InvalidInput
        When it is too large for a ledger.
    """
    with os_errors_at(path):
        if path.stat().st_size > MOST_BYTES:
            raise InvalidInput(
                "too large for a ledger",
                where=path,
                expected=f"≤ {MOST_BYTES} B",
                do="move the ledger away: what was staged is found and entered again",
            )
        content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def parse_lines(content: bytes, where: object) -> list[Opened | StagedFile | Intended | Completed]:
    """Parse the lines of a ledger.

    Raises
    ------
    InvalidInput
        At the first that is none.
    """
    lines = []
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            lines.append(_LINE.validate_json(text))
        except ValidationError as error:
            raise InvalidInput(
                "not a line of a ledger",
                where=f"{where}, line {number}",
                got=error.errors(include_url=False)[0]["msg"],
                do="move the ledger away: what was staged is found and entered again",
            ) from None
    return lines


@dataclass(frozen=True)
class CompletedStaging:
    """A staging that was complete.

    Attributes
    ----------
    destination : str
        The staged tree.
    files : dict of str to StagedFile
        By name.
    at : datetime
        When it was completed last, UTC.
    """

    destination: str
    files: dict[str, StagedFile]
    at: datetime


def read_completed(folder: Path) -> CompletedStaging | None:
    """Read the staging of a campaign's folder that was completed last; None where none was."""
    newest: CompletedStaging | None = None
    for lines in _read_ledgers(folder):
        ends = [line.at.astimezone(UTC) for line in lines if isinstance(line, Completed)]
        if ends and (newest is None or ends[-1] > newest.at):
            newest = CompletedStaging(*_state_copies(lines), at=ends[-1])
    return newest


def read_copies(folder: Path) -> list[tuple[str, dict[str, StagedFile]]]:
    """Read what a campaign's stagings have copied, complete or not: staged tree, files by name."""
    return [_state_copies(lines) for lines in _read_ledgers(folder)]


def _read_ledgers(folder: Path) -> Iterator[list[Opened | StagedFile | Intended | Completed]]:
    for path in sorted((folder / FOLDER).glob("*.jsonl")):
        lines = parse_lines(read_whole_lines(path), path)
        if any(isinstance(line, Opened) for line in lines):
            yield lines


def _state_copies(
    lines: Iterable[Opened | StagedFile | Intended | Completed],
) -> tuple[str, dict[str, StagedFile]]:
    where = [line.destination for line in lines if isinstance(line, Opened)]
    return where[0], {line.name: line for line in lines if isinstance(line, StagedFile)}


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
