"""The archive of a campaign: one tar a range of realizations, each with an index.

A tar that lies at its place with its index is done, and is never written again: what was made since
goes into a further tar.  Working copies are removed only when the tar was read back whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from muster import storage
from muster.errors import InvalidInput, MissingInput, MusterError, Transient
from muster.mocks.campaign.archive_report import ArchiveReport
from muster.mocks.campaign.facts import CATALOGS, require_campaign
from muster.mocks.campaign.ledger import hold_alone
from muster.mocks.campaign.places import part_elsewhere, record_archive
from muster.mocks.campaign.stage import (
    CHECKSUMS,
    WorkingFile,
    is_immutable,
    list_working_files,
    read_recorded,
)
from muster.mocks.campaign.stage_report import ProblemKind, StageProblem, StageProgress
from muster.mocks.campaign.staged_tree import list_staged, make_destination, place_outside
from muster.mocks.campaign.tar_file import (
    INDEX_SUFFIX,
    Content,
    Member,
    TarIndex,
    TarWriter,
    read_index,
    read_tar,
)
from muster.mocks.campaign.tar_names import label_of, next_tar
from muster.storage import local_path, os_errors_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FOLDER = ".archiving"
"""Hidden folder in a campaign's folder: the lock, and tars on their way to S3."""
PER_TAR = 100


def archive_campaign(
    folder: str,
    destination: str,
    *,
    per_tar: int | None = PER_TAR,
    remove: bool = False,
    workers: int = 1,
    progress: Callable[[StageProgress], None] | None = None,
) -> ArchiveReport:
    """Archive a campaign as DESTINATION/VERSION_NAME_archive/*.tar.

    Parameters
    ----------
    folder : str
        The campaign's folder, on this machine.
    destination : str
        A folder, or ``s3://bucket/prefix``.
    per_tar : int or None
        Realizations a tar; None for one tar of everything.  The record, the logs and the figures
        have a tar of their own where there are several.
    remove : bool
        Remove the working copies of the catalogues whose tar was read back whole.
    workers : int
        How many tars are written at once.
    progress : callable, optional
        Called after each file.

    Raises
    ------
    MissingInput
        When there is no such campaign.
    Transient
        When another process is archiving it, or the destination does not answer.
    """
    root = require_campaign(folder)
    if workers < 1 or (per_tar is not None and per_tar < 1):
        raise InvalidInput(
            "workers and realizations a tar are at least 1",
            got=(workers, per_tar),
            do="give numbers of 1 or more",
        )
    there = place_outside(root, destination, f"{root.name}_archive")
    make_destination(there)
    with _held(root) as scratch:
        list_staged(there)  # which removes what was left half-written
        archiving = _Archiving(root, there, scratch, read_recorded(root), progress)
        archiving.read_indexes()
        archiving.write_tars(per_tar, workers)
        archiving.write_checksums()
        record_archive(root, there, archiving.indexes.values())
        if remove:
            archiving.remove_archived()
        return archiving.report()


@contextlib.contextmanager
def _held(root: Path) -> Iterator[Path]:
    """Hold the campaign for this archiving alone; give an empty scratch folder."""
    scratch = root / FOLDER
    lock = root / f"{FOLDER}.lock"
    with os_errors_at(lock):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        hold_alone(descriptor, lock, "archiving this campaign")
        shutil.rmtree(scratch, ignore_errors=True)
        with os_errors_at(scratch):
            scratch.mkdir(exist_ok=True)
        yield scratch
        shutil.rmtree(scratch, ignore_errors=True)
    finally:
        os.close(descriptor)


