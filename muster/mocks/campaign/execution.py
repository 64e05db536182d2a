"""How a campaign runs: batches, order, retries; and what its elements ask of the site."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from muster.config import SizeMib, TimeS
from muster.mocks.campaign.values import (
    Account,
    Block,
    JobTypeName,
    Number,
    RealizationNumber,
    Redshift,
    Whole,
    check_increasing_range,
)

MEMORY_FACTORS = {"low": 0.5, "normal": 1.0, "high": 2.0}
"""memory_requirement → factor of the job type's memory."""


class Execution(Block):
    """Batches, order and retries."""

    batch_size: Annotated[Whole, Field(ge=1, le=100_000)] = 100
    """The most elements of one Slurm array. A batch holds several arrays where there are many
    elements, so that a run stays within 250 batches."""

    pack: Annotated[Whole, Field(ge=1, le=10_000)] | None = None
    """Elements that one job works through, one after the other; the pool's number by default."""

    order: Literal["depth_first", "breadth_first"] = "depth_first"
    """depth_first: all redshifts of a realization, then the next realization. breadth_first: one
    redshift of all realizations, then the next redshift."""

    max_retries: Annotated[Whole, Field(ge=0, le=100)] = 3
    """The most further attempts of an element, all failures together; those that are nobody's
    fault (node failed, preempted, lost) are not counted. Missing and invalid input is never tried
    again, whatever stands here."""

    retry_backoff: Literal["exponential", "fixed", "none"] = "exponential"
    """Delay before a further attempt."""

    timeout_hours: Annotated[Number, Field(gt=0, le=24 * 365)] | None = None
    """Wall time of an element, in hours; that of the job type by default."""

    quorum: Annotated[Number, Field(ge=0, le=1)] = 1.0
    """Fraction of the elements that must succeed; those that lack input are not counted."""

    concurrency: Annotated[Whole, Field(ge=1, le=100_000)] | None = None
    """The most elements of a batch that run at once (on one machine: of all batches of the pool),
    up to the pool's slots, which are the default."""

    slice_realizations: Annotated[Whole, Field(ge=1, le=100_000)] = 100
    """Realizations of a slice: the n-th interval of a backfill makes the n-th slice."""

    @property
    def timeout_s(self) -> int | None:
        """Wall time of an element in whole seconds, rounded up; None where it is not stated."""
        if self.timeout_hours is None:
            return None
        return max(1, -int(-self.timeout_hours * 3600 // 1))


class RedshiftSelector(Block):
    """Redshifts by value, or all in a range; both ends count."""

    values: tuple[Redshift, ...] | None = None
    """The redshifts themselves; a list may stand in the place of the mapping."""

    min: Redshift | None = None
    """The lowest."""

    max: Redshift | None = None
    """The highest."""

    @model_validator(mode="after")
    def _check(self) -> RedshiftSelector:
        _check_selector(self.values, self.min, self.max)
        return self

    def matches(self, redshift: float) -> bool:
        """Return whether a redshift is selected."""
        return _is_selected(redshift, self.values, self.min, self.max)


class RealizationSelector(Block):
    """Realizations by number, or all in a range; both ends count."""

    values: tuple[RealizationNumber, ...] | None = None
    """The numbers themselves; a list may stand in the place of the mapping."""

    min: RealizationNumber | None = None
    """The lowest."""

    max: RealizationNumber | None = None
    """The highest."""

    @model_validator(mode="after")
    def _check(self) -> RealizationSelector:
        _check_selector(self.values, self.min, self.max)
        return self

    def matches(self, realization: int) -> bool:
        """Return whether a realization is selected."""
        return _is_selected(realization, self.values, self.min, self.max)


def _check_selector(values: tuple[Any, ...] | None, low: float | None, high: float | None) -> None:
    if values is None:
        check_increasing_range(low, high)
    elif low is not None or high is not None:
        raise ValueError("values and a range exclude each other")
    elif not values:
        raise ValueError("selects nothing: the list is empty")


def _is_selected(
    value: float, values: tuple[float, ...] | None, low: float | None, high: float | None
) -> bool:
    if values is not None:
        return value in values
    return (low is None or value >= low) and (high is None or value <= high)


def _list_as_values(value: Any) -> Any:
    """Take a list, or one number, as the values of a selector."""
    if isinstance(value, list | tuple):
        return {"values": value}
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"values": [value]} if is_number else value


class Override(Block):
    """Resources of some elements, in the place of the job type's; a later override wins."""

    redshifts: (
        Annotated[
            RedshiftSelector,
            BeforeValidator(
                _list_as_values,
                json_schema_input_type=Redshift | tuple[Redshift, ...] | RedshiftSelector,
            ),
        ]
        | None
    ) = None
    """At which redshifts; at all by default."""

    realizations: (
        Annotated[
            RealizationSelector,
            BeforeValidator(
                _list_as_values,
                json_schema_input_type=RealizationNumber
                | tuple[RealizationNumber, ...]
                | RealizationSelector,
            ),
        ]
        | None
    ) = None
    """Of which realizations; of all by default."""

    memory: SizeMib | None = None
    """Memory of an element with its unit: 64GiB."""

    time: TimeS | None = None
    """Wall time of an element: 02:00:00."""

    cpus: Annotated[Whole, Field(ge=1, le=10_000)] | None = None
    """Threads of an element."""

    @model_validator(mode="after")
    def _check(self) -> Override:
        if self.redshifts is None and self.realizations is None:
            raise ValueError("selects nothing: say redshifts, realizations or both")
        if self.memory is None and self.time is None and self.cpus is None:
            raise ValueError("changes nothing: say memory, time or cpus")
        return self

    def matches(self, realization: int, redshift: float) -> bool:
        """Return whether an element is selected."""
        return (self.redshifts is None or self.redshifts.matches(redshift)) and (
            self.realizations is None or self.realizations.matches(realization)
        )


class CampaignResources(Block):
    """What elements ask of the site."""

    job_type: JobTypeName | None = None
    """One of the site's [job_types]: pool, CPUs, GPUs, memory and time of mocks.populate; the
    site's placement by default."""

    memory_requirement: Literal["low", "normal", "high"] = "normal"
    """0.5, 1 or 2 times the memory of the job type, up to the most that its pool gives."""

    account: Account | None = None
    """Slurm account that the campaign is charged to, in the place of the pool's."""

    overrides: Annotated[tuple[Override, ...], Field(max_length=100)] = ()
    """More memory, time or CPUs for some redshifts or realizations."""

    @field_validator("memory_requirement", mode="before")
    @classmethod
    def _explain_size(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and value not in MEMORY_FACTORS and value[:1].isdigit():
            raise ValueError(
                "should be low, normal or high: 0.5, 1 or 2 times the memory of the job type; a "
                "size stands in resources.overrides"
            )
        return value
