"""Rows of a store as an earlier version has left them: written by hand, with golden JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.unit.pins.golden_files import read_golden

if TYPE_CHECKING:
    from muster.store.database import Database

CLAIM = "00000000-0000-0000-0000-000000000001"
RESOURCES = '{"cpus": 8, "gpus": 2, "memory_mib": 131072, "time_limit_s": 14400}'
FACTS = '{"bands": ["aoa-0123456789abcdef.tif"], "products": {"SLA": "/maps/SLA.tif"}}'


def insert_run(db: Database, state: str = "planned") -> str:
    """Insert the run of the golden batch, and return its id."""
    run_id: str = json.loads(read_golden("batch-slurm.json"))["run"]
    with db.transaction() as cursor:
        cursor.execute(
            "INSERT INTO run (id, workflow, state, params, work_uri, facts, planned_at, ended_at)"
            " VALUES (%s, 'trait_inference', %s, '{}', '/shared/muster/work/runs/r', %s,"
            " now() - interval '1 hour', CASE WHEN %s = 'planned' THEN NULL ELSE now() END)",
            (run_id, state, FACTS, state),
        )
    return run_id


def insert_batch(db: Database, submission: str | None = "submitted") -> str:
    """Insert the golden batch, its three elements, and an attempt of each; return its id.

    The first two elements have succeeded in 10 and 20 s, the last one is open while there is a
    submission that has not ended.
    """
    text = read_golden("batch-slurm.json")
    spec = json.loads(text)
    with db.transaction() as cursor:
        cursor.execute(
            "INSERT INTO batch (id, run_id, step, group_name, backend, pool, spec, fingerprint,"
            " heartbeat_at) VALUES (%s, %s, %s, 'SLA', 'slurm', %s, %s, 'f', now())",
            (spec["id"], spec["run"], spec["step"], spec["pool"], text),
        )
        for element in spec["elements"]:
            cursor.execute(
                "INSERT INTO element (run_id, batch_id, step, group_name, name, index, state)"
                " VALUES (%s, %s, %s, 'SLA', %s, %s, 'succeeded')",
                (spec["run"], spec["id"], spec["step"], element["name"], element["index"]),
            )
        if submission is None:
            return str(spec["id"])
        cursor.execute(
            "INSERT INTO submission (batch_id, wave, key, fingerprint, state, claim, reference,"
            " submitted_at) VALUES (%s, 1, 'key', 'f', %s, %s, '4711', now()) RETURNING id",
            (spec["id"], submission, CLAIM),
        )
        (submission_id,) = cursor.fetchone() or (0,)
        cursor.execute(
            "INSERT INTO attempt (element_id, submission_id, number, generation, resources, state,"
            " outcome, seconds, ended_at)"
            " SELECT id, %(submission)s, 1, 1, %(resources)s, CASE WHEN open THEN 'running' ELSE"
            " 'ended' END, CASE WHEN NOT open THEN 'succeeded' END, (index + 1) * 10,"
            " CASE WHEN NOT open THEN now() END FROM (SELECT *, index = 2 AND %(state)s <> 'ended'"
            " AS open FROM element WHERE batch_id = %(batch)s) AS found",
            {
                "submission": submission_id,
                "resources": RESOURCES,
                "state": submission,
                "batch": spec["id"],
            },
        )
    return str(spec["id"])
