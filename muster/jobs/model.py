"""The nouns of a batch: resources, elements, the batch itself, and where its files lie.

A batch is frozen when it is planned: backend, pool, resources, inputs and outputs are written to
``batch.json`` in the work directory and to the store, and everything that happens later reads
them from there.  A changed site file therefore touches new runs only.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from muster import storage
from muster.backends.slurm.place import SlurmPlace
from muster.errors import one_line
from muster.frozen import Frozen
from muster.jobs.eta import LONGEST_LEFT_S
from muster.jobs.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_MESSAGE = 200
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)


class RunParams(Frozen):
    """What the parameters of every workflow can say of themselves."""

    @classmethod
    def complete(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return all of what a person says who gives only a part: what is left out lies elsewhere.

        Called before anything is checked; by default nothing is added.
        """
        return data

    def relative_locations(self) -> list[str]:
        """List locations that mean another place for every process that reads them."""
        return []


class Resources(Frozen):
    """What one element asks for.

    Attributes
    ----------
    cpus : int
        Threads that the step may use.
    memory_mib : int or None
        Memory of the element's processes together, in MiB; None asks for no limit.
    time_limit_s : int or None
        Wall time in seconds; None asks for no limit.
    gpus : int
        Whole GPUs.
    """

    cpus: Annotated[int, Field(ge=1)] = 1
    memory_mib: Annotated[int, Field(ge=1)] | None = None
    time_limit_s: Annotated[int, Field(ge=1)] | None = None
    gpus: Annotated[int, Field(ge=0)] = 0


class Caps(Frozen):
    """The most that a pool gives one element; a retry's demands stop growing there."""

    memory_mib: int | None = None
    time_limit_s: int | None = None


class Element(Frozen):
    """One unit of a step, and of retry and record.

    Attributes
    ----------
    index : int
        Position in the batch, from 0.
    name : str
        What a person calls it: the trait, the realization and redshift, the raster.
    inputs : dict
        Keyword arguments of the step function.
    outputs : dict of str to str
        Output argument of the step function → URI that the file is published at.
    """

    index: Annotated[int, Field(ge=0)]
    name: str
    inputs: dict[str, Any] = {}
    outputs: dict[str, str] = {}


class Batch(Frozen):
    """The elements that one Airflow task instance runs, and how.

    Attributes
    ----------
    id : str
        Unique in the store and safe in a path and in a scheduler's job name.
    run : str
        The run it belongs to.
    step : str
        Dotted name of the step.
    backend : {"local", "slurm", "kubernetes"}
        Where it runs, for good.
    pool : str
        Name of the pool; elements of all batches of a pool share its slots.
    slots : int
        How many elements of the pool run at once.
    resources, caps : Resources, Caps
        What an element asks for at first, and the most that a retry may ask for.
    elements : tuple of Element
        In order of their index, without gaps.
    work_uri : str
        Folder of this batch's own: what it was frozen with, fence/, progress/, results/, logs/.
    pool_uri : str
        Folder that all batches of the pool share: a local pool's slots are locked there.
    seed : int
        Seed of everything random.
    slurm : SlurmPlace or None
        With the backend ``slurm``: the pool in Slurm's words, and how its cluster is reached.
    deadline_s : int or None
        How long a generation may take in all, in seconds.
    environment : dict of str to str
        The step's own settings.
    looks : bool
        Whether its elements only look at what is there: a clear runs them again although they
        succeeded, since what is there may have changed.
    needs_store : bool or None
        Whether its jobs are told where the store is; None of a batch that was frozen before plans
        said so.
    """

    id: str
    run: str
    step: str
    backend: Literal["local", "slurm", "kubernetes"]
    pool: str
    slots: Annotated[int, Field(ge=1)] = 1
    resources: Resources = Resources()
    caps: Caps = Caps()
    elements: tuple[Element, ...]
    work_uri: str
    pool_uri: str
    seed: int = 0
    slurm: SlurmPlace | None = None
    deadline_s: int | None = None
    environment: dict[str, str] = {}
    looks: bool = False
    needs_store: bool | None = None

    @property
    def uri(self) -> str:
        """Where the batch's file lies; a batch that is frozen anew has a file of another name."""
        return storage.join(self.work_uri, f"batch-{self.fingerprint[:12]}.json")

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that the batch was frozen with."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Render the batch as canonical JSON."""
        # What was frozen before the field was there stays what it is, and what it is called.
        without = {"needs_store"} if self.needs_store is None else None
        return json.dumps(self.model_dump(mode="json", exclude=without), sort_keys=True, indent=1)

    def fence_uri(self, index: int) -> str:
        """Where the current attempt of an element is named."""
        return storage.join(self.work_uri, "fence", str(index))

    def result_uri(self, index: int, attempt: int) -> str:
        """Where an attempt's result is written, last of all."""
        return storage.join(self.work_uri, "results", str(index), f"{attempt}.json")

    def progress_uri(self, index: int, attempt: int) -> str:
        """Where an attempt says how far it is, while it runs."""
        return storage.join(self.work_uri, "progress", str(index), f"{attempt}.json")

    def log_uri(self, index: int, attempt: int) -> str:
        """Where an attempt's stdout and stderr go."""
        return storage.join(self.work_uri, "logs", str(index), f"{attempt}.log")


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


class Order(Frozen):
    """What the fence file of an element says: which attempt is the current one, and what it has."""

    submission: str
    attempt: Annotated[int, Field(ge=1)]
    resources: Resources
