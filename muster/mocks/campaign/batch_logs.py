"""The logs of a campaign's batches, copied into its folder when a run ends.

The work directory of a run is removed after some weeks; the campaign keeps what its batches were
submitted with and what they wrote: batch_NNNN.sh, batch_NNNN_INDEX.out, and batch_NNNN_INDEX.err
of elements that failed.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster import storage
from muster.backends import Backends
from muster.backends.registry import BACKENDS
from muster.counts import count_of
from muster.errors import MissingInput, MusterError
from muster.imports import load_named
from muster.model.outcome import Outcome
from muster.report.formats import format_bytes
from muster.storage import local_path, os_errors_at, temporary_sibling
from muster.store import batches, runs

if TYPE_CHECKING:
    from muster.backends.contract import Backend
    from muster.model.batch import Batch
    from muster.store.database import Database
    from muster.store.records import ElementRecord, Run

LOGS = "logs"
MAIN_STEP = "mocks.populate"
"""The step whose batches are named by their group alone."""
MOST_BYTES = 1 << 20
"""How much of one log is kept; the end of a longer one."""
AT_ONCE = 16

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True)
class BatchLogs:
    """What was copied: batches, files and bytes; and batches that could not be read, and why."""

    batches: int
    files: int
    bytes: int
    problems: tuple[str, ...]

    def describe(self) -> str:
        """State it in one line."""
        trouble = (
            f"; {len(self.problems)} not readable: {self.problems[0]}" if self.problems else ""
        )
        batches, files = count_of(self.batches, "batch", "batches"), count_of(self.files, "file")
        return f"logs of {batches}: {files}, {format_bytes(self.bytes)}{trouble}"


@dataclass(frozen=True)
class _Target:
    """Where the files of a batch go, and which files were there before."""

    logs: str
    name: str
    there: frozenset[str]

    def uri(self, end: str) -> str:
        return storage.join(self.logs, self.name + end)


def write_batch_logs(db: Database, run: Run, folder: str) -> BatchLogs:
    """Copy scripts and logs of a run's batches into the folder ``logs`` of its campaign.

    A batch that was copied before, and has no attempt since, is left as it is.

    Parameters
    ----------
    db : Database
        The store.
    run : Run
        A run whose batches have ended.
    folder : str
        The campaign's folder.
    """
    return asyncio.run(_write_all(db, run, storage.join(folder, LOGS)))


async def _write_all(db: Database, run: Run, logs: str) -> BatchLogs:
    there = frozenset(storage.list(logs))
    backends = Backends(db)
    copied = files = size = 0
    problems = []
    try:
        for group, steps in runs.read_groups(db, run.id).items():
            for step, batch_id in steps.items():
                name = name_batch(group, step)
                try:
                    written = await _write_batch(db, backends, batch_id, _Target(logs, name, there))
                except MusterError as error:
                    problems.append(f"{name}: {error}")
                    continue
                copied += bool(written)
                files += len(written)
                size += sum(written)
    finally:
        await backends.close()
    return BatchLogs(copied, files, size, tuple(problems))


async def _write_batch(
    db: Database, backends: Backends, batch_id: str, target: _Target
) -> list[int]:
    """Copy one batch; return the sizes of the files that were written."""
    batch = batches.read_spec(db, batch_id)
    elements = batches.read_elements(db, batch_id)
    script = render_script(batch, elements).encode()
    script_uri = target.uri(".sh")
    if _read(script_uri) == script:
        return []
    backend = backends.open(batch)
    at_once = asyncio.Semaphore(AT_ONCE)
    tried = [element for element in elements if element.attempts]
    sizes = await asyncio.gather(
        *(_write_element(backend, at_once, batch, e, target) for e in tried)
    )
    # Last: a script with these attempts says that their logs are here.
    await asyncio.to_thread(_write, script_uri, script)
    return [*(size for both in sizes for size in both), len(script)]


async def _write_element(
    backend: Backend,
    at_once: asyncio.Semaphore,
    batch: Batch,
    element: ElementRecord,
    target: _Target,
) -> list[int]:
    sizes = []
    async with at_once:
        attempt = max(a.number for a in element.attempts)
        output = await read_end_of_log(backend, batch, element.index, attempt)
        if output:
            await asyncio.to_thread(_write, target.uri(f"_{element.index}.out"), output)
            sizes.append(len(output))
        error_uri = target.uri(f"_{element.index}.err")
        errors = render_errors(element).encode()
        if errors:
            await asyncio.to_thread(_write, error_uri, errors)
            sizes.append(len(errors))
        elif error_uri.rpartition("/")[2] in target.there:
            await asyncio.to_thread(storage.delete, error_uri)
    return sizes


async def read_end_of_log(backend: Backend, batch: Batch, index: int, attempt: int) -> bytes:
    """Read the log of an attempt; of one of more than MOST_BYTES its end, which says why it ended.

    What is held in memory is bounded, however long the log is.
    """
    kept = b""
    offset = 0
    while chunk := await backend.read_log(batch, index, attempt, offset, MOST_BYTES):
        offset += len(chunk)
        kept = (kept + chunk)[-MOST_BYTES:]
    if offset > len(kept):
        kept = f"… {offset - len(kept)} bytes before this are left out\n".encode() + kept
    return kept


def render_script(batch: Batch, elements: tuple[ElementRecord, ...]) -> str:
    """Render what a batch was submitted with, and which attempts its logs are of."""
    try:
        script: str = load_named(BACKENDS[batch.backend].render)(batch)
    except MusterError as error:
        script = f"# the script cannot be rendered any more: {error}\n"
    attempts = " ".join(
        f"{e.index}:{max(a.number for a in e.attempts)}" for e in elements if e.attempts
    )
    return (
        f"{script.rstrip()}\n# run {batch.run}, batch {batch.id}, {batch.fingerprint[:12]}\n"
        f"# logs of these attempts (INDEX:ATTEMPT): {attempts}\n"
    )


def render_errors(element: ElementRecord) -> str:
    """Render why an element's attempts ended; nothing where the last one has succeeded."""
    if element.attempts[-1].outcome in (None, Outcome.SUCCEEDED):
        return ""
    return "".join(
        f"{element.name}, attempt {a.number}: {a.outcome or a.state}"
        f"{f' on {a.host}' if a.host else ''}{f': {a.message}' if a.message else ''}\n"
        for a in element.attempts
    )


def name_batch(group: str, step: str) -> str:
    """Name a batch's files: by its group, and by its step where that is not the main one."""
    parts = [group] if step == MAIN_STEP else [group, step.rpartition(".")[2]]
    return "_".join(_UNSAFE.sub("_", part) for part in parts)


def _read(uri: str) -> bytes | None:
    try:
        return storage.read_bytes(uri)
    except MissingInput:
        return None


def _write(uri: str, data: bytes) -> None:
    """Write a log whole, not synced: 40,000 syncs take minutes, and logs can be copied again."""
    path = local_path(uri)
    if path is None:
        storage.write_bytes(uri, data)
        return
    with os_errors_at(uri):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_sibling(path)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
