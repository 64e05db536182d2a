"""What comes back from a cluster is written here: logs grow in place, all else appears whole.

What is here says what is known: a file carries the time that it has over there, and a log's size
is how much of it has come.  So nothing is remembered, and whoever begins anew goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from muster.backends.remote.mirror_paths import WorkPaths, is_translated
from muster.errors import InvalidInput, MissingInput, SoftwareError
from muster.model.attempt import Result
from muster.model.fence import read_batch_file
from muster.storage import PART_SUFFIX, local_path, temporary_sibling
from muster.storage.files import os_errors_at

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = "results"
SHOWN = (RESULTS, "progress", "logs")
"""Folders of a batch that its jobs write to, beside the scheduler's own."""


@dataclass
class Arrivals:
    """Says what is known of batches' folders, and takes what is new.

    Attributes
    ----------
    paths : WorkPaths
        The work directory's two names.
    folders : sequence of str
        The batches' folders, on this side.
    scheduler : str
        Name of a batch's folder that the scheduler's own files lie in.
    """

    paths: WorkPaths
    folders: Sequence[str]
    scheduler: str
    _outputs: list[list[Path]] = field(default_factory=list)
    _unsound: set[tuple[int, str]] = field(default_factory=set)

    @property
    def unsound(self) -> set[int]:
        """Folders with a log that was another one than is known, so that it has to come anew."""
        return {number for number, _ in self._unsound}

    def describe(self) -> list[dict[str, Any]]:
        """Describe what is known, for the program on the login node."""
        self._outputs = []
        self._unsound.clear()
        return [self._describe(folder) for folder in self.folders]

    def take_all(self, pieces: Sequence[tuple[dict[str, Any], bytes]]) -> None:
        """Write pieces of files that have come, in their order."""
        for header, data in pieces:
            self.take(header, data)

    def take(self, header: dict[str, Any], data: bytes) -> None:
        """Write a piece of a file that has come."""
        number = header["f"]
        if "o" in header:
            target = self._outputs[number][header["o"]]
            self._take_whole(header, data, target, is_result=False)
            return
        name = header["p"]
        target = Path(self.folders[number], _check_name(name, (*SHOWN, self.scheduler)))
        if name.startswith(("logs/", f"{self.scheduler}/")):
            if (number, name) not in self._unsound and not _append(header, data, target):
                self._unsound.add((number, name))
        elif not name.startswith(RESULTS):
            self._take_whole(header, data, target, is_result=False)
        elif (number, _log_of(name, data)) not in self._unsound:
            self._take_whole(header, data, target, is_result=True)

    def _describe(self, folder: str) -> dict[str, Any]:
        known: dict[str, tuple[int | None, int]] = {}
        for shown in (*SHOWN, self.scheduler):
            for top, _, names in os.walk(Path(folder, shown)):
                for name in names:
                    path = Path(top, name)
                    if name.startswith("."):
                        continue
                    size, changed = _state(path)
                    # what was translated has another size here than there
                    known[str(path.relative_to(folder))] = (
                        None if shown == RESULTS else size,
                        changed,
                    )
        outputs = _outputs_of(Path(folder), self.paths)
        self._outputs.append([path for _, path in outputs])
        return {
            "path": self.paths.to_there(folder),
            "known": known,
            "outputs": [self._describe_output(index, path) for index, path in outputs],
        }

    def _describe_output(self, index: int, path: Path) -> dict[str, Any]:
        said: dict[str, Any] = {"index": index, "path": self.paths.to_there(str(path))}
        said |= {"have": 0, "known": None, "parts": {}}
        if path.is_file():
            size, changed = _state(path)
            said["known"] = (None if is_translated(path.name) else size, changed)
        with contextlib.suppress(FileNotFoundError):
            start = _start_of_parts(path)
            for name in _names(path.parent):
                if name.startswith(start):
                    version = name.removeprefix(start).removesuffix(PART_SUFFIX)
                    said["parts"][version] = path.with_name(name).stat().st_size
        return said

    def _take_whole(
        self, header: dict[str, Any], data: bytes, target: Path, *, is_result: bool
    ) -> None:
        """Gather a file's pieces under a hidden name, and rename it when it is whole."""
        size, at = header["s"], header["at"]
        with os_errors_at(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"{_start_of_parts(target)}{size}-{header['m']}{PART_SUFFIX}")
            if len(data) < size:
                _write_at(part, data, at)
                if at + len(data) < size:
                    return
            if len(data) == size or is_result or is_translated(target.name):
                content = data if len(data) == size else part.read_bytes()
                if is_result or is_translated(target.name):
                    content = self._translate(content, is_result)
                whole = temporary_sibling(target)
                whole.write_bytes(content)
            else:
                whole = part
            if not header.get("p", "").startswith("progress/"):
                _sync(whole)
            os.utime(whole, ns=(header["m"], header["m"]))
            whole.replace(target)
            if len(data) < size:
                part.unlink(missing_ok=True)

    def _translate(self, data: bytes, is_result: bool) -> bytes:
        try:
            translated = self.paths.translate_to_here(data)
            return _name_what_is_here(translated) if is_result else translated
        except ValueError:
            return data  # whoever reads it says what is wrong with it


