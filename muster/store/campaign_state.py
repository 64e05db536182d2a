"""How a campaign stands over all of its runs.

An element's coordinates say where it stands.  A campaign's state at a step and coordinate is that
of the element of the newest run that has one there; what a run did not ask for says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from muster.store.campaigns import CampaignRecord, name_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from muster.store.database import Database

# Of each coordinate the element of the newest run.  Runs are numbered, so that one number tells
# both: to sort all elements of all runs takes five times as long as to hash them.
_NEWEST = """
    SELECT e.* FROM (
        SELECT max((r.place << 44) + e.id) & ((1::bigint << 44) - 1) AS id
        FROM (SELECT id, row_number() OVER (ORDER BY created_at, id) AS place FROM run
              WHERE campaign_id = %(campaign)s) AS r
        JOIN element e ON e.run_id = r.id
        WHERE e.realization IS NOT NULL AND e.state <> 'not_asked'
          AND (%(step)s::text IS NULL OR e.step = %(step)s)
        GROUP BY e.step, e.realization, e.redshift
    ) AS newest JOIN element e ON e.id = newest.id
"""

# An element whose newest attempt waits for its job is queued.
_STATE = """
    CASE WHEN e.state IN ('succeeded', 'reused') THEN 'completed'
         WHEN e.state = 'running' AND EXISTS (
             SELECT 1 FROM attempt WHERE element_id = e.id AND attempt.state = 'running')
         THEN 'running'
         WHEN e.state = 'running' THEN 'queued'
         WHEN e.state IN ('pending', 'missing_input', 'cancelled') THEN e.state
         ELSE 'failed' END
"""

STATES = (
    "pending", "queued", "running", "completed", "failed", "missing_input", "cancelled",
)  # fmt: skip
"""States of a campaign's elements."""

_STATUS = f"""
    SELECT redshift, state, count(*) FROM (
        SELECT e.redshift, {_STATE} AS state FROM ({_NEWEST}) AS e
    ) AS found GROUP BY 1, 2
"""

_ELEMENTS = f"""
    SELECT e.run_id, e.batch_id, e.step, e.group_name, e.name, e.realization, e.redshift,
           {_STATE} AS found, e.state, coalesce(a.message, e.reason), coalesce(a.number, 0),
           a.error_class, a.host, a.seconds, a.max_rss_mib, a.log_uri, a.started_at, a.ended_at
    FROM ({_NEWEST}) AS e
    LEFT JOIN LATERAL (
        SELECT * FROM attempt WHERE element_id = e.id ORDER BY number DESC LIMIT 1
    ) AS a ON true
    WHERE (%(realizations)s::int[] IS NULL OR e.realization = ANY(%(realizations)s))
      AND (%(redshifts)s::float8[] IS NULL OR e.redshift = ANY(%(redshifts)s))
      AND (%(outcomes)s::text[] IS NULL OR e.state = ANY(%(outcomes)s))
      AND (%(states)s::text[] IS NULL OR {_STATE} = ANY(%(states)s))
    ORDER BY e.step, e.realization, e.redshift
"""

_FAILURES = f"""
    SELECT e.step, e.state, coalesce(a.error_class, ''), count(*),
           (array_agg(e.name ORDER BY e.realization, e.redshift))[1],
           (array_agg(e.run_id ORDER BY e.realization, e.redshift))[1],
           (array_agg(coalesce(a.message, e.reason, '') ORDER BY e.realization, e.redshift))[1]
    FROM ({_NEWEST}) AS e
    LEFT JOIN LATERAL (
        SELECT error_class, message FROM attempt WHERE element_id = e.id
        ORDER BY number DESC LIMIT 1
    ) AS a ON true
    WHERE {_STATE} IN ('failed', 'missing_input', 'cancelled')
    GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3
"""

# By the newest success at each coordinate, of whichever run: a failure since has replaced no file.
_WHOLE = """
    SELECT DISTINCT ON (e.realization, e.redshift) e.realization, e.redshift,
           f.uri, a.facts ->> 'fingerprint', f.bytes, f.sha256, e.run_id,
           a.number, a.seconds, a.max_rss_mib, a.host
    FROM element e
    JOIN attempt a ON a.element_id = e.id AND a.outcome = 'succeeded'
    JOIN artifact f ON f.attempt_id = a.id AND f.name = %(artifact)s
    WHERE e.run_id = ANY(ARRAY(SELECT id FROM run WHERE campaign_id = %(campaign)s))
      AND e.step = %(step)s AND e.realization IS NOT NULL
    ORDER BY e.realization, e.redshift, a.ended_at DESC, a.id DESC
"""


