"""The base of everything that is read from a file: immutable, and strict about unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base of everything that is read from a file: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
