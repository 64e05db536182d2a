"""Values of a campaign file: strict types, so that ``yes`` is no number and ``"3"`` no count."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict

from muster.frozen import Frozen

MOST_REALIZATIONS = 100_000
"""Numbers of realizations are below it."""

_LONGEST_TEXT = 2000


class Block(Frozen):
    """A block of the campaign file; what stands below a field describes it in the JSON Schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


def _check_printable(text: str) -> str:
    if not text.replace("\n", " ").isprintable():
        raise ValueError("holds control characters")
    return text


def number_as_text(value: Any) -> Any:
    """Take a number for the text that it is written as: ``version: 1.0``."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def check_increasing_range(low: float | None, high: float | None) -> None:
    """Refuse a range that holds nothing, or says nothing.

    Raises
    ------
    ValueError
        When neither end is given, or ``min`` is above ``max``.
    """
    if low is None and high is None:
        raise ValueError("a range needs min, max or both")
    if low is not None and high is not None and low > high:
        raise ValueError(f"min {low} is above max {high}")


Whole = Annotated[int, Strict()]
"""A whole number; true and 3.0 are none."""

Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
"""A finite number."""

Flag = Annotated[bool, Strict()]
"""true or false."""

Text = Annotated[str, Strict(), Field(max_length=_LONGEST_TEXT), AfterValidator(_check_printable)]
"""A text of at most 2,000 characters."""

SuiteOrModel = Annotated[str, Strict(), Field(pattern=r"^[A-Za-z][A-Za-z0-9_.+-]{0,63}$")]
"""Name of a simulation suite or galaxy model."""

JobTypeName = Annotated[str, Strict(), Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
"""Name of a site's job type."""


_Name = Annotated[str, Strict(), Field(min_length=1, max_length=64)]
_Version = Annotated[str, Strict(), Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,31}$")]
_Account = Annotated[str, Strict(), Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]

Name = Annotated[
    _Name,
    AfterValidator(_check_printable),
    BeforeValidator(number_as_text, json_schema_input_type=_Name | float),
]
"""A short text, which may be written without quotes where it looks like a number."""

Version = Annotated[
    _Version, BeforeValidator(number_as_text, json_schema_input_type=_Version | float)
]
"""A version; 1.10 may stand without quotes."""

Account = Annotated[
    _Account, BeforeValidator(number_as_text, json_schema_input_type=_Account | float)
]
"""An account of Slurm."""


Redshift = Annotated[Number, Field(ge=0, le=50), AfterValidator(lambda redshift: redshift + 0.0)]
"""A redshift; -0.0 is 0.0, which has another text and so another name of a file."""

RealizationNumber = Annotated[Whole, Field(ge=0, lt=MOST_REALIZATIONS)]
"""Number of a realization."""