@dataclass
class _Archiving:
    """One archiving in progress."""

    root: Path
    there: str
    scratch: Path
    recorded: dict[str, str]
    progress: Callable[[StageProgress], None] | None
    indexes: dict[str, TarIndex] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    versions: set[tuple[str, str]] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    problems: list[StageProblem] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    entered: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    already: int = 0
    elsewhere: int = 0
    removed: int = 0
    removed_bytes: int = 0
    _done: tuple[int, int] = (0, 0)
    _planned: tuple[int, int] = (0, 0)
    _telling: threading.Lock = field(default_factory=threading.Lock)

    def read_indexes(self) -> None:
        """Learn what is archived: tars at their place, of the size that their index states."""
        self.names = set(storage.list(self.there))
        for name in sorted(self.names):
            if not name.endswith(INDEX_SUFFIX):
                continue
            try:
                index = read_index(storage.join(self.there, name))
                size = storage.stat(storage.join(self.there, index.tar)).bytes
                if size != index.bytes:
                    raise storage.ContentMismatch(
                        "not the size that its index states",
                        got=size,
                        expected=index.bytes,
                        do="move the tar and its index away, and archive again",
                    )
            except MusterError as error:
                self._fail(name.removesuffix(INDEX_SUFFIX), "changed", str(error))
            else:
                self._take(index)

    def write_tars(self, per_tar: int | None, workers: int) -> None:
        """Write what is not archived yet, a tar a range of realizations."""
        files, problems = list_working_files(self.root)
        self.problems += problems
        here = {file.name for file in files}
        absent = {
            name: sha256
            for name, sha256 in self.recorded.items()
            if name not in here and name not in self.members
        }
        elsewhere, missing = part_elsewhere(self.root, absent)
        self.elsewhere = len(elsewhere)
        for name in missing:
            self._fail(name, "missing", "in the manifest, and neither in the folder nor staged")
        pending: dict[str, list[WorkingFile]] = defaultdict(list)
        for file in files:
            if self._is_archived(file):
                self.already += 1
            else:
                pending[label_of(file.name, per_tar)].append(file)
        self._planned = (
            sum(map(len, pending.values())),
            sum(file.bytes for group in pending.values() for file in group),
        )
        with ThreadPoolExecutor(workers, "archive") as pool:
            for done in [pool.submit(self._archive, *item) for item in sorted(pending.items())]:
                done.result()

    def write_checksums(self) -> None:
        """Write the checksums of the tars, as ``sha256sum --check`` reads them."""
        lines = [f"{self.indexes[tar].sha256}  {tar}\n" for tar in sorted(self.indexes)]
        storage.write_text(storage.join(self.there, CHECKSUMS), "".join(lines))

    def remove_archived(self) -> None:
        """Remove working copies of catalogues, tar by tar, when the tar was read back whole."""
        files, _ = list_working_files(self.root)
        here = {f.name: f for f in files if f.name.startswith(f"{CATALOGS}/")}
        for tar, index in sorted(self.indexes.items()):
            archived = [
                m.name
                for m in index.members
                if m.name in here
                and self.members[m.name] == m
                and (here[m.name].version == m.version or self._is_same(m))
            ]
            if not archived:
                continue
            try:
                found = storage.sha256(storage.join(self.there, tar))
            except MusterError as error:
                self._fail(tar, "failed", str(error))
                continue
            if found != index.sha256:
                self._fail(tar, "changed", f"not what its index states; got: {found}")
                continue
            storage.delete_below(str(self.root), archived)
            self.removed += len(archived)
            self.removed_bytes += sum(here[name].bytes for name in archived)
        archived_below = {n.split("/")[1] for n in self.members if n.startswith(f"{CATALOGS}/")}
        for realization in sorted(archived_below):
            storage.prune(str(self.root / CATALOGS), realization)

    def report(self) -> ArchiveReport:
        """Sum up."""
        return ArchiveReport(
            destination=self.there,
            written=tuple(sorted(self.written)),
            entered=tuple(sorted(self.entered)),
            files=self.files,
            bytes=self.bytes,
            already=self.already,
            elsewhere=self.elsewhere,
            removed=self.removed,
            removed_bytes=self.removed_bytes,
            problems=tuple(sorted(self.problems, key=lambda p: (p.name, p.kind))),
        )

    def _take(self, index: TarIndex) -> None:
        self.indexes[index.tar] = index
        for member in index.members:
            self.members[member.name] = member
            self.versions.add((member.name, member.version))

    def _fail(self, name: str, kind: ProblemKind, message: str) -> None:
        self.problems.append(StageProblem(name, kind, message))

    def _is_archived(self, file: WorkingFile) -> bool:
        if (file.name, file.version) in self.versions:
            return True
        member = self.members.get(file.name)
        if member is None or not is_immutable(file.name):
            return False
        if not self._is_same(member):
            self._fail(file.name, "changed", "changed since it was archived")
        return True

    def _is_same(self, member: Member) -> bool:
        return storage.sha256(str(self.root / member.name)) == member.sha256

    def _archive(self, label: str, files: list[WorkingFile]) -> None:
        """Write the next tar of a range; a tar there that nobody has indexed is taken up first."""
        try:
            names = set(self.names)
            while files and (tar := next_tar(self.root.name, label, names)) in names:
                files = self._enter_tar(tar, files)
                names.add(tar + INDEX_SUFFIX)
            if files:
                self._write_tar(tar, files)
        except MusterError as error:
            kind: ProblemKind = "occupied" if isinstance(error, storage.Occupied) else "failed"
            self._fail(f"{self.root.name}_{label}", kind, str(error))

    def _enter_tar(self, tar: str, files: list[WorkingFile]) -> list[WorkingFile]:
        """Index a whole tar of ours that has no index; return the files that it does not hold."""
        uri = storage.join(self.there, tar)
        path = local_path(uri)
        fetched = path is None
        if path is None:
            path = self.scratch / tar
            storage.fetch(uri, path)
        try:
            put, contents = read_tar(path)
        except InvalidInput as error:
            raise storage.Occupied(
                "no tar of ours lies there",
                where=uri,
                got=error,
                do="move it away, or choose another destination",
            ) from error
        finally:
            if fetched:
                path.unlink(missing_ok=True)
        by_name = {file.name: file for file in files}
        members = []
        for content in contents:
            file = by_name.pop(content.name.removeprefix(f"{self.root.name}/"), None)
            if file is None or storage.sha256(str(self.root / file.name)) != content.sha256:
                raise storage.Occupied(
                    "another tar lies there",
                    where=uri,
                    got=content.name,
                    do="move it away, or choose another destination",
                )
            members.append(_member(file, content))
        if not members:
            raise storage.Occupied(
                "another tar lies there",
                where=uri,
                got="nothing in it",
                do="move it away, or choose another destination",
            )
        self._publish_index(
            TarIndex(tar=tar, sha256=put.sha256, bytes=put.bytes, members=tuple(members))
        )
        self.entered.append(tar)
        return list(by_name.values())

    def _write_tar(self, tar: str, files: list[WorkingFile]) -> None:
        uri = storage.join(self.there, tar)
        is_local = local_path(uri) is not None
        staged = storage.stage(uri, self.scratch)
        try:
            members, made = self._fill(staged.path, files)
            if not members:
                return
            if is_local:
                put = staged.publish(lambda: _refuse_existing(uri))  # which reads it back
                if put != made:
                    storage.delete(uri)  # without its index it counts for nothing
                    raise Transient(
                        "the tar differs from what was written",
                        where=uri,
                        do="archive again; if it recurs, check the file system of the destination",
                    )
            else:
                storage.deposit(uri, staged.path, sha256=made.sha256)
        finally:
            staged.discard()
        self._publish_index(
            TarIndex(tar=tar, sha256=made.sha256, bytes=made.bytes, members=tuple(members))
        )
        self.written.append(tar)
        self.files += len(members)
        self.bytes += sum(member.bytes for member in members)

    def _fill(self, path: Path, files: list[WorkingFile]) -> tuple[list[Member], storage.Published]:
        members = []
        writer = TarWriter(path)
        try:
            for file in files:
                source, inside = self.root / file.name, f"{self.root.name}/{file.name}"
                try:
                    content = writer.add(source, inside, self.recorded.get(file.name))
                except MissingInput:
                    self._fail(file.name, "missing", "it was there when the campaign was listed")
                except storage.ContentMismatch as error:
                    self._fail(file.name, "changed", str(error))
                else:
                    members.append(_member(file, content))
                self._tell(file)
            with os_errors_at(path):
                made = writer.close()
        finally:
            writer.discard()
        return members, made

    def _publish_index(self, index: TarIndex) -> None:
        uri = storage.join(self.there, index.tar + INDEX_SUFFIX)
        storage.write_text(uri, index.model_dump_json(indent=1))
        self._take(index)

    def _tell(self, file: WorkingFile) -> None:
        with self._telling:
            self._done = self._done[0] + 1, self._done[1] + file.bytes
            if self.progress is not None:
                (files, size), (of_files, of_bytes) = self._done, self._planned
                self.progress(StageProgress(files, of_files, size, of_bytes, file.name))


def _member(file: WorkingFile, content: Content) -> Member:
    return Member(
        name=file.name,
        offset=content.offset,
        bytes=content.bytes,
        sha256=content.sha256,
        version=file.version,
    )


def _refuse_existing(uri: str) -> None:
    if storage.exists(uri):
        raise storage.Occupied(
            "another file lies there", where=uri, do="move it away, or choose another destination"
        )
