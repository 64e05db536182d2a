"""Staging: a verified copy of a campaign at its permanent place, in a tree by version.

It can be killed at any moment and started again: what lies there, verified, is not copied twice.
What the ledger has as staged is looked for by one listing of the destination: what is gone is
copied again, and another size is a problem.
Catalogues and the campaign's configuration are never replaced at the destination; the record, the
logs and the figures are, where the copy there is one of ours.  A file that is missing, changed or
in the way is named, and does not keep the others from being staged.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from muster import storage
from muster.errors import InvalidInput, MissingInput, MusterError, Transient
from muster.mocks.campaign.facts import CATALOGS, check_name, is_hidden, require_campaign
from muster.mocks.campaign.ledger import Intended, Ledger, StagedFile
from muster.mocks.campaign.manifest import MANIFEST, read_manifest
from muster.mocks.campaign.places import part_elsewhere
from muster.mocks.campaign.stage_report import (
    ProblemKind,
    StageProblem,
    StageProgress,
    StageReport,
)
from muster.mocks.campaign.staged_tree import (
    StagedTree,
    list_staged,
    make_destination,
    place_outside,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

CONFIG = "metadata/campaign_config.yaml"
CHECKSUMS = "SHA256SUMS"
"""At the top of the staged tree: every file of it, as ``sha256sum --check`` reads them."""
MOST_FAILURES = 10
"""How many files may fail one after the other before the destination is taken to be away."""


@dataclass(frozen=True)
class WorkingFile:
    """A file of the campaign: its name relative to the campaign's folder, size and version."""

    name: str
    bytes: int
    version: str


def stage_campaign(
    folder: str,
    destination: str,
    *,
    workers: int = 4,
    verify: bool = False,
    progress: Callable[[StageProgress], None] | None = None,
) -> StageReport:
    """Copy a campaign to its permanent place, as DESTINATION/VERSION_NAME/….

    Parameters
    ----------
    folder : str
        The campaign's folder, named VERSION_NAME, on this machine.
    destination : str
        A folder, or ``s3://bucket/prefix``.
    workers : int
        How many files are copied at once.
    verify : bool
        Also read again, and compare by SHA-256, what was staged before.  What is copied now is
        always verified.
    progress : callable, optional
        Called after each file.

    Raises
    ------
    MissingInput
        When there is no such campaign.
    InvalidInput
        When another campaign of this name and version lies at the destination, or a link in it
        is in the way of a file.
    Transient
        When another process is staging it.
    """
    root = require_campaign(folder)
    if workers < 1:
        raise InvalidInput(
            "no workers", got=workers, expected="at least 1", do="give a number of 1 or more"
        )
    there = place_outside(root, destination, root.name)
    make_destination(there)
    with Ledger(root, there) as ledger:
        files, problems = list_working_files(root)
        tree = list_staged(there)
        names = {*(file.name for file in files), *ledger.files, CHECKSUMS}
        tree.check_no_link_leads(sorted(names), where=there)
        staging = _Staging(root, there, ledger, verify, read_recorded(root), tree)
        problems += staging.find_missing(files)
        first = [file for file in files if file.name == CONFIG]
        for file in first:
            staging.stage_config(file)
        rest = [file for file in files if file.name != CONFIG]
        stopped = staging.stage_all(rest, workers, progress)
        report = StageReport(
            destination=there,
            copied=staging.copied,
            entered=staging.entered,
            already=staging.already,
            bytes=staging.bytes,
            elsewhere=len(staging.elsewhere),
            problems=tuple(sorted((*problems, *staging.problems), key=lambda p: p.name)),
            stopped=stopped,
        )
        if stopped is None:
            storage.write_text(storage.join(there, CHECKSUMS), render_checksums(ledger.files))
        if report.complete:
            ledger.complete()
    return report


def list_working_files(root: Path) -> tuple[list[WorkingFile], list[StageProblem]]:
    """List the files of a campaign's folder that are to be staged, catalogues first.

    Hidden files are left out; links are problems.
    """
    files = []
    problems = []
    for entry in storage.walk(str(root)):
        if entry.name.endswith("/") or is_hidden(entry.name) or entry.name == CHECKSUMS:
            continue
        try:
            check_name(entry.name, where=root)
        except InvalidInput as error:
            problems.append(StageProblem(ascii(entry.name), "unreadable", str(error)))
            continue
        if entry.is_link:
            problems.append(StageProblem(entry.name, "unreadable", "a link, which is not followed"))
        else:
            version = f"{entry.bytes} {entry.modified_at.isoformat()}"
            files.append(WorkingFile(entry.name, entry.bytes, version))
    # The record of the campaign comes last, so that it never speaks of what is not there yet.
    files.sort(key=lambda file: (not is_immutable(file.name), file.name))
    return files, problems


