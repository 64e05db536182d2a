"""Progress in the store: what attempts that run say of themselves, in one statement a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2.extras import execute_values

from muster.store.claims import holding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.model.attempt import Progress
    from muster.store.database import Database
    from muster.store.records import Claim

# Newer, and no step back: an attempt that was started twice may speak with two tongues.
_RECORD = """
    UPDATE attempt SET progress = v.progress, progress_message = v.message,
        progress_at = v.at::timestamptz, eta_at = v.eta_at::timestamptz
    FROM (VALUES %s) AS v (id, progress, message, at, eta_at)
    WHERE attempt.id = v.id AND attempt.state = 'running'
      AND v.progress >= coalesce(attempt.progress, 0)
      AND v.at::timestamptz > coalesce(attempt.progress_at, '-infinity')
"""


def record_progress(db: Database, claim: Claim, said: Mapping[int, Progress]) -> None:
    """Record what running attempts say of their progress: attempt id → its word.

    Raises
    ------
    ClaimLost
        When somebody else has taken the batch over.
    """
    if not said:
        return
    rows = [(attempt_id, p.fraction, p.message, p.at, p.eta_at) for attempt_id, p in said.items()]
    with holding(db, claim) as cursor:
        execute_values(
            cursor,
            _RECORD,
            rows,
            template="(%s, %s::float8, %s::text, %s, %s)",
            page_size=len(rows),
        )
