"""A batch and its elements, and where its files lie.

A batch is frozen when it is planned: backend, pool, resources, inputs and outputs are written to
``batch.json`` in the work directory and to the store, and everything that happens later reads
them from there.  A changed site file therefore touches new runs only.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from muster import storage
from muster.frozen import Frozen
from muster.model.resources import Caps, Resources
from muster.model.retry_policy import RetryPolicy
from muster.model.slurm_target import SlurmTarget
from muster.model.target import TARGETS, Target, parse_target

_ADDED = ("retries", "array_size", "layout")
"""Fields that batches of earlier versions do not have: never written where they are None.

What was frozen before a field was there stays what it is, and what it is called.
"""


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
    resources : Resources or None
        What it asks for at first, where that is not what the batch asks for.
    """

    index: Annotated[int, Field(ge=0)]
    name: str
    inputs: dict[str, Any] = {}
    outputs: dict[str, str] = {}
    resources: Resources | None = None

    @model_serializer(mode="wrap")
    def _leave_out_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = handler(self)
        if self.resources is None:
            said.pop("resources", None)  # elements frozen before the field keep their bytes
        return said


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
    target : Target
        Where it runs, for good.  In batch.json and the store it is two keys: ``backend``, and
        what the target says under the backend's name.
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
    retries : RetryPolicy or None
        The batch's own retry policy; None leaves the budgets and delays that every batch has.
    array_size : int or None
        The most elements of one wave, and so of one Slurm array; None submits all that is due
        together.  Several waves of a batch are open at once.
    layout : 2 or None
        How its files lie: 2 for one file of all fences, a log and a file of progress a worker, and
        a result an attempt in one folder; None of a batch that was frozen before, with folders an
        element.
    """

    id: str
    run: str
    step: str
    target: Target
    pool: str
    slots: Annotated[int, Field(ge=1)] = 1
    resources: Resources = Resources()
    caps: Caps = Caps()
    elements: tuple[Element, ...]
    work_uri: str
    pool_uri: str
    seed: int = 0
    deadline_s: int | None = None
    environment: dict[str, str] = {}
    looks: bool = False
    needs_store: bool | None = None
    retries: RetryPolicy | None = None
    array_size: Annotated[int, Field(ge=1)] | None = None
    layout: Literal[2] | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_target(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "backend" not in data:
            return data
        said = {**dict.fromkeys(TARGETS), **data}
        backend = said.pop("backend")
        targets = {name: said.pop(name) for name in TARGETS}
        if "target" in said:
            raise ValueError("a batch's file says backend and no target")
        return {**said, "target": parse_target(backend, targets)}

    @model_serializer(mode="wrap")
    def _write_target(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = handler(self)
        target = said.pop("target", None)
        for name in _ADDED:
            if getattr(self, name) is None:
                said.pop(name, None)
        # Batches of every backend have had the key of this one.
        return {**said, "backend": self.backend, SlurmTarget.backend: None} | (
            {self.backend: target} if target else {}
        )

    @property
    def backend(self) -> str:
        """Name of the backend that it runs on."""
        return self.target.backend

    @property
    def wave_slots(self) -> int:
        """How many elements of one wave run at once: waves that are open together share slots."""
        if self.array_size is None:
            return self.slots
        return max(1, self.slots // -(-len(self.elements) // self.array_size))

    def resources_of(self, index: int) -> Resources:
        """Return what an element asks for at first."""
        return self.elements[index].resources or self.resources

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
        # Left out of the file alone: dumps have always had it.
        without = {"needs_store"} if self.needs_store is None else None
        return json.dumps(self.model_dump(mode="json", exclude=without), sort_keys=True, indent=1)

    def fence_uri(self, index: int) -> str:
        """Where the current attempt of an element is named."""
        if self.layout:
            return storage.join(self.work_uri, "fences.json")
        return storage.join(self.work_uri, "fence", str(index))

    def result_uri(self, index: int, attempt: int) -> str:
        """Where an attempt's result is written, last of all."""
        return self._attempt_uri("results", index, attempt, "json")

    def progress_uri(self, index: int, attempt: int) -> str:
        """Where an attempt says how far it is, or a worker that began with it, while it runs."""
        return self._attempt_uri("progress", index, attempt, "json")

    def log_uri(self, index: int, attempt: int) -> str:
        """Where an attempt's stdout and stderr go, or those of a worker that began with it."""
        return self._attempt_uri("logs", index, attempt, "log")

    def _attempt_uri(self, folder: str, index: int, attempt: int, suffix: str) -> str:
        if self.layout:
            return storage.join(self.work_uri, folder, f"{index}.{attempt}.{suffix}")
        return storage.join(self.work_uri, folder, str(index), f"{attempt}.{suffix}")
