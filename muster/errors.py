"""Every error that Muster raises on purpose, and the exit code that it ends a job with.

    MusterError                      one line: what, where, got, expected, do
    ├── InvalidInput                 the input is there and wrong          EX_DATAERR   65
    │   └── ConfigError              a configuration file or parameter is wrong
    ├── MissingInput                 the input is not there                EX_NOINPUT   66
    ├── SoftwareError                our own code or a library failed      EX_SOFTWARE  70
    │   └── IllegalTransition        a record was asked to go backwards
    ├── Transient                    may work on the next try              EX_TEMPFAIL  75
    │   └── StoreUnavailable         Postgres did not answer
    ├── Superseded                   a newer attempt has taken this one's place
    └── ClaimLost                    another supervisor has taken this batch over

The codes are those of sysexits.h, so that a scheduler's record alone tells the classes apart.
"""

from __future__ import annotations

import os


class MusterError(Exception):
    """A failure that a person can act on, told in one line.

    Parameters
    ----------
    what : str
        What went wrong, as a short sentence without a full stop.
    where : object, optional
        The file, field, trait or address that it happened at.
    got, expected : object, optional
        What was found there, and what would have been right.
    do : str, optional
        What the reader should do next.
    """

    exit_code = os.EX_SOFTWARE

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        got: object = None,
        expected: object = None,
        do: str | None = None,
    ) -> None:
        parts = [what]
        for label, value in (("where", where), ("got", got), ("expected", expected), ("do", do)):
            if value is not None:
                parts.append(f"{label}: {value}")
        super().__init__(one_line("; ".join(parts)))


class InvalidInput(MusterError):
    """The input is there and wrong; trying again cannot help."""

    exit_code = os.EX_DATAERR


class ConfigError(InvalidInput):
    """A configuration file, parameter or option is wrong.

    Attributes
    ----------
    problems : tuple
        Everything that is wrong where that is known, as
        :class:`muster.config.ConfigProblem`; the message may name the first alone.
    """

    problems: tuple[object, ...] = ()


class MissingInput(MusterError):
    """An input that the work needs is not there."""

    exit_code = os.EX_NOINPUT


class SoftwareError(MusterError):
    """Our own code, or a library under it, failed."""

    exit_code = os.EX_SOFTWARE


class IllegalTransition(SoftwareError):
    """A record was asked to move backwards; the database refused."""


class Transient(MusterError):
    """Something outside failed that may well work on the next try."""

    exit_code = os.EX_TEMPFAIL


class StoreUnavailable(Transient):
    """Postgres did not answer; the work it describes is not affected."""


class Superseded(MusterError):
    """A newer attempt has taken this one's place; nothing was published."""


class ClaimLost(MusterError):
    """Another supervisor has taken this batch over; this one must stop and cancel nothing."""


def one_line(text: str) -> str:
    """Fold any text into a single line, for messages that must stay greppable.

    Control characters go: neither a terminal nor Postgres should see a NUL.
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shorten(text: str, longest: int) -> str:
    """Cut a text that a message quotes to so many characters, the last of them … where it was."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
