"""A campaign in the store, planned as a real one and ended as a test says; nothing is computed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.config import parse_config
from muster.jobs.planning.plan_run import freeze_plan
from muster.model.coordinates import Coordinates
from muster.model.plan import Decision, Plan, PlannedElement, PlannedPlacement
from muster.model.resources import PartialResources
from muster.model.retry_policy import RetryPolicy
from muster.site import Site
from muster.store import campaigns, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from muster.jobs.planning.freeze import Group
    from muster.store.campaigns import CampaignRecord
    from muster.store.database import Database

STEP = "mocks.populate"
REDSHIFTS = tuple(round(0.1 * n, 1) for n in range(1, 21))

Coordinate = tuple[int, float]


def make_site(folder: Path) -> Site:
    """Make a site with two pools on Slurm, and job types for both."""
    pool = {"backend": "slurm", "slots": 100, "max_memory": "64GiB", "max_time": "04:00:00"}
    return parse_config(
        Site,
        {
            "name": "scripted",
            "work": str(folder / "work"),
            "pools": {
                "cpu": {**pool, "partition": "genoa", "account": "m1"},
                "gpu": {**pool, "partition": "l40s", "gres": "gpu:l40s"},
                "here": {"backend": "local", "slots": 2},
            },
            "clusters": {"slurm": {}},
            "placement": {
                STEP: {"pool": "cpu", "cpus": 4, "memory": "4GiB", "time": "02:00:00"},
                "mocks.collect": {"pool": "cpu", "memory": "1GiB"},
            },
            "job_types": {
                "gpu_intensive": {
                    "pool": "gpu", "cpus": 8, "gpus": 2, "memory": "48GiB", "time": "01:00:00",
                },
                "local": {"pool": "here"},
            },
        },
        "scripted.toml",
    )  # fmt: skip


def make_campaign(db: Database, folder: Path, version: str = "v1") -> CampaignRecord:
    """Record a campaign."""
    return campaigns.create_campaign(
        db,
        name="Bright",
        version=version,
        folder=str(folder / "campaigns" / f"{version}_bright"),
        config={"campaign": {"name": "Bright", "version": version}},
        config_sha256="ab" * 32,
        provenance={"code_version": "1"},
    )


def plan_coordinate(
    folder: Path, coordinate: Coordinate, group: str, **more: Any
) -> PlannedElement:
    """Plan the element at a coordinate."""
    realization, z = coordinate
    name = f"r{realization:04d}_z{z:.3f}"
    catalogue = folder / "campaigns" / "v1_bright" / "catalogs" / f"r{realization:04d}"
    said: dict[str, Any] = {
        "decision": Decision.RUN,
        "reason": "never made",
        "inputs": {
            "realization": realization,
            "redshift": z,
            "halos": {"folder": str(folder / "halos" / f"ph{realization:04d}" / f"z{z:.3f}")},
            "fingerprint": fingerprint(coordinate),
        },
        "outputs": {"catalogue": str(catalogue / f"mock_z{z:.3f}.hdf5")},
        "coordinates": Coordinates(realization=realization, redshift=z),
        # more memory where haloes are many
        "resources": PartialResources(memory_factor=2.0) if z < 0.5 else None,
    }
    return PlannedElement(step=STEP, name=name, group=group, **{**said, **more})


def fingerprint(coordinate: Coordinate) -> str:
    """Say what stands for the fingerprint of a catalogue."""
    return f"{coordinate[0]:08d}{round(coordinate[1] * 1000):08d}"


def plan_run(
    db: Database,
    site: Site,
    folder: Path,
    campaign: CampaignRecord,
    run_id: str,
    elements: Sequence[PlannedElement],
    array_size: int | None = 100,
) -> list[Group]:
    """Open a run of a campaign, leave its plan as an inspection would, and freeze it."""
    work_uri = storage.join(site.work_uri, "runs", run_id)
    runs.open_run(
        db, run_id, workflow="mock_campaign", params={}, work_uri=work_uri, campaign_id=campaign.id
    )
    placement = PlannedPlacement(
        step=STEP,
        account="m4321",
        retries=RetryPolicy(max_retries=3),
        array_size=array_size,
    )
    plan = Plan(workflow="mock_campaign", elements=tuple(elements), placements=(placement,))
    storage.write_text(storage.join(work_uri, "plan.json"), plan.model_dump_json())
    return freeze_plan(db, site, run_id)


def end_elements(
    db: Database,
    run_id: str,
    outcome_of: Callable[[Coordinate], str | None] | Mapping[Coordinate, str],
    errors: Mapping[str, str] | None = None,
    only: Iterable[str] = (STEP,),
) -> None:
    """Let every pending element of a run have an attempt that ended; None leaves it pending.

    ``queued`` and ``running`` are attempts that have not.
    """
    find = outcome_of if callable(outcome_of) else outcome_of.get
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT id, realization, redshift, batch_id FROM element WHERE run_id = %s"
            " AND state = 'pending' AND step = ANY(%s) ORDER BY id",
            (run_id, list(only)),
        )
        rows = [
            {"id": id_, "batch": batch, "fingerprint": fingerprint((r, z)), "r": r, "z": z,
             "outcome": outcome, "error": (errors or {}).get(outcome)}
            for id_, r, z, batch in cursor.fetchall()
            if (outcome := find((r, z))) is not None
        ]  # fmt: skip
        cursor.execute(_END, {"rows": json.dumps(rows)})


_END = """
    CREATE TEMPORARY TABLE ended ON COMMIT DROP AS
    SELECT * FROM json_to_recordset(%(rows)s) AS v (
        id bigint, batch text, fingerprint text, r int, z float8, outcome text, error text);
    UPDATE batch SET wave = wave + 1 WHERE id IN (SELECT batch FROM ended);
    INSERT INTO submission (batch_id, wave, key, fingerprint, state, claim, reference)
    SELECT b.id, b.wave, b.id || '.w' || b.wave, b.fingerprint, 'submitted',
           '00000000-0000-0000-0000-000000000001', '1'
    FROM batch b WHERE b.id IN (SELECT batch FROM ended);
    INSERT INTO attempt (element_id, submission_id, number, generation, state, outcome, resources,
                         seconds, max_rss_mib, host, error_class, message, facts, started_at,
                         ended_at)
    SELECT e.id, s.id, 1 + coalesce((SELECT max(number) FROM attempt WHERE element_id = e.id), 0),
           1, CASE e.outcome WHEN 'queued' THEN 'submitted' WHEN 'running' THEN 'running'
                             ELSE 'ended' END,
           CASE WHEN e.outcome NOT IN ('queued', 'running') THEN e.outcome END,
           '{"cpus": 4, "gpus": 0, "memory_mib": 4096, "time_limit_s": 7200}', 142.0, 3000.0,
           'node' || e.id %% 50, e.error, e.error || ': planted',
           jsonb_build_object('fingerprint', e.fingerprint, 'galaxies', 100000), now(),
           CASE WHEN e.outcome NOT IN ('queued', 'running') THEN now() END
    FROM ended e JOIN batch b ON b.id = e.batch
    JOIN submission s ON s.batch_id = b.id AND s.wave = b.wave;
    UPDATE element SET reason = ended.error || ': planted',
        state = CASE WHEN outcome IN ('queued', 'running') THEN 'running' ELSE outcome END
    FROM ended WHERE element.id = ended.id;
    INSERT INTO artifact (attempt_id, name, uri, sha256, bytes, media_type)
    SELECT a.id, 'catalogue', '/campaigns/v1_bright/r' || e.r || '/z' || e.z || '.hdf5',
           encode(sha256(convert_to(e.fingerprint, 'UTF8')), 'hex'), 1000 + e.r,
           'application/x-hdf5'
    FROM ended e JOIN attempt a ON a.element_id = e.id AND a.outcome = 'succeeded';
"""
