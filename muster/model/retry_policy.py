"""The retry policy that a batch is frozen with, where a campaign has one of its own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from muster.frozen import Frozen

Delay = Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)]


class RetryPolicy(Frozen):
    """How often an element is tried again, and after which delay.

    The policy caps the budgets that every batch has; it raises none.

    Attributes
    ----------
    max_retries : int or None
        The most further attempts of an element in one generation, of all outcomes together but
        the free ones (node_failed, preempted, lost, superseded); None sets no cap.
    backoff : {"exponential", "fixed", "none"}
        The delay doubles with each failure, is the first one always, or is none.
    first_delay_s, longest_delay_s : float or None
        Delay after the first failure, and the most it grows to, in seconds; None leaves the
        supervisor's own.
    """

    max_retries: Annotated[int, Field(ge=0, le=100)] | None = None
    backoff: Literal["exponential", "fixed", "none"] = "exponential"
    first_delay_s: Delay | None = None
    longest_delay_s: Delay | None = None
