"""Runs of a campaign that are not over, and what the record shows of who goes on with them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.store.claims import FOLLOWED_S, is_process_alive
from muster.store.records import RunState

if TYPE_CHECKING:
    from collections.abc import Collection

    from muster.store.database import Database

_UNFINISHED = """
    SELECT r.id, r.state, c.claimed_by,
           extract(epoch FROM now() - greatest(r.created_at, r.planned_at, c.heartbeat_at, (
               SELECT max(at) FROM event WHERE run_id = r.id)))::float8,
           extract(epoch FROM now() - c.heartbeat_at)::float8,
           coalesce(c.detached, false),
           EXISTS (SELECT 1 FROM batch b JOIN submission s ON s.batch_id = b.id
                   WHERE b.run_id = r.id AND s.state <> 'ended'
                     AND (b.detached OR r.state = 'planned' AND b.backend <> ALL (%s)))
    FROM run r CROSS JOIN LATERAL (
        SELECT (array_agg(claimed_by ORDER BY claimed_at DESC)
                FILTER (WHERE claimed_by IS NOT NULL))[1] AS claimed_by,
               max(heartbeat_at) AS heartbeat_at, bool_or(detached) AS detached
        FROM batch WHERE run_id = r.id
    ) AS c
    WHERE r.campaign_id = %s AND r.state IN ('open', 'planned')
    ORDER BY r.created_at DESC, r.id DESC
"""

_AHEAD = """
    SELECT realization, redshift FROM element
    WHERE run_id = %s AND step = %s AND realization IS NOT NULL
      AND batch_id IS NOT NULL AND state <> 'succeeded'
"""


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that is not over.

    Attributes
    ----------
    id : str
        The run.
    state : RunState
        Open or planned.
    claimed_by : str or None
        HOST:PID of the process that took a batch of it last; None where no process has yet.
    silent_s : float
        Seconds since the last sign of the run: a heartbeat, an event.
    heartbeat_age_s : float or None
        Seconds since the last heartbeat; None where there is none, or none any more.
    detached : bool
        Whether jobs of it were submitted to be left alone.
    has_jobs : bool
        Whether any of those, or of other jobs on a cluster, has not ended, as far as the record
        shows.
    """

    id: str
    state: RunState
    claimed_by: str | None
    silent_s: float
    heartbeat_age_s: float | None
    detached: bool
    has_jobs: bool

    def is_attended(self, silent_for_s: float) -> bool:
        """Tell whether a process, or the cluster alone, goes on with the run.

        Parameters
        ----------
        silent_for_s : float
            Seconds without a sign from which on the run is taken as left behind, where this host
            cannot tell whether its process runs.
        """
        if self.has_jobs:
            return True
        follows = self._is_followed()
        if not self.detached:
            return follows is not False and self.silent_s < silent_for_s
        age_s = self.heartbeat_age_s
        heard = follows is not False and age_s is not None and age_s < silent_for_s
        return heard or (follows is True and not self._is_own())

    @property
    def is_left_alone(self) -> bool:
        """Whether no process follows it: it was meant so, or its process was killed."""
        age_s = self.heartbeat_age_s
        silent = age_s is None or age_s >= FOLLOWED_S
        return self._is_followed() is False or (self.detached and silent)

    def _is_followed(self) -> bool | None:
        return is_process_alive(self.id, self.claimed_by)

    def _is_own(self) -> bool:
        return (self.claimed_by or "").endswith(f":{os.getpid()}")


def read_unfinished(
    db: Database, campaign_id: int, ending_with_process: Collection[str]
) -> list[UnfinishedRun]:
    """List the runs of a campaign that are not over, newest first.

    Parameters
    ----------
    ending_with_process : collection of str
        Backends whose jobs end with the process that submitted them.
    """
    with db.transaction() as cursor:
        cursor.execute(_UNFINISHED, (list(ending_with_process), campaign_id))
        return [
            UnfinishedRun(id_, RunState(state), *rest) for id_, state, *rest in cursor.fetchall()
        ]


def read_ahead(db: Database, run_id: str, step: str) -> set[tuple[int, float]]:
    """Read which coordinates a run has before it: planned to be made, and not made yet."""
    with db.transaction() as cursor:
        cursor.execute(_AHEAD, (run_id, step))
        return {(realization, redshift) for realization, redshift in cursor.fetchall()}
