"""How an attempt ended: its result file read, what is recorded of it, and what is told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pydantic import ValidationError

from muster import storage
from muster.errors import InvalidInput, MissingInput, one_line
from muster.model.attempt import Result
from muster.model.outcome import Observation, Outcome
from muster.store.records import Attempt, Ending

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.model.batch import Batch

log = logging.getLogger(__name__)


def read_results(
    batch: Batch, key: str, attempts: Mapping[int, Attempt]
) -> dict[int, Result | None]:
    """Read the results of a submission's attempts, by element index."""
    return {i: read_result(batch, key, i, attempt) for i, attempt in attempts.items()}


def read_result(batch: Batch, key: str, index: int, attempt: Attempt) -> Result | None:
    """Read the result of this very submission and attempt; None where there is none."""
    uri = batch.result_uri(index, attempt.number)
    try:
        result = Result.model_validate_json(storage.read_bytes(uri))
    except MissingInput:
        return None
    except (InvalidInput, ValidationError) as error:
        log.error("not a result, so none: %s", one_line(f"{uri}: {error}"))  # noqa: TRY400
        return None
    if result.submission != key or result.attempt != attempt.number:
        return None
    return result


def make_ending(
    attempt: Attempt, outcome: Outcome, look: Observation, result: Result | None
) -> Ending:
    """Put together what is known of how an attempt ended."""
    if result is None:
        return Ending(
            attempt_id=attempt.id,
            outcome=outcome,
            exit_code=look.exit_code,
            signal=look.signal,
            host=look.host,
            seconds=look.seconds,
            started_at=look.started_at,
            message=f"no result; the backend says {look.sighting.value}",
        )

    return Ending(
        attempt_id=attempt.id,
        outcome=outcome,
        exit_code=result.exit_code,
        signal=result.signal,
        host=result.host,
        seconds=result.seconds,
        max_rss_mib=result.max_rss_mib,
        error_class=result.error_class,
        message=result.message,
        facts=result.facts,
        started_at=result.started_at,
        artifacts=result.artifacts if outcome is Outcome.SUCCEEDED else (),
    )


def tell_ending(name: str, ending: Ending) -> None:
    """Log how an attempt ended, in one line."""
    took = f" after {ending.seconds:.1f} s" if ending.seconds is not None else ""
    peak = f", peak {ending.max_rss_mib:.0f} MiB" if ending.max_rss_mib is not None else ""
    why = f": {ending.message}" if ending.message else ""
    level = logging.INFO if ending.outcome is Outcome.SUCCEEDED else logging.WARNING
    log.log(level, "%s %s%s%s%s", name, ending.outcome.value, took, peak, why)
