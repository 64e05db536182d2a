"""What SQL reads out of stored JSON, by rows that an earlier version has left.

No type checker sees the keys that stand in SQL: a field that is renamed in the model, or there,
would make the query find nothing, and say so to nobody.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from muster.store import (
    batches,
    campaign_state,
    campaigns,
    claims,
    clusters,
    history,
    retention,
    runs,
)
from tests.integration.pins.stored_rows import insert_batch, insert_run
from tests.unit.pins.frozen import slurm_batch
from tests.unit.pins.golden_files import check_literal

if TYPE_CHECKING:
    from muster.store.database import Database

SPEC = "is stored in batch.spec of runs that go on"
PATTERN = r"[A-Za-z0-9_.]+-[0-9a-f]{16}\.tif"


@pytest.fixture
def run_id(db: Database) -> str:
    return insert_run(db)


def test_the_whole_of_a_stored_batch_is_read(db: Database, run_id: str) -> None:
    assert batches.read_spec(db, insert_batch(db)) == slurm_batch()


def test_open_jobs_are_found_by_the_cluster_and_counted_by_the_pack(
    db: Database, run_id: str
) -> None:
    """Three elements by two a task: the open one, the third, is in task 1."""
    insert_batch(db)
    found = [(job.key, job.reference, job.tasks) for job in clusters.read_open_jobs(db, "genoa")]
    check_literal("spec -> slurm -> cluster, pack", found, [("key", "4711", (1,))], SPEC)
    assert clusters.read_open_jobs(db, "slurm") == []


def test_clusters_that_see_another_work_directory_are_found(db: Database, run_id: str) -> None:
    insert_batch(db)
    found = runs.read_clusters_elsewhere(db, run_id)
    check_literal("spec -> slurm -> cluster, work_root", found, ["genoa"], SPEC)


def test_a_clear_runs_an_inspection_again_although_it_has_succeeded(
    db: Database, run_id: str
) -> None:
    batch_id = insert_batch(db, submission="ended")
    claims.take_claim(db, batch_id, fresh=True)
    states = {element.state for element in batches.read_elements(db, batch_id)}
    check_literal("spec ->> looks", states, {"pending"}, SPEC)


def test_a_run_that_is_inspected_again_is_being_planned(db: Database, run_id: str) -> None:
    insert_batch(db, submission="ended")
    use = retention.read_band_use(db, datetime.now(UTC) - timedelta(days=1), PATTERN)
    check_literal("spec ->> looks", use.planning, (run_id,), SPEC)


def test_bands_that_a_plan_named_are_in_use(db: Database, run_id: str) -> None:
    """Of a run without batches: only its facts name what it reuses."""
    use = retention.read_band_use(db, datetime.now(UTC) - timedelta(days=1), PATTERN)
    kept = frozenset({"aoa-0123456789abcdef.tif"})
    check_literal("facts -> bands", use.names, kept, "is stored in run.facts of runs that go on")


def test_caps_and_deadline_are_read_for_advice(db: Database, run_id: str) -> None:
    insert_batch(db)
    (placed,) = history.read_placed(db, run_id)
    check_literal(
        "spec -> caps, deadline_s",
        (placed.caps.model_dump(), placed.deadline_s),
        ({"memory_mib": 256000, "time_limit_s": 86400}, 172800),
        SPEC,
    )


def test_how_long_a_step_took_is_told_apart_by_its_cpus_and_gpus(db: Database, run_id: str) -> None:
    insert_batch(db)
    found = [(t.step, t.cpus, t.gpus, t.seconds) for t in history.read_took(db, ["traits.aoa"])]
    check_literal(
        "resources ->> cpus, gpus",
        found,
        [("traits.aoa", 8, 2, (10.0, 20.0))],
        "is stored in attempt.resources of all that ever ran",
    )


def test_ranks_and_nodes_of_a_stored_batch_count_in_its_hours(db: Database, run_id: str) -> None:
    insert_batch(db)
    tried = {(attempt.ranks, attempt.nodes) for attempt in history.read_tried(db, run_id)}
    took = {took.ranks for took in history.read_took(db, ["traits.aoa"])}
    check_literal("spec -> slurm -> ntasks, nodes", (tried, took), ({(4, 2)}, {4}), SPEC)


def test_resources_of_stored_attempts_are_read(db: Database, run_id: str) -> None:
    batch_id = insert_batch(db)
    check_literal(
        "attempt.resources",
        batches.read_elements(db, batch_id)[0].attempts[0].resources.model_dump(),
        {"cpus": 8, "gpus": 2, "memory_mib": 131072, "time_limit_s": 14400},
        "is stored in attempt.resources of all that ever ran",
    )


def test_the_fingerprint_of_what_an_attempt_made_is_one_of_its_facts(
    db: Database, run_id: str
) -> None:
    batch_id = insert_batch(db)
    campaign = campaigns.create_campaign(
        db, name="Bright", version="v1", folder="/c/v1_bright", config={}, config_sha256="0" * 64
    )
    with db.transaction() as cursor:
        cursor.execute("UPDATE run SET campaign_id = %s", (campaign.id,))
        cursor.execute("UPDATE element SET realization = 7, redshift = 1.1 WHERE batch_id = %s"
                       " AND index = 0", (batch_id,))  # fmt: skip
        cursor.execute('UPDATE attempt SET facts = \'{"fingerprint": "0123"}\'')
        cursor.execute("INSERT INTO artifact (attempt_id, name, uri, sha256, bytes, media_type)"
                       " SELECT id, 'catalogue', '/c.hdf5', repeat('0', 64), 17, 'x' FROM attempt"
                       " WHERE outcome = 'succeeded'")  # fmt: skip
    whole = campaign_state.find_whole(db, campaign, "traits.aoa", artifact="catalogue")
    check_literal(
        "attempt.facts ->> fingerprint",
        {where: (one.uri, one.fingerprint) for where, one in whole.items()},
        {(7, 1.1): ("/c.hdf5", "0123")},
        "is stored in attempt.facts of every catalogue",
    )


def test_a_fact_of_a_run_is_kept_beside_those_of_its_plan(db: Database, run_id: str) -> None:
    runs.record_fact(db, run_id, "report", "/maps/reports/r.html")
    check_literal(
        "run.facts",
        runs.read_run(db, run_id).facts,
        {
            "bands": ["aoa-0123456789abcdef.tif"],
            "products": {"SLA": "/maps/SLA.tif"},
            "report": "/maps/reports/r.html",
        },
        "is stored in run.facts",
    )
