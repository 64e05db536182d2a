"""The command line in this process: the module that ``python -m muster`` runs, without the start.

A start costs half a second of a processor, which a refusal is seldom about.  The call goes through
``muster.__main__`` with its own ``sys.argv``, so that arguments, error messages and exit codes take
the path that they take in a process.  Everything that the command changes in this process is put
back: folder, environment, streams, log, signal handlers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import runpy
import signal
import sys
import tempfile
from typing import TYPE_CHECKING, BinaryIO, TextIO
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


def invoke(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> tuple[int, str, str]:
    """Run a command and return its exit code, stdout and stderr.

    Parameters
    ----------
    folder : Path
        The working directory of the command.
    environment : mapping of str to str
        All of its environment.
    """
    code = os.EX_OK
    with contextlib.ExitStack() as kept:
        stdout, stderr = kept.enter_context(_captured_streams())
        kept.enter_context(_same_log())
        kept.enter_context(_same_signal_handlers())
        kept.enter_context(contextlib.chdir(folder))
        kept.enter_context(mock.patch.dict(os.environ, environment, clear=True))
        kept.enter_context(mock.patch.object(tempfile, "tempdir", None))
        kept.enter_context(mock.patch.object(sys, "argv", ["muster", *arguments]))
        try:
            runpy.run_module("muster", run_name="__main__")
        except SystemExit as end:
            code = _exit_code(end)
        return code, _read(sys.stdout, stdout), _read(sys.stderr, stderr)


@contextlib.contextmanager
def _captured_streams() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Yield files of stdout and stderr, as C libraries and children write there, too."""
    with contextlib.ExitStack() as kept:
        stdin = kept.enter_context(open(os.devnull, "rb"))
        stdout = kept.enter_context(tempfile.TemporaryFile(buffering=0))
        stderr = kept.enter_context(tempfile.TemporaryFile(buffering=0))
        for name, mode, file in (
            ("stdin", "r", stdin),
            ("stdout", "w", stdout),
            ("stderr", "w", stderr),
        ):
            number = ("stdin", "stdout", "stderr").index(name)
            if mode == "w":
                getattr(sys, name).flush()
            saved = os.dup(number)
            kept.callback(os.close, saved)
            os.dup2(file.fileno(), number)
            kept.callback(os.dup2, saved, number)
            stream = kept.enter_context(open(number, mode, encoding="utf-8", closefd=False))
            kept.enter_context(mock.patch.object(sys, name, stream))
        yield stdout, stderr


def _read(stream: TextIO, file: BinaryIO) -> str:
    stream.flush()
    file.seek(0)
    return file.read().decode()


def _exit_code(end: SystemExit) -> int:
    """Return the exit code that the interpreter would end with."""
    if end.code is None or isinstance(end.code, int):
        return (end.code or os.EX_OK) & 0xFF
    print(end.code, file=sys.stderr)
    return 1


@contextlib.contextmanager
def _same_log() -> Iterator[None]:
    """Put the handlers of the root logger and the levels of all loggers back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logger.level for name, logger in _loggers()}
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, logger in _loggers():
            logger.setLevel(levels.get(name, logging.NOTSET))


def _loggers() -> list[tuple[str, logging.Logger]]:
    found = logging.Logger.manager.loggerDict.items()
    return [(name, logger) for name, logger in found if isinstance(logger, logging.Logger)]


@contextlib.contextmanager
def _same_signal_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
