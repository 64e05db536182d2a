"""What one look at something has found: the lines that ``muster doctor`` prints."""

from __future__ import annotations

from dataclasses import dataclass

from muster.errors import MusterError


@dataclass(frozen=True)
class Check:
    """One thing that was tried.

    Attributes
    ----------
    name : str
        What.
    good : bool
        Whether runs can work with it as it is.
    finding : str
        What was found, in a line.
    warning : bool
        Whether somebody should look at it although it is good.
    """

    name: str
    good: bool
    finding: str
    warning: bool = False

    @property
    def mark(self) -> str:
        """The one word before the line."""
        if not self.good:
            return "BAD"
        return "warn" if self.warning else "ok"


def bad(
    name: str,
    what: str,
    *,
    where: object = None,
    got: object = None,
    expected: object = None,
    do: str | None = None,
) -> Check:
    """Say what is wrong in the words of errors: what, where, got, expected, do."""
    error = MusterError(what, where=where, got=got, expected=expected, do=do)
    return Check(name, False, str(error))


def doubtful(name: str, what: str, *, got: object = None, do: str | None = None) -> Check:
    """Say what somebody should look at, in the words of errors."""
    return Check(name, True, str(MusterError(what, got=got, do=do)), warning=True)
