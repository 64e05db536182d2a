"""What is written of one attempt: its fence before it starts, its progress, and its result."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from muster.errors import one_line
from muster.frozen import Frozen
from muster.model.outcome import Outcome
from muster.model.resources import Resources
from muster.model.step import LONGEST_LEFT_S

LONGEST_MESSAGE = 200
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)


def _short_line(text: str) -> str:
    return one_line(text)[:LONGEST_MESSAGE]


LOG_NAME = r"(logs|slurm)/[A-Za-z0-9_.@:+-][A-Za-z0-9_.@:+/-]*"
"""A log below a batch's folder; jobs write it, so it is checked before it is opened."""


def _stays_below(name: str) -> str:
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("leads out of the batch's folder")
    return name


class LogSpan(Frozen):
    """Where an attempt's output lies in the log of the worker that it ran in.

    Attributes
    ----------
    name : str
        The log, below the batch's folder.
    begin, end : int
        Offsets in bytes; None for an end that is not known yet.
    """

    name: Annotated[
        str, Field(pattern=f"^{LOG_NAME}$", max_length=400), AfterValidator(_stays_below)
    ]
    begin: Annotated[int, Field(ge=0, le=2**62)]
    end: Annotated[int, Field(ge=0, le=2**62)] | None = None

    @model_validator(mode="after")
    def _check(self) -> LogSpan:
        if self.end is not None and self.end < self.begin:
            raise ValueError("ends before it begins")
        return self


class Artifact(Frozen):
    """A file that an attempt made."""

    name: str
    uri: str
    sha256: str
    bytes: int
    media_type: str


class Result(Frozen):
    """What an attempt says of itself, in the file that is written last.

    ``outcome`` is the runner's own word; ``terminated`` means that it was told to stop and leaves
    the reason to the scheduler's state; ``not_begun``, that its job ended before its turn came.
    ``log`` says where its output lies, where it shares a log with others.  ``submission`` ties the
    file to one submission, so that a result of another submission with the same numbers is never
    taken for this one's.
    """

    submission: str
    index: int
    attempt: int
    outcome: Outcome | Literal["terminated"]
    exit_code: int | None = None
    signal: int | None = None
    started_at: AwareDatetime
    seconds: float
    max_rss_mib: float | None = None
    host: str
    pid: int
    artifacts: tuple[Artifact, ...] = ()
    facts: dict[str, Any] = {}
    error_class: str | None = None
    message: str | None = None
    log: LogSpan | None = None

    @model_serializer(mode="wrap")
    def _leave_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = handler(self)
        if self.log is None:  # as results were before there were shared logs
            said.pop("log", None)
        return said


class Progress(Frozen):
    """How far an attempt is, by its own word.

    ``submission`` ties the file to one submission, as that of a :class:`Result` does.  ``at`` is
    the job's own clock; ``left_s`` is estimated for that moment, and None where it is too early
    to tell.
    """

    submission: str
    index: int
    attempt: int
    fraction: Annotated[float, Field(ge=0, le=1)]
    message: Annotated[str, AfterValidator(_short_line)]
    left_s: Annotated[float, Field(ge=0, le=LONGEST_LEFT_S)] | None
    at: Annotated[AwareDatetime, Field(ge=EARLIEST, le=LATEST)]

    @property
    def eta_at(self) -> datetime | None:
        """When the step will be done, by the job's own clock."""
        return None if self.left_s is None else self.at + timedelta(seconds=self.left_s)


class WorkerWord(Frozen):
    """What a worker says of the element that it runs, in progress/NAME.json.

    Attributes
    ----------
    submission, index, attempt
        What runs.
    log : LogSpan or None
        Where its output begins.
    progress : Progress or None
        How far it is, where it has said so.
    """

    submission: str
    index: int
    attempt: int
    log: LogSpan | None = None
    progress: Progress | None = None


class Fence(Frozen):
    """Which attempt of an element is the current one, and what it has.

    ``longest_s`` is how long the longest attempt of its batch has taken so far, in seconds, where
    that is known: a job that ends by its walltime begins nothing that would take longer.
    """

    submission: str
    attempt: Annotated[int, Field(ge=1)]
    resources: Resources
    longest_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_serializer(mode="wrap")
    def _leave_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = handler(self)
        if self.longest_s is None:
            said.pop("longest_s", None)
        return said
