"""What is written of one attempt: its fence before it starts, its progress, and its result."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from muster.errors import one_line
from muster.frozen import Frozen
from muster.model.outcome import Outcome
from muster.model.resources import Resources
from muster.model.step import LONGEST_LEFT_S

LONGEST_MESSAGE = 200
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)


def _short_line(text: str) -> str:
    return one_line(text)[:LONGEST_MESSAGE]


class Artifact(Frozen):
    """A file that an attempt made."""

    name: str
    uri: str
    sha256: str
    bytes: int
    media_type: str


class Result(Frozen):
    """What an attempt says of itself, in results/INDEX/ATTEMPT.json.

    ``outcome`` is the runner's own word; ``terminated`` means that it was told to stop and leaves
    the reason to the scheduler's state.  ``submission`` ties the file to one submission, so that a
    result of another submission with the same numbers is never taken for this one's.
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


class Progress(Frozen):
    """How far an attempt is, by its own word, in progress/INDEX/ATTEMPT.json.

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


class Fence(Frozen):
    """What the fence file of an element says: which attempt is the current one, and what it has."""

    submission: str
    attempt: Annotated[int, Field(ge=1)]
    resources: Resources