@dataclass(frozen=True)
class CampaignStatus:
    """How many elements of a campaign are in which state.

    Attributes
    ----------
    counts : dict of str to int
        One of :data:`STATES` → number of coordinates; all of them are there.
    by_redshift : dict of float to dict of str to int
        The same for each redshift, ascending; states that no element has are left out.
    """

    counts: dict[str, int]
    by_redshift: dict[float | None, dict[str, int]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many coordinates were planned by any run."""
        return sum(self.counts.values())

    @property
    def success_rate(self) -> float | None:
        """Share of completed among completed and failed; None where there is neither."""
        ended = self.counts["completed"] + self.counts["failed"]
        return self.counts["completed"] / ended if ended else None


@dataclass(frozen=True)
class CampaignElement:
    """One coordinate of a campaign: the element of the newest run there, and its last attempt.

    Attributes
    ----------
    run_id, batch_id, step, group, name : str
        The element; it has no batch where it was not to be run.
    realization : int
    redshift : float or None
        Where it stands.
    state : str
        One of :data:`STATES`.
    outcome : str
        The element's own state: the outcome of its last attempt, or what the plan decided.
    message : str or None
        Why.
    attempts : int
        Number of its last attempt; 0 where it has none.
    error_class, host, seconds, max_rss_mib, log_uri, started_at, ended_at
        Of the last attempt; wall time in seconds, peak memory in MiB, times in UTC.
    """

    run_id: str
    batch_id: str | None
    step: str
    group: str
    name: str
    realization: int
    redshift: float | None
    state: str
    outcome: str
    message: str | None
    attempts: int
    error_class: str | None
    host: str | None
    seconds: float | None
    max_rss_mib: float | None
    log_uri: str | None
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True)
class FailureClass:
    """Elements of a campaign that ended alike, and the first of them as an example.

    ``error_class`` is empty where no attempt says one: a missing input, a node that failed.
    """

    step: str
    outcome: str
    error_class: str
    count: int
    example: str
    run_id: str
    message: str


@dataclass(frozen=True)
class WholeProduct:
    """A product that an attempt made and recorded.

    Attributes
    ----------
    uri, sha256 : str
        Where it was published, and its checksum.
    bytes : int
        Its size.
    fingerprint : str or None
        Of all that it is made from: the fact ``fingerprint`` of the attempt.
    run_id : str
        The run that made it.
    attempts : int
        Number, in that run, of the attempt that made it.
    seconds, max_rss_mib, host
        Of that attempt: wall time in seconds, peak memory in MiB, and where it ran.
    """

    uri: str
    fingerprint: str | None
    bytes: int
    sha256: str
    run_id: str
    attempts: int
    seconds: float | None
    max_rss_mib: float | None
    host: str | None


def read_campaign_status(
    db: Database, campaign_id: int, *, step: str | None = None
) -> CampaignStatus:
    """Count a campaign's elements by state, in all and for each redshift.

    Parameters
    ----------
    step : str, optional
        The only step that counts; by default all whose elements have coordinates.
    """
    with db.transaction() as cursor:
        cursor.execute(_STATUS, {"campaign": campaign_id, "step": step})
        rows = cursor.fetchall()
    counts = dict.fromkeys(STATES, 0)
    by_redshift: dict[float | None, dict[str, int]] = {}
    for redshift, state, count in sorted(rows, key=lambda row: (row[0] is None, row[0], row[1])):
        counts[state] += count
        by_redshift.setdefault(redshift, {})[state] = count
    return CampaignStatus(counts, by_redshift)


def read_campaign_elements(
    db: Database,
    campaign_id: int,
    *,
    step: str | None = None,
    states: Sequence[str] | None = None,
    outcomes: Sequence[str] | None = None,
    realizations: Sequence[int] | None = None,
    redshifts: Sequence[float] | None = None,
) -> list[CampaignElement]:
    """Read a campaign's elements at their coordinates, by step, realization and redshift.

    Parameters
    ----------
    step : str, optional
        The only step.
    states : sequence of str, optional
        The only states, of :data:`STATES`.
    outcomes : sequence of str, optional
        The only states of the elements' own: outcomes, and what a plan decides.
    realizations, redshifts : sequence, optional
        The only coordinates.
    """
    chosen = {
        "campaign": campaign_id,
        "step": step,
        "states": None if states is None else list(states),
        "outcomes": None if outcomes is None else [str(outcome) for outcome in outcomes],
        "realizations": None if realizations is None else list(realizations),
        "redshifts": None if redshifts is None else list(redshifts),
    }
    with db.transaction() as cursor:
        cursor.execute(_ELEMENTS, chosen)
        return [CampaignElement(*row) for row in cursor.fetchall()]


def read_failures(db: Database, campaign_id: int, *, step: str | None = None) -> list[FailureClass]:
    """Count what failed, was cancelled or had no input by outcome and error class, most first."""
    with db.transaction() as cursor:
        cursor.execute(_FAILURES, {"campaign": campaign_id, "step": step})
        return [FailureClass(*row) for row in cursor.fetchall()]


def find_whole(
    db: Database, campaign: CampaignRecord | str, step: str, *, artifact: str
) -> dict[tuple[int, float], WholeProduct]:
    """Find what a campaign has made already, by the record: no file is opened.

    Parameters
    ----------
    campaign : CampaignRecord or str
        The campaign, or its folder; of a folder that the store does not know nothing is found.
    step : str
        The step that made it.
    artifact : str
        Name of the output.

    Returns
    -------
    dict
        (realization, redshift) → the product of the newest success there.
    """
    with db.transaction() as cursor:
        if isinstance(campaign, str):
            cursor.execute("SELECT id FROM campaign WHERE folder = %s", (name_folder(campaign),))
            row = cursor.fetchone()
            if row is None:
                return {}
            campaign_id = int(row[0])
        else:
            campaign_id = campaign.id
        cursor.execute(_WHOLE, {"campaign": campaign_id, "step": step, "artifact": artifact})
        return {
            (realization, redshift): WholeProduct(*rest)
            for realization, redshift, *rest in cursor.fetchall()
        }
