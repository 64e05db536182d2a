"""What a step is: a plain function, found by its dotted name, that turns inputs into files.

A step function knows nothing of batches, attempts or stores.  It takes keyword arguments only:

* the element's inputs, under their names (strings, numbers, lists: whatever JSON can say);
* the element's outputs, under their names, each a local ``Path`` to write the file to;
* ``context``, a :class:`StepContext`, where its signature has one.

It returns a mapping of small facts about what it did (recorded with the attempt), or None.  It
raises :mod:`muster.errors` for what a person can act on; the class decides the outcome.  The
runner gives it temporary output paths and publishes them only when the function has returned, so
a step writes straight to the path that it was given.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muster.entry_points import Registry
from muster.errors import ConfigError

STEPS: dict[str, str] = {
    "site.probe": "muster.doctor.probe_step:probe_environment",
    "traits.inspect": "muster.traits.plan.inspect:inspect_traits",
    "traits.predict": "muster.traits.predicting.predict:predict_trait",
    "traits.cov": "muster.traits.predicting.cov:calculate_cov_trait",
    "traits.aoa": "muster.traits.aoa.aoa:calculate_aoa_trait",
    "traits.build": "muster.traits.product.build:build_final_product_trait",
    "resampling.inspect": "muster.resampling.plan.inspect:inspect_datasets",
    "resampling.resample": "muster.resampling.resample:resample_dataset",
    "resampling.merge": "muster.resampling.merging.merge:merge_layers",
    "mocks.inspect": "muster.mocks.plan.inspect:inspect_campaign",
    "mocks.populate": "muster.mocks.populate:populate_mock",
    "mocks.collect": "muster.mocks.qa.steps:collect_batch",
    "mocks.qa": "muster.mocks.qa.steps:check_ensemble",
    "mocks.manifest": "muster.mocks.record:record_campaign",
}
"""Dotted step name → "module:function"; the module is imported only inside the job."""

StepFunction = Callable[..., Mapping[str, Any] | None]


def _ignore_progress(fraction: float, message: str) -> None:
    """Discard a progress report, where nobody listens."""


@dataclass(frozen=True)
class StepContext:
    """What a step may use and where it may leave temporary things.

    Attributes
    ----------
    threads : int
        How many threads the step may use, all libraries together.
    memory_mib : int or None
        The memory that the whole process may take, in MiB; None where there is no limit.
    seed : int
        Seed of everything random in the step.
    scratch : Path
        A folder of this attempt's own, removed when it ends.
    progress : callable
        ``progress(fraction, message)`` with the fraction done in [0, 1].
    rank, ranks : int
        Which rank this process is, from 0, and how many run the step: 1, unless the function has
        the attribute ``on_ranks = True`` and its pool ``ntasks``.  Rank 0 alone writes outputs,
        and its facts are recorded.
    """

    threads: int = 1
    memory_mib: int | None = None
    seed: int = 0
    scratch: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    progress: Callable[[float, str], None] = _ignore_progress
    rank: int = 0
    ranks: int = 1


LONGEST_LEFT_S = 10 * 366 * 86_400.0
"""What a step may say is left of it; what is longer is no estimate, and no date could hold it."""


STEP_REGISTRY: Registry[StepFunction] = Registry("muster.steps", "step", STEPS)
"""Our own steps and those that packages add."""


def load_step(name: str) -> StepFunction:
    """Import the function of a step, our own or an installed package's.

    Raises
    ------
    ConfigError
        When there is no step of that name, or it cannot be loaded.
    """
    return STEP_REGISTRY.load(name)


def runs_on_ranks(function: StepFunction) -> bool:
    """Tell whether a step function shares its work among ranks; else one process runs it."""
    return bool(getattr(function, "on_ranks", False))


def call_step(
    function: StepFunction,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Path],
    context: StepContext,
) -> Mapping[str, Any]:
    """Call a step function with what its signature asks for, and return what it reports."""
    arguments: dict[str, Any] = {**inputs, **outputs}
    parameters = inspect.signature(function).parameters
    if "context" in parameters:
        arguments["context"] = context
    unknown = sorted(set(arguments) - set(parameters))
    absent = sorted(
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in arguments
    )
    if unknown or absent:
        raise ConfigError(
            "element does not fit its step",
            where=f"{function.__module__}.{function.__name__}",
            got=f"unknown {unknown}, absent {absent}",
            expected=", ".join(parameters),
            do="plan the run again with this version of Muster",
        )
    return function(**arguments) or {}
