"""Pod templates in the store: what Airflow has made of a batch's pod, for each of its waves.

A template belongs to a generation: a cleared task renders its own, and what the waves of an earlier
one were submitted with stays in the record.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from muster.store.claims import holding
from muster.store.json_text import render_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.store.database import Database
    from muster.store.records import Claim

_RECORD = """
    INSERT INTO batch_pod (batch_id, generation, template)
    SELECT id, generation, %s FROM batch WHERE id = %s
    ON CONFLICT (batch_id, generation) DO UPDATE SET template = excluded.template, at = now()
"""

_READ = """
    SELECT p.template::text FROM batch_pod p JOIN batch b ON b.id = p.batch_id
    WHERE b.id = %s AND p.generation = b.generation
"""


def record_pod(db: Database, claim: Claim, template: Mapping[str, Any]) -> None:
    """Record the pod template of a batch's present generation.

    Raises
    ------
    ClaimLost
        When another supervisor has taken the batch over.
    """
    with holding(db, claim) as cursor:
        cursor.execute(_RECORD, (render_json(template), claim.batch_id))


def read_pod(db: Database, batch_id: str) -> dict[str, Any] | None:
    """Read the pod template of a batch's present generation; None if none was recorded."""
    with db.transaction() as cursor:
        cursor.execute(_READ, (batch_id,))
        row = cursor.fetchone()
    if row is None:
        return None
    template: dict[str, Any] = json.loads(row[0])
    return template
