"""What a person may say to a run of a campaign: the campaign, and which part of it.

Importable without any compute package, since Airflow's side checks parameters too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from muster.errors import ConfigError
from muster.jobs.planning.params import IntervalParams
from muster.mocks.campaign.config import parse_campaign, read_campaign
from muster.mocks.campaign.selection import Selection, parse_realizations

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from muster.mocks.campaign.config import Campaign

SLICE_0 = datetime(2000, 1, 1, tzinfo=UTC)
"""The interval that starts here is slice 0, that of the next day slice 1."""


class MockParams(IntervalParams):
    """Parameters of a run of a campaign; the form shows what is said of each.

    Attributes
    ----------
    definition : dict
        The campaign itself, where no file is named: the blocks campaign, science, execution,
        resources and outputs of a campaign file.
    slice : int or None
        Only the n-th slice of execution.slice_realizations realizations, from 0; a backfill's
        interval says it: 2000-01-01 is slice 0, 2000-01-02 slice 1.
    realizations : str or None
        Only these realizations: 0-99,120.
    redshifts : tuple of float or None
        Only these redshifts: [1.1, 0.8].
    order : {"depth_first", "breadth_first"} or None
        Which catalogues come first; by default as the campaign says.
    first : int or None
        Only the first so many of them that are not there yet.
    failed_only : bool
        Only what failed or was cancelled in the campaign's runs so far.
    max_attempts : int or None
        With failed_only: not what failed so often in its newest run.
    verify : bool
        Look for the files of what the record says is there, and make again what is gone.
    dry_run : bool
        Decide and estimate, and make nothing.
    allow_dirty : bool
        Initialize the campaign although the code has changes that no commit has.
    quorum : float or None
        Fraction of the catalogues that must succeed; by default as the campaign says.
    interval_start, interval_end
        As in :class:`muster.jobs.planning.params.IntervalParams`.
    """

    definition: dict[str, Any]
    slice: Annotated[int, Field(ge=0)] | None = None
    realizations: str | None = None
    redshifts: tuple[float, ...] | None = None
    order: Literal["depth_first", "breadth_first"] | None = None
    first: Annotated[int, Field(ge=1)] | None = None
    failed_only: bool = False
    max_attempts: Annotated[int, Field(ge=1)] | None = None
    verify: bool = False
    dry_run: bool = False
    allow_dirty: bool = False
    quorum: Annotated[float, Field(ge=0, le=1)] | None = None

    FILE_KEYS: ClassVar[frozenset[str]] = frozenset({"definition"})
    FILE_TITLE: ClassVar[str] = "Campaign file"
    FILE_DESCRIPTION: ClassVar[str] = (
        "Absolute path of the campaign file, as Airflow's workers see it (config over REST); or "
        "leave it out, and give the campaign's blocks under Definition."
    )

    @classmethod
    def read_file(cls, path: Path, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the campaign of a campaign file, every key said and paths absolute."""
        if "definition" in said:
            raise ConfigError(
                "a campaign file and a definition are both given", where=path, do="leave one out"
            )
        return {**said, "definition": read_campaign(path).config.to_data()}

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        """Say every key of the campaign, so that what is recorded does not hang on defaults."""
        if not isinstance(data, dict) or not isinstance(data.get("definition"), dict):
            return data
        config = parse_campaign(data["definition"], "definition").config
        filled = {**data, "definition": config.to_data()}
        if filled.get("quorum") is None:
            filled["quorum"] = config.execution.quorum
        return filled

    @model_validator(mode="after")
    def _check_slice(self) -> MockParams:
        if self.interval_start is not None and self.slice is not None:
            raise ValueError("slice and an interval are both given: a backfill's interval says it")
        if self.realizations is not None:
            parse_realizations(self.realizations)
        return self

    @cached_property
    def campaign(self) -> Campaign:
        """The campaign."""
        return parse_campaign(self.definition, "definition")

    @property
    def slice_index(self) -> int | None:
        """Number of the slice, from the interval where there is one.

        Raises
        ------
        ConfigError
            When the interval is not a day from 2000-01-01 on.
        """
        start, _ = self.interval()
        if start is None:
            return self.slice
        if start < SLICE_0 or (start - SLICE_0).seconds or start.microsecond:
            raise ConfigError(
                "the interval is no slice",
                got=f"{start:%Y-%m-%dT%H:%M:%SZ}",
                expected="a day from 2000-01-01 on: that one is slice 0",
                do="start the backfill on 2000-01-01, a day a slice",
            )
        return (start - SLICE_0).days

    @property
    def selection(self) -> Selection:
        """Which part of the campaign the run is about; ``first`` counts what is not there yet."""
        chosen = self.realizations
        return Selection(
            slice_index=self.slice_index,
            realizations=None if chosen is None else parse_realizations(chosen),
            redshifts=self.redshifts,
            order=self.order,
        )
