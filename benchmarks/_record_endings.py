"""How fast the ends of whole batches are recorded, beside an UPDATE and a commit an element."""

from __future__ import annotations

import json
import statistics
import time
from typing import TYPE_CHECKING, Any

from muster.model.attempt import Artifact
from muster.model.outcome import Outcome
from muster.model.resources import Resources
from muster.store import batches, claims
from muster.store.records import AttemptEnd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.store.database import Database

SPARE = "spare"
"""Name of the submissions that are made only to be ended."""


def measure_records(db: Database, ids: Sequence[str], repeat: int) -> dict[str, Any]:
    """Record the ends of batches by record_ends, and of others by an UPDATE an element."""
    rates: dict[str, list[float]] = {"states": [], "with_artifacts": [], "one_by_one": []}
    waiting = iter(ids)
    for _ in range(repeat):
        for how, found in rates.items():
            found.append(_record(db, next(waiting), how))
    peer = rates["one_by_one"]
    ratios = {
        how: [a / b for a, b in zip(rates[how], peer, strict=True)]
        for how in ("states", "with_artifacts")
    }
    return {
        "per_s": {how: round(statistics.median(found)) for how, found in rates.items()},
        "ratio": {how: round(statistics.median(found), 1) for how, found in ratios.items()},
        "ratios": {how: [round(r, 1) for r in found] for how, found in ratios.items()},
    }


def _record(db: Database, batch_id: str, how: str) -> float:
    """Return how many ends were recorded in a second."""
    claim = claims.take_claim(db, batch_id)
    record = batches.read_batch(db, claim)
    wanted = {e.id: (1, Resources(cpus=4), f"/logs/{e.index}") for e in record.elements}
    submission, _ = batches.intend_submission(db, claim, wanted)
    batches.record_submitted(db, claim, submission, SPARE)
    attempts = [a for e in batches.read_batch(db, claim).elements for a in e.attempts]
    ends = [
        AttemptEnd(
            a.id, Outcome.SUCCEEDED, exit_code=0, host="node01", seconds=60.0, max_rss_mib=512.0,
            facts={"galaxies": 1000}, artifacts=_artifacts(a.id) if how == "with_artifacts" else (),
        )
        for a in attempts
    ]  # fmt: skip
    started_s = time.perf_counter()
    if how == "one_by_one":  # less than we do: no claim, no artifact, no element
        for end in ends:
            with db.transaction() as cursor:
                cursor.execute(
                    "UPDATE attempt SET state = 'ended', ended_at = now(), outcome = %s,"
                    " exit_code = %s, host = %s, seconds = %s, max_rss_mib = %s, facts = %s"
                    " WHERE id = %s",
                    (end.outcome.value, end.exit_code, end.host, end.seconds,
                     end.max_rss_mib, json.dumps(end.facts), end.attempt_id),
                )  # fmt: skip
    else:
        batches.record_ends(db, claim, ends)
    return len(ends) / (time.perf_counter() - started_s)


def _artifacts(attempt: int) -> tuple[Artifact, ...]:
    media_type, uri = "application/x-hdf5", f"/mocks/{attempt}.hdf5"
    return (Artifact(name="mock", uri=uri, sha256="ab" * 32, bytes=1, media_type=media_type),)