def is_immutable(name: str) -> bool:
    """Tell whether a file of a campaign never changes once it is there."""
    return name.startswith(f"{CATALOGS}/") or name == CONFIG


def render_checksums(files: Mapping[str, StagedFile]) -> str:
    """Render the checksums of a staged tree as ``sha256sum --check`` reads them."""
    return "".join(f"{files[name].sha256}  {name}\n" for name in sorted(files))


def read_recorded(root: Path) -> dict[str, str]:
    """Read the SHA-256 of the catalogues from the campaign's manifest, where it has one."""
    try:
        return read_manifest(str(root / MANIFEST))
    except MissingInput:
        log.warning("%s: no manifest; the catalogues are staged as they are", root)
        return {}


@dataclass
class _Staging:
    """One staging in progress; its threads share it."""

    root: Path
    there: str
    ledger: Ledger
    verify: bool
    recorded: dict[str, str]
    tree: StagedTree
    elsewhere: list[str] = field(default_factory=list)
    copied: int = 0
    entered: int = 0
    already: int = 0
    bytes: int = 0
    problems: list[StageProblem] = field(default_factory=list)
    _failed_in_a_row: int = 0
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def find_missing(self, files: list[WorkingFile]) -> list[StageProblem]:
        """Find what is recorded or was staged, is not in the campaign's folder, and not there."""
        here = {file.name for file in files}
        absent = {
            name: sha256
            for name, sha256 in self.recorded.items()
            if name not in here and name not in self.ledger.files
        }
        self.elsewhere, missing = part_elsewhere(self.root, absent)
        message = "in the manifest, and neither in the campaign's folder nor archived"
        problems = [StageProblem(name, "missing", message) for name in missing]
        gone = [name for name in self.ledger.files if name not in self.tree.sizes]
        if gone:
            log.warning(
                "%s: %d files were staged, and are no longer there, such as %s",
                self.there, len(gone), min(gone),
            )  # fmt: skip
        for name, staged in self.ledger.files.items():
            if name in here:
                continue
            size = self.tree.sizes.get(name)
            if size is None:
                message = "was staged, and is neither there nor in the campaign's folder"
                problems.append(StageProblem(name, "missing", message))
            elif size != staged.bytes:
                problems.append(StageProblem(name, "changed", str(self._tell_size(staged, size))))
        return problems

    def stage_config(self, file: WorkingFile) -> None:
        """Stage the configuration first: it tells whether the destination is this campaign's."""
        self.stage_file(file)
        problem = next(iter(self.problems), None)
        if problem is not None and problem.kind == "occupied":
            raise InvalidInput(
                "another campaign of this name and version lies at the destination",
                where=storage.join(self.there, file.name),
                do="raise the version, or choose another destination",
            )

    def stage_all(
        self,
        files: list[WorkingFile],
        workers: int,
        progress: Callable[[StageProgress], None] | None,
    ) -> str | None:
        """Stage files at once; return why the rest was not tried, or None."""
        total = sum(file.bytes for file in files)
        done_bytes = 0
        for number, file in enumerate(self._run(files, workers), start=1):
            done_bytes += file.bytes
            if progress is not None:
                progress(StageProgress(number, len(files), done_bytes, total, file.name))
        if self._failed_in_a_row < MOST_FAILURES:
            return None
        return f"{MOST_FAILURES} files failed one after the other: is the destination there?"

    def _run(self, files: list[WorkingFile], workers: int) -> Iterator[WorkingFile]:
        with ThreadPoolExecutor(workers, "stage") as pool:
            begun = {pool.submit(self.stage_file, file): file for file in files}
            try:
                for future in as_completed(begun):
                    future.result()
                    yield begun[future]
            finally:
                pool.shutdown(cancel_futures=True)

    def stage_file(self, file: WorkingFile) -> None:
        """Bring one file to its place; what keeps it from there becomes a problem."""
        if self._failed_in_a_row >= MOST_FAILURES:
            return
        try:
            self._stage(file)
        except MissingInput:
            self._fail(file, "missing", "it was there when the campaign was listed")
        except storage.ContentMismatch as error:
            self._fail(file, "changed", str(error))
        except storage.Occupied as error:
            self._fail(file, "occupied", str(error))
        except Transient as error:
            self._fail(file, "failed", str(error))
        except MusterError as error:
            self._fail(file, "unreadable", str(error))
        else:
            self._failed_in_a_row = 0

    def _fail(self, file: WorkingFile, kind: ProblemKind, message: str) -> None:
        with self._counting:
            self.problems.append(StageProblem(file.name, kind, message))
            self._failed_in_a_row = self._failed_in_a_row + 1 if kind == "failed" else 0

    def _stage(self, file: WorkingFile) -> None:
        uri = storage.join(self.there, file.name)
        staged = self.ledger.files.get(file.name)
        if staged is not None and self._is_staged(file, staged, uri):
            self._count(file, copied=False, known=True)
            return
        expected = self.recorded.get(file.name)
        try:
            put = storage.deposit(uri, self.root / file.name, sha256=expected)
            copied = True
        except storage.Occupied:
            put, copied = self._meet_occupied(file, uri, expected)
        self._enter(file, put)
        self._count(file, copied=copied)

    def _is_staged(self, file: WorkingFile, staged: StagedFile, uri: str) -> bool:
        """Tell whether a file of the ledger needs nothing more; False where it is to be copied."""
        if staged.version != file.version:
            if not is_immutable(file.name):
                return False
            found = storage.sha256(str(self.root / file.name))
            if found != staged.sha256:
                raise storage.ContentMismatch(
                    "changed since it was staged",
                    where=file.name,
                    got=found,
                    expected=staged.sha256,
                    do="restore the file from its permanent place",
                )
            self._enter(file, storage.Published(staged.sha256, staged.bytes))
        size = self.tree.sizes.get(file.name)
        if size is None:
            return False
        if size != staged.bytes:
            raise self._tell_size(staged, size)
        if self.verify:
            found = storage.sha256(uri)
            if found != staged.sha256:
                raise storage.ContentMismatch(
                    "changed at its permanent place",
                    where=uri,
                    got=found,
                    expected=staged.sha256,
                    do="move it away, and stage again with verify",
                )
        return True

    def _tell_size(self, staged: StagedFile, size: int) -> storage.ContentMismatch:
        return storage.ContentMismatch(
            "changed at its permanent place",
            where=storage.join(self.there, staged.name),
            got=f"{size} B",
            expected=f"{staged.bytes} B",
            do="move it away, and stage again",
        )

    def _meet_occupied(
        self, file: WorkingFile, uri: str, expected: str | None
    ) -> tuple[storage.Published, bool]:
        """Take the file at the place for ours if it is the same; replace it if it is ours."""
        source = str(self.root / file.name)
        here = storage.sha256(source)
        if expected is not None and here != expected:
            raise storage.ContentMismatch(
                "the file is not what its record states",
                where=source,
                got=here,
                expected=expected,
                do="restore the file, or remove it and run 'muster campaign submit --verify'",
            )
        lies_there = _read_sha256(uri)
        if lies_there == here:
            return storage.Published(here, file.bytes), False
        if is_immutable(file.name) or not self.ledger.is_ours(file.name, lies_there):
            raise storage.Occupied(
                "another file lies there",
                where=uri,
                got=lies_there,
                expected=here,
                do="move it away, or choose another destination",
            )
        self.ledger.enter(Intended(name=file.name, sha256=here))
        return storage.deposit(uri, self.root / file.name, sha256=here, replace=True), True

    def _enter(self, file: WorkingFile, put: storage.Published) -> None:
        self.ledger.enter(
            StagedFile(name=file.name, sha256=put.sha256, bytes=put.bytes, version=file.version)
        )

    def _count(self, file: WorkingFile, *, copied: bool, known: bool = False) -> None:
        with self._counting:
            self.copied += copied
            self.already += known
            self.entered += not copied and not known
            self.bytes += file.bytes if copied else 0


def _read_sha256(uri: str) -> str:
    return storage.recorded_sha256(uri) or storage.sha256(uri)