def _log_of(name: str, data: bytes) -> str | None:
    """Name the log of a result, as its name or the result itself says."""
    place = name[len(RESULTS) + 1 : -len(".json")]
    if "/" in place:
        return f"logs/{place}.log"
    try:
        said = Result.model_validate_json(data).log
    except ValidationError:  # a piece of it: its last one completes it, or nobody believes it
        return None
    return None if said is None else said.name


def _name_what_is_here(data: bytes) -> bytes:
    """Give a result the size and sha256 of those artifacts that were translated on their way."""
    try:
        result = Result.model_validate_json(data)
    except ValidationError:
        return data
    told = []
    for artifact in result.artifacts:
        path = local_path(artifact.uri)
        if path is not None and is_translated(path.name) and path.is_file():
            content = path.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            artifact = artifact.model_copy(update={"sha256": sha256, "bytes": len(content)})
        told.append(artifact)
    changed = result.model_copy(update={"artifacts": tuple(told)})
    return data if changed == result else changed.model_dump_json().encode()


def _outputs_of(folder: Path, paths: WorkPaths) -> list[tuple[int, Path]]:
    """List the outputs of a folder's batches that lie in the work directory."""
    found: dict[tuple[int, Path], None] = {}
    for name in _names(folder):
        if name.startswith("batch-") and name.endswith(".json"):
            with contextlib.suppress(MissingInput, InvalidInput):
                for index, path in _outputs_in(folder / name):
                    if _is_inside(path, paths):
                        found[index, path] = None
    return list(found)


@lru_cache(maxsize=1024)
def _outputs_in(batch_file: Path) -> list[tuple[int, Path]]:
    """List the outputs of a batch that are files; a batch's file never changes."""
    return [
        (element.index, path)
        for element in read_batch_file(str(batch_file)).elements
        for uri in element.outputs.values()
        if (path := local_path(uri)) is not None
    ]


def _is_inside(path: Path, paths: WorkPaths) -> bool:
    try:
        paths.to_there(str(path))
    except InvalidInput:
        return False
    return True


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _state(path: Path) -> tuple[int, int]:
    """Return size and time of change, in microseconds, which all file systems keep."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns // 1000


def _start_of_parts(target: Path) -> str:
    return f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:24]}."


def _check_name(name: str, shown: Sequence[str]) -> str:
    """Refuse a name that leads elsewhere: the other side is not trusted to write where it likes."""
    top, *parts = name.split("/")
    wrong = not parts or any(part in ("", ".", "..") or "\0" in part for part in parts)
    if top not in shown or wrong:
        raise SoftwareError("the login node names a file that nobody asked for", got=repr(name))
    return name


def _append(header: dict[str, Any], data: bytes, target: Path) -> bool:
    """Write a piece of a log where it belongs; False where it does not go on from what is here."""
    at, overlap = header["at"], header["k"]
    with os_errors_at(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            if at > size or os.pread(descriptor, overlap, at) != data[:overlap]:
                os.ftruncate(descriptor, 0)
                return False
            if at == 0 and size > overlap:
                os.ftruncate(descriptor, overlap)  # it begins anew
            _pwrite(descriptor, data[overlap:], at + overlap)
            if at + len(data) == header["s"]:
                os.utime(descriptor, ns=(header["m"], header["m"]))
        finally:
            os.close(descriptor)
    return True


def _write_at(path: Path, data: bytes, at: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _pwrite(descriptor, data, at)
    finally:
        os.close(descriptor)


def _pwrite(descriptor: int, data: bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
