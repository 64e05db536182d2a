"""JAX as the galaxy models need it: precision, persistent cache of compiled programs, compilations.

``import dsps`` turns 64 bits on, so that precision would depend on the order of imports: it is set
before each use.

On a CPU a batch of Cholesky factorizations waits, within a thread of XLA's pool, for tasks of the
same pool (jax::ParallelBatchMap, jaxlib 0.10.2).  The models have up to three of them side by side:
on two cores both threads wait, for ever.  The pool therefore has threads to spare.

The cache must not fail what it only speeds up: a folder that is read-only, full or
absent costs compilations, nothing else.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import jax
import jax.monitoring
from jax._src import xla_bridge
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from muster.mocks.errors import JAXError

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

CACHE_VARIABLE = "MUSTER_XLA_CACHE"
"""Environment variable that names the folder of compiled programs, on a disk of the node."""

THREADS_VARIABLE = "NPROC"
"""Environment variable that XLA takes the size of its pool of threads from."""

LEAST_THREADS = 8
"""More than batches of Cholesky factorizations that run side by side."""

_COMPILE = "/jax/core/compile/backend_compile_duration"
_CACHE_HIT = "/jax/compilation_cache/cache_hits"
_NEVER_WRITE_S = 1e9

_prepared_threads: int | None = None
"""Threads of XLA's pool in this process, since it was first set up."""


def prepare_jax(cache_folder: Path | None = None) -> None:
    """Set up JAX for the galaxy models; once, before the first of them is imported.

    Give XLA's pool threads enough not to deadlock, and set the persistent cache.  The pool keeps
    the size that it started with, whatever the environment says later.

    Parameters
    ----------
    cache_folder : Path or None
        See :func:`use_persistent_cache`.

    Raises
    ------
    JAXError
        When JAX computed before, with so few threads that it may wait for ever.
    """
    global _prepared_threads
    started = xla_bridge.backends_are_initialized()
    threads = _prepared_threads if started and _prepared_threads else _stated_threads()
    if threads < LEAST_THREADS:
        if started:
            raise JAXError(
                "JAX was used before it was set up, with so few threads that it may wait for ever",
                where=THREADS_VARIABLE,
                got=threads,
                expected=f"at least {LEAST_THREADS}",
                do=f"export {THREADS_VARIABLE}={LEAST_THREADS}, or call prepare_jax first",
            )
        threads = LEAST_THREADS
        os.environ[THREADS_VARIABLE] = str(threads)
    _prepared_threads = threads
    use_persistent_cache(cache_folder)


@dataclass
class Compilations:
    """What JAX compiled since counting began.

    Attributes
    ----------
    requested : int
        Programs that were not in this process yet.
    cached : int
        How many of these came from the persistent cache.
    seconds : float
        Time for all of them.
    """

    requested: int = 0
    cached: int = 0
    seconds: float = 0.0

    @property
    def compiled(self) -> int:
        """How many programs XLA compiled."""
        return self.requested - self.cached


@contextmanager
def count_compilations() -> Iterator[Compilations]:
    """Count what JAX compiles within the context, in all threads of the process."""
    counted = Compilations()

    def on_duration(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _COMPILE:
            counted.requested += 1
            counted.seconds += duration_secs

    def on_event(event: str, **kwargs: str | int) -> None:
        if event == _CACHE_HIT:
            counted.cached += 1

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield counted
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)


@contextmanager
def jax_precision(*, x64: bool) -> Iterator[None]:
    """Compute in 64 or in 32 bits within the context, and restore the setting.

    Failures to read or write the persistent cache are no warnings here.
    """
    before = bool(jax.config.read("jax_enable_x64"))  # type: ignore[no-untyped-call]
    _set("jax_enable_x64", x64)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*persistent compilation cache")
            yield
    finally:
        _set("jax_enable_x64", before)


def _set(name: str, value: str | float | bool) -> None:
    jax.config.update(name, value)  # type: ignore[no-untyped-call]


def _stated_threads() -> int:
    """Return how many threads XLA gives a pool that starts now."""
    stated = os.environ.get(THREADS_VARIABLE, "")
    if stated.isascii() and stated.isdigit() and int(stated) > 0:
        return int(stated)
    return len(os.sched_getaffinity(0))


def use_persistent_cache(folder: Path | None = None) -> Path | None:
    """Keep compiled programs in a folder, for the processes that come after.

    Several processes that write at the same time are a known fault of JAX: one process at a time
    fills the cache, the others read it.

    Parameters
    ----------
    folder : Path or None
        None takes the one that the environment variable MUSTER_XLA_CACHE names, or one of this
        user's own on the node's temporary disk.

    Returns
    -------
    Path or None
        The folder in use; None where there is none, or where it cannot be read.
    """
    named = os.environ.get(CACHE_VARIABLE)
    chosen = folder or (Path(named) if named else _find_own_folder())
    if chosen is None:
        return None
    try:
        chosen.mkdir(parents=True, exist_ok=True)
        next(chosen.iterdir(), None)
    except OSError as error:
        log.warning("compiled programs are not kept: %s", error)
        return None
    writable = _take_pen(chosen)
    settings: dict[str, str | float | bool] = {
        "jax_compilation_cache_dir": str(chosen),
        "jax_persistent_cache_min_compile_time_secs": 0.0 if writable else _NEVER_WRITE_S,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_raise_persistent_cache_errors": False,
    }
    changed = {
        name: value for name, value in settings.items() if getattr(jax.config, name) != value
    }
    for name, value in changed.items():
        _set(name, value)
    if "jax_compilation_cache_dir" in changed:
        reset_cache()  # JAX looks once for a folder, at its first compilation
    return chosen


def _find_own_folder() -> Path | None:
    """Return a folder that nobody else can put programs into; None where there is none."""
    folder = Path(tempfile.gettempdir()) / f"muster-xla-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        log.warning("compiled programs are not kept: %s", error)
        return None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        log.warning("compiled programs are not kept: %s is not this user's alone", folder)
        return None
    return folder


_PENS: dict[Path, IO[bytes]] = {}
"""Folders that this process may write to, with the locked file that says so."""


def _take_pen(folder: Path) -> bool:
    """Return whether this process may write to a cache: it alone, until it ends."""
    if folder in _PENS:
        return True
    try:
        file = (folder / ".writer").open("ab")
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return False
    _PENS[folder] = file
    return True


def describe_device() -> str:
    """Return the platform that JAX computes on: "cpu" or "gpu".

    Raises
    ------
    JAXError
        When JAX finds no device.
    """
    try:
        return str(jax.devices()[0].platform)
    except RuntimeError as error:
        raise JAXError("JAX finds no device", got=error, do="look at JAX_PLATFORMS") from error
