"""What is simulated: suite and box, realizations, redshifts, galaxy model and its parameters."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from muster.mocks.campaign.values import (
    MOST_REALIZATIONS,
    Block,
    Number,
    RealizationNumber,
    Redshift,
    SuiteOrModel,
    Whole,
)

MOST_REDSHIFTS = 200

OptionName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
"""Name of an option of a suite or a galaxy model, whose own model checks it."""


Count = Annotated[Whole, Field(ge=0, le=MOST_REALIZATIONS)]


class Realizations(Block):
    """Which realizations there are: start, start + step, …, count of them; and single ones."""

    count: Count
    """How many the range has."""

    start: RealizationNumber = 0
    """Number of the first."""

    step: Annotated[Whole, Field(ge=1, lt=MOST_REALIZATIONS)] = 1
    """From one number to the next."""

    include: tuple[RealizationNumber, ...] = ()
    """Further numbers, beside the range: the replacements of realizations that lack input."""

    exclude: tuple[RealizationNumber, ...] = ()
    """Numbers of the range that are left out."""

    @field_validator("step")
    @classmethod
    def _check_last(cls, step: int, info: ValidationInfo) -> int:
        count, start = info.data.get("count"), info.data.get("start")
        if count and start is not None:
            cls._check_numbers(start + (count - 1) * step)
        return step

    @field_validator("exclude")
    @classmethod
    def _check_exclude(cls, exclude: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        both = sorted({*exclude} & {*info.data.get("include", ())})
        if both:
            raise ValueError(f"{_some(both)} is included, too: leave it out of one of the two")
        return exclude

    @classmethod
    def _check_numbers(cls, last: int) -> None:
        if last >= MOST_REALIZATIONS:
            raise ValueError(
                f"the last realization would have the number {last}; the highest is "
                f"{MOST_REALIZATIONS - 1}"
            )

    @property
    def _range(self) -> range:
        return range(self.start, self.start + self.count * self.step, self.step)

    @property
    def numbers(self) -> tuple[int, ...]:
        """All numbers, each once, in increasing order."""
        return tuple(sorted({*self._range, *self.include} - {*self.exclude}))

    @property
    def notes(self) -> list[str]:
        """What include and exclude say that changes nothing, a line each."""
        idle = {
            "include: {} is among the realizations of the range already": [
                n for n in sorted({*self.include}) if n in self._range
            ],
            "exclude: {} is not among the realizations of the range": [
                n for n in sorted({*self.exclude}) if n not in self._range
            ],
        }
        return [text.format(_some(numbers)) for text, numbers in idle.items() if numbers]


def _as_range(value: Any) -> Any:
    """Take a count alone as that many realizations from 0."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"count": value}
    if not isinstance(value, dict | Realizations):
        raise ValueError(  # noqa: TRY004
            "should be how many realizations there are, or a mapping of count, start, step, "
            "include, exclude"
        )
    return value


def _check_any(realizations: Realizations) -> Realizations:
    # The defaults of pydantic are not validated: a range that starts too high is found here too.
    numbers = realizations.numbers
    if not numbers:
        raise ValueError("there is no realization")
    Realizations._check_numbers(numbers[-1])
    return realizations


def _some(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return shown if len(numbers) <= 5 else f"{shown} and {len(numbers) - 5} more"


class Science(Block):
    """Simulation suite, box, realizations, redshifts and galaxy model."""

    simulation_suite: SuiteOrModel
    """Where the haloes come from: AbacusSummit_small, synthetic, hdf5, or an installed halo
    source of another package."""

    box: dict[OptionName, Any] = {}
    """Options of the suite: where it lies, side of the box, cosmology, first phase. Relative paths
    are relative to the campaign file."""

    realizations: Annotated[
        Realizations,
        BeforeValidator(_as_range, json_schema_input_type=Count | Realizations),
        AfterValidator(_check_any),
    ]
    """How many realizations from 0, or {count, start, step, include, exclude}."""

    redshifts: Annotated[tuple[Redshift, ...], Field(min_length=1, max_length=MOST_REDSHIFTS)]
    """Redshifts of the snapshots, in the order in which they are made."""

    snapshots: Annotated[Whole, Field(ge=1, le=MOST_REDSHIFTS)] | None = None
    """How many snapshots a realization has: the number of redshifts, stated as a check."""

    galaxy_model: SuiteOrModel
    """How galaxies are drawn: hod, diffsky, rgrspit_diffsky_vX (the adapter rgrspit, which checks
    that version X is installed), or an installed galaxy model of another package."""

    parameters: dict[OptionName, Any] = {}
    """Parameters of the galaxy model; those that are not given have its defaults."""

    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 0
    """Seed of all draws; realization, redshift and slab make keys of their own from it."""

    min_mass_msunh: Annotated[Number, Field(ge=0, le=1e17)] = 1e10
    """Haloes of less mass are left out, in Msun/h."""

    slabs: Annotated[Whole, Field(ge=1, le=4096)] = 1
    """Logical slabs of a box, each with draws of its own. Fixed here and never by the number of
    processes, so that serial and parallel runs give equal catalogues."""

    @field_validator("redshifts")
    @classmethod
    def _check_redshifts(cls, redshifts: tuple[float, ...]) -> tuple[float, ...]:
        twice = sorted({z for z in redshifts if redshifts.count(z) > 1})
        if twice:
            raise ValueError(f"given twice: {', '.join(map(str, twice))}")
        return redshifts

    @field_validator("snapshots")
    @classmethod
    def _check_snapshots(cls, snapshots: int | None, info: ValidationInfo) -> int | None:
        redshifts = info.data.get("redshifts")
        if snapshots is not None and redshifts is not None and snapshots != len(redshifts):
            raise ValueError(
                f"should be the number of redshifts, which is {len(redshifts)}; leave it out, or "
                "complete the redshifts"
            )
        return snapshots
