"""A campaign in the store: its record, its state over several runs, and what it has made."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from muster.errors import IllegalTransition, InvalidInput, MissingInput
from muster.jobs.planning.plan_run import open_run
from muster.jobs.planning.workflow import Preparation, load_workflow
from muster.jobs.retention.retention import clean_work
from muster.jobs.runs.verdict import give_verdict
from muster.mocks.record import read_facts, record_campaign
from muster.model.coordinates import Coordinates
from muster.model.plan import Decision
from muster.model.step import StepContext
from muster.store import batches, campaigns, claims, runs
from muster.store.campaign_state import (
    STATES,
    find_whole,
    read_campaign_elements,
    read_campaign_status,
    read_failures,
)
from muster.store.database import Database
from tests.batches import make_batch
from tests.stored_campaign import (
    REDSHIFTS,
    STEP,
    end_elements,
    fingerprint,
    make_campaign,
    make_site,
    plan_coordinate,
    plan_run,
)
from tests.work_bench import PARAMS, Bench

if TYPE_CHECKING:
    from muster.jobs.planning.params import RunParams
    from muster.site import Site
    from muster.store.campaigns import CampaignRecord

ENDS = {
    (0, 0.1): "succeeded", (0, 0.2): "succeeded", (1, 0.1): "software_error",
    (1, 0.2): "out_of_memory", (2, 0.1): "queued", (2, 0.2): "running",
}  # fmt: skip
"""How the first run of the small campaign ended; (3, 0.1) is pending."""
MISSING = (3, 0.2)


@pytest.fixture
def campaign(db: Database, tmp_path: Path) -> CampaignRecord:
    """A campaign of 4 × 2 elements after its first run, none of which have the same state twice."""
    record = make_campaign(db, tmp_path)
    elements = [
        plan_coordinate(tmp_path, (r, z), f"r{r}")
        if (r, z) != MISSING
        else plan_coordinate(
            tmp_path, (r, z), f"r{r}", decision=Decision.MISSING_INPUT, reason="no haloes"
        )
        for r in range(4)
        for z in (0.1, 0.2)
    ]
    plan_run(db, make_site(tmp_path), tmp_path, record, "first", elements)
    end_elements(db, "first", ENDS, {"software_error": "ModelError"})
    return record


def again(
    db: Database, folder: Path, record: CampaignRecord, run_id: str, *where: tuple[int, float]
) -> None:
    elements = [plan_coordinate(folder, one, "again") for one in where]
    plan_run(db, make_site(folder), folder, record, run_id, elements)


def counts(**given: int) -> dict[str, int]:
    return {**dict.fromkeys(STATES, 0), **given}


# -- the record ---------------------------------------------------------------------------------


def test_a_campaign_is_recorded_once_and_found_as_people_name_it(
    db: Database, tmp_path: Path
) -> None:
    first = make_campaign(db, tmp_path)
    assert make_campaign(db, tmp_path) == first
    second = make_campaign(db, tmp_path, "v2")
    assert [c.version for c in campaigns.list_campaigns(db)] == ["v2", "v1"]
    assert campaigns.read_campaign(db, first.id) == first
    assert campaigns.find_campaign(db, "Bright") == second, "the newest version"
    assert campaigns.find_campaign(db, "Bright", "v1") == first
    for named in (first.folder, f"{first.folder}/", f"file://{first.folder}", "v1_bright"):
        assert campaigns.find_campaign(db, named) == first, named
    for named in ("Bright v1", "v1 bright"):
        assert campaigns.find_campaign(db, named) == first, named
    with pytest.raises(MissingInput, match=r"no such campaign; where: store .* at .*; got: Dark"):
        campaigns.find_campaign(db, "Dark")
    with pytest.raises(MissingInput, match=r"where: store in /home/\.muster; got: Dark"):
        campaigns.find_campaign(Database(db.url, place="store in /home/.muster"), "Dark")
    secret = Database("postgresql://me:hidden@pg.example:5433/muster")
    assert secret.place == "store muster at pg.example:5433"
    with pytest.raises(MissingInput, match="version v3"):
        campaigns.find_campaign(db, "Bright", "v3")
    with pytest.raises(MissingInput, match="no such campaign"):
        campaigns.read_campaign(db, 999)


def test_realizations_may_join_a_campaign(db: Database, tmp_path: Path) -> None:
    record = make_campaign(db, tmp_path)
    joined = campaigns.create_campaign(
        db, name=record.name, version=record.version, folder=record.folder,
        config={"science": {"realizations": 4000}}, config_sha256=record.config_sha256,
        provenance={"code_version": "2"},
    )  # fmt: skip
    assert (joined.id, joined.created_at) == (record.id, record.created_at)
    assert joined.config == {"science": {"realizations": 4000}}


@pytest.mark.parametrize("other", [{"config_sha256": "cd" * 32}, {"folder": "/elsewhere"}])
def test_a_changed_campaign_needs_another_version(
    db: Database, tmp_path: Path, other: dict[str, str]
) -> None:
    record = make_campaign(db, tmp_path)
    same = {"name": record.name, "version": record.version, "folder": record.folder,
            "config_sha256": record.config_sha256}  # fmt: skip
    with pytest.raises(InvalidInput, match="give a changed campaign another version"):
        campaigns.create_campaign(db, config=record.config, **{**same, **other})
    with pytest.raises(InvalidInput, match="is there already"):
        campaigns.create_campaign(db, config={}, **{**same, "name": "Dark"})
    assert campaigns.list_campaigns(db) == [record]


@pytest.mark.parametrize(
    "change", ["name = 'Dark'", "version = 'v9'", "config_sha256 = repeat('0', 64)"]
)
def test_the_database_refuses_to_change_a_campaign(
    db: Database, tmp_path: Path, change: str
) -> None:
    make_campaign(db, tmp_path)
    with pytest.raises(IllegalTransition, match="make a new version"), db.transaction() as cursor:
        cursor.execute(f"UPDATE campaign SET {change}")


# -- its state ----------------------------------------------------------------------------------


def test_elements_are_counted_by_state_in_all_and_by_redshift(
    db: Database, campaign: CampaignRecord
) -> None:
    status = read_campaign_status(db, campaign.id)
    assert status.counts == counts(
        completed=2, failed=2, queued=1, running=1, pending=1, missing_input=1
    )
    assert status.total == 8
    assert status.success_rate == 0.5
    assert status.by_redshift == {
        0.1: {"completed": 1, "failed": 1, "queued": 1, "pending": 1},
        0.2: {"completed": 1, "failed": 1, "running": 1, "missing_input": 1},
    }
    assert read_campaign_status(db, campaign.id, step="mocks.qa").total == 0
    assert read_campaign_status(db, campaign.id, step="mocks.qa").success_rate is None


def test_the_newest_run_of_a_coordinate_says_its_state(
    db: Database, campaign: CampaignRecord, tmp_path: Path
) -> None:
    """A run of a part leaves the other coordinates as they were."""
    again(db, tmp_path, campaign, "second", (1, 0.1), (1, 0.2))
    assert read_campaign_status(db, campaign.id).counts == counts(
        completed=2, queued=1, running=1, pending=3, missing_input=1
    )
    end_elements(db, "second", {(1, 0.1): "succeeded", (1, 0.2): "lost"})
    assert read_campaign_status(db, campaign.id).counts == counts(
        completed=3, failed=1, queued=1, running=1, pending=1, missing_input=1
    )
    # the older run goes on, or is planned again: the newer one still has the say
    end_elements(db, "first", {(3, 0.1): "succeeded"})
    found = {(e.realization, e.redshift): e for e in read_campaign_elements(db, campaign.id)}
    assert found[1, 0.1].run_id == "second"
    assert found[3, 0.1].run_id == "first"
    assert [r.id for r in campaigns.read_campaign_runs(db, campaign.id)] == ["second", "first"]
    assert runs.read_run(db, "second").campaign_id == campaign.id


@pytest.mark.parametrize(
    ("decision", "expected"),
    [(Decision.REUSED, "completed"), (Decision.NOT_ASKED, "failed"),
     (Decision.MISSING_INPUT, "missing_input")],
)  # fmt: skip
def test_what_a_newer_run_does_not_ask_for_says_nothing(
    db: Database, campaign: CampaignRecord, tmp_path: Path, decision: Decision, expected: str
) -> None:
    element = plan_coordinate(tmp_path, (1, 0.1), "again", decision=decision, reason="because")
    plan_run(db, make_site(tmp_path), tmp_path, campaign, "second", [element])
    (found,) = read_campaign_elements(db, campaign.id, realizations=[1], redshifts=[0.1])
    assert found.state == expected


def test_another_campaign_is_not_counted(
    db: Database, campaign: CampaignRecord, tmp_path: Path
) -> None:
    other = make_campaign(db, tmp_path, "v2")
    again(db, tmp_path, other, "of-other", (0, 0.1))
    assert read_campaign_status(db, other.id).counts == counts(pending=1)
    assert read_campaign_status(db, campaign.id).counts["pending"] == 1


def test_runs_that_are_opened_side_by_side_share_no_batch_number(
    db: Database, campaign: CampaignRecord
) -> None:
    def reserve(run: str, count: int) -> range:
        first = campaigns.reserve_batch_numbers(db, campaign.id, run, count)
        return range(first, first + count)

    with ThreadPoolExecutor(8) as pool:
        reserved = list(pool.map(reserve, (f"run{i}" for i in range(8)), range(1, 9)))
    numbers = [number for one in reserved for number in one]
    assert sorted(numbers) == list(range(sum(range(1, 9))))

    assert reserve("run3", 2)[0] == reserved[3][0], "opened again, with fewer"
    more = reserve("run3", 40)
    others = {n for i, one in enumerate(reserved) if i != 3 for n in one}
    assert others.isdisjoint(more)
    assert {*others, *more}.isdisjoint(reserve("new", 1))


def test_elements_are_filtered_by_state_outcome_and_coordinate(
    db: Database, campaign: CampaignRecord
) -> None:
    def names(**chosen: object) -> list[str]:
        found = read_campaign_elements(db, campaign.id, **chosen)  # type: ignore[arg-type]
        return [e.name for e in found]

    assert len(names()) == 8
    assert names(states=["failed"]) == ["r0001_z0.100", "r0001_z0.200"]
    assert names(outcomes=["out_of_memory"]) == ["r0001_z0.200"]
    assert names(realizations=[0, 3], redshifts=[0.1]) == ["r0000_z0.100", "r0003_z0.100"]
    assert names(states=["missing_input", "running"]) == ["r0002_z0.200", "r0003_z0.200"]
    (failed,) = read_campaign_elements(db, campaign.id, outcomes=["software_error"])
    assert (failed.attempts, failed.error_class, failed.message) == (
        1, "ModelError", "ModelError: planted",
    )  # fmt: skip
    assert (failed.seconds, failed.max_rss_mib, failed.group) == (142.0, 3000.0, "r1")
    (missing,) = read_campaign_elements(db, campaign.id, states=["missing_input"])
    assert (missing.attempts, missing.message, missing.batch_id) == (0, "no haloes", None)


def test_failures_are_counted_by_class_with_an_example(
    db: Database, campaign: CampaignRecord
) -> None:
    found = {(f.outcome, f.error_class): f for f in read_failures(db, campaign.id)}
    assert set(found) == {
        ("software_error", "ModelError"), ("out_of_memory", ""), ("missing_input", ""),
    }  # fmt: skip
    planted = found["software_error", "ModelError"]
    assert (planted.count, planted.example, planted.run_id) == (1, "r0001_z0.100", "first")
    assert planted.message == "ModelError: planted"
    assert found["missing_input", ""].message == "no haloes"


def test_what_is_whole_is_known_from_the_record_of_the_newest_success(
    db: Database, campaign: CampaignRecord, tmp_path: Path
) -> None:
    again(db, tmp_path, campaign, "second", (0, 0.1), (1, 0.1))
    end_elements(db, "second", {(0, 0.1): "transient", (1, 0.1): "succeeded"})
    whole = find_whole(db, campaign, STEP, artifact="catalogue")
    assert set(whole) == {(0, 0.1), (0, 0.2), (1, 0.1)}
    assert whole[0, 0.1].run_id == "first", "a later failure has replaced no file"
    assert whole[1, 0.1].run_id == "second"
    assert whole[1, 0.1].fingerprint == fingerprint((1, 0.1))
    assert whole[1, 0.1].bytes == 1001
    made = whole[1, 0.1]
    assert (made.attempts, made.seconds, made.max_rss_mib) == (1, 142.0, 3000.0)
    assert made.host is not None
    assert made.host.startswith("node")
    assert len(whole[1, 0.1].sha256) == 64
    assert whole == find_whole(db, campaign.folder, STEP, artifact="catalogue")
    assert find_whole(db, "/nowhere", STEP, artifact="catalogue") == {}
    assert find_whole(db, campaign, STEP, artifact="report") == {}


def test_a_run_with_nothing_to_do_keeps_what_is_known_of_the_attempts(
    db: Database, campaign: CampaignRecord, tmp_path: Path
) -> None:
    def known() -> dict[tuple[int, float], dict[str, object]]:
        jobs = read_facts(db, campaign.folder)["jobs"]
        return {(job["realization"], job["redshift"]): job for job in jobs}

    before = known()
    assert before[0, 0.1]["seconds"] == 142.0
    settled = [
        plan_coordinate(tmp_path, one, "r0", decision=Decision.REUSED, reason="there")
        for one in ((0, 0.1), (0, 0.2), (1, 0.1))
    ]
    plan_run(db, make_site(tmp_path), tmp_path, campaign, "second", settled)
    after = known()
    assert (after[0, 0.1], after[0, 0.2]) == (before[0, 0.1], before[0, 0.2])
    assert after[1, 0.1]["outcome"] == "reused", "no attempt is known to have made it"
    assert after[1, 0.2] == before[1, 0.2], "of another coordinate nothing changes"


def test_of_two_runs_that_record_a_campaign_at_once_the_newest_state_stays(
    db: Database, campaign: CampaignRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first to read the store is held up until the second one has, or waits."""
    monkeypatch.setenv("MUSTER_STORE_URL", db.url)
    folder = Path(campaign.folder)
    (folder / "catalogs").mkdir(parents=True)
    first_has_read, second_is_done = Event(), Event()

    def read_slowly(db: Database, folder: str) -> dict[str, object]:
        facts = read_facts(db, folder)
        if not first_has_read.is_set():
            first_has_read.set()
            second_is_done.wait(1)
        return {**facts, "catalogues": []}  # no test has made their files

    def record(name: str, **outputs: Path) -> dict[str, object]:
        (tmp_path / name).mkdir()
        asked = {"folder": campaign.folder, "campaign": {}, "expected": 8, **outputs}
        return dict(record_campaign(**asked, context=StepContext(scratch=tmp_path / name)))

    monkeypatch.setattr("muster.mocks.record.read_facts", read_slowly)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(record, "first")
        first_has_read.wait(10)
        again(db, tmp_path, campaign, "second", (3, 0.2))
        end_elements(db, "second", {(3, 0.2): "succeeded"})
        second = record("second", jobs=tmp_path / "jobs.parquet")  # an output of earlier plans
        second_is_done.set()
    states = [run["jobs"] for run in (first.result(), second)]
    assert [found["completed"] for found in states] == [2, 3]
    with sqlite3.connect(folder / "metadata" / "campaign.db") as database:
        counts = database.execute("SELECT state, count(*) FROM jobs GROUP BY state")
        assert dict(counts.fetchall()) == second["jobs"]
    database.close()
    recorded = (folder / "metadata" / "jobs.parquet").read_bytes()
    assert (tmp_path / "jobs.parquet").read_bytes() == recorded


# -- runs of a campaign -------------------------------------------------------------------------


def prepare(db: Database, site: Site, params: RunParams, work_uri: str) -> Preparation:
    """Know a campaign before the inputs of a run are inspected."""
    record = make_campaign(db, Path(site.work_uri))
    whole = find_whole(db, record, STEP, artifact="catalogue")
    return Preparation(
        record.id, {"whole": len(whole), "work": work_uri, "of": type(params).__name__}
    )


def test_a_run_joins_the_campaign_that_its_workflow_prepares(db: Database, tmp_path: Path) -> None:
    bench = Bench(db, tmp_path / "work", {})
    traits = load_workflow("trait_inference")
    workflow = replace(traits, prepare=f"{__name__}:prepare")
    batch = batches.read_spec(db, open_run(db, bench.site, workflow, "r", PARAMS))
    (record,) = campaigns.list_campaigns(db)
    assert runs.read_run(db, "r").campaign_id == record.id
    said = batch.elements[0].inputs
    assert (said["whole"], said["of"]) == (0, "InferParams")
    assert said["work"] == runs.read_run(db, "r").work_uri
    open_run(db, bench.site, traits, "r", PARAMS)
    assert runs.read_run(db, "r").campaign_id == record.id, "it stays where it was opened"
    open_run(db, bench.site, traits, "other", PARAMS)
    assert runs.read_run(db, "other").campaign_id is None


@pytest.mark.parametrize(("quorum", "good"), [(0.5, True), (0.51, False), (None, False)])
def test_a_campaigns_run_is_judged_by_its_elements_and_its_own_quorum(
    db: Database, campaign: CampaignRecord, quorum: float | None, good: bool
) -> None:
    """Three catalogues succeeded and three did not; of four groups, one did."""
    end_elements(db, "first", {(3, 0.1): "cancelled"})
    with db.transaction() as cursor:
        cursor.execute("UPDATE element SET state = 'succeeded' WHERE state = 'running'"
                       " AND redshift = 0.2")  # fmt: skip
        cursor.execute("UPDATE element SET state = 'lost' WHERE state = 'running'")
        cursor.execute("DELETE FROM element WHERE state = 'out_of_memory'")
        cursor.execute("UPDATE run SET params = %s", (json.dumps({"quorum": quorum}),))
    verdict = give_verdict(db, "first")
    assert verdict.good is good
    assert verdict.groups == ()
    assert {(c.state, c.count) for c in verdict.classes} == {
        ("succeeded", 3), ("software_error", 1), ("lost", 1), ("cancelled", 1),
        ("missing_input", 1),
    }  # fmt: skip
    assert runs.read_run(db, "first").message == verdict.summary


# -- coordinates --------------------------------------------------------------------------------


def test_coordinates_of_all_kinds_become_columns(db: Database, tmp_path: Path) -> None:
    runs.open_run(db, "run", workflow="test", params={}, work_uri="w")
    batch = make_batch(tmp_path, [{}, {}])
    located = [Coordinates(trait="SLA", month="2024-03"), None]
    runs.create_batches(db, [("g", batch)], coordinates={batch.id: located})
    settled = plan_coordinate(
        tmp_path, (7, 1.1), "g", decision=Decision.REUSED, reason="there",
    ).model_copy(update={"coordinates": Coordinates(dataset="soil", month="2024")})  # fmt: skip
    runs.record_plan(db, "run", [settled], {})
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT realization, redshift, trait, dataset, month FROM element ORDER BY id"
        )
        assert cursor.fetchall() == [
            (None, None, "SLA", None, "2024-03"),
            (None, None, None, None, None),
            (None, None, None, "soil", "2024"),
        ]


def test_a_redshift_is_the_same_number_in_the_store(
    db: Database, tmp_path: Path, campaign: CampaignRecord
) -> None:
    z = 0.1 + 0.2
    again(db, tmp_path, campaign, "second", (0, z))
    (found,) = read_campaign_elements(db, campaign.id, redshifts=[z])
    assert found.redshift == z


# -- size ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_campaign_of_thousands_is_planned_and_counted_quickly(
    db: Database, tmp_path: Path
) -> None:
    """A tenth of the 40,000 that benchmarks/campaign_plan.py measures, in a tenth of its limits."""
    record = make_campaign(db, tmp_path)
    coordinates = [(n // 20, REDSHIFTS[n % 20]) for n in range(4000)]
    elements = [plan_coordinate(tmp_path, c, f"p{n // 200}") for n, c in enumerate(coordinates)]
    began = time.process_time()
    groups = plan_run(db, make_site(tmp_path), tmp_path, record, "big", elements)
    assert time.process_time() - began < 3.0
    assert len(groups) == 20
    end_elements(db, "big", lambda c: "lost" if c[0] == 7 else "succeeded")
    status = read_campaign_status(db, record.id)
    assert status.counts == counts(completed=3980, failed=20)
    assert Counter(len(by) for by in status.by_redshift.values()) == {2: 20}
    assert len(find_whole(db, record, STEP, artifact="catalogue")) == 3980


# -- what else reads the store ------------------------------------------------------------------


def test_a_supervisor_submits_arrays_of_the_size_that_the_plan_says(
    db: Database, tmp_path: Path
) -> None:
    record = make_campaign(db, tmp_path)
    elements = [plan_coordinate(tmp_path, (n, 1.0), "g") for n in range(7)]
    (group,) = plan_run(db, make_site(tmp_path), tmp_path, record, "r", elements, array_size=3)
    batch = batches.read_spec(db, group.batches[STEP])
    assert (batch.array_size, batch.wave_slots) == (3, 33)
    assert batch.retries is not None
    assert batch.retries.max_retries == 3
    assert batch.target.account == "m4321"  # type: ignore[union-attr]


def test_retention_leaves_a_campaign_alone(
    db: Database, campaign: CampaignRecord, tmp_path: Path
) -> None:
    """Its work folders go when its runs are old; its record and products stay."""
    product = tmp_path / "campaigns" / "v1_bright" / "catalogs" / "r0000" / "mock_z0.100.hdf5"
    product.parent.mkdir(parents=True)
    product.write_bytes(b"catalogue")
    before = read_campaign_status(db, campaign.id)
    for batch in (b for steps in runs.read_groups(db, "first").values() for b in steps.values()):
        claim = claims.take_claim(db, batch)
        batches.record_stopped(db, claim, "cancelled", "over")
    with db.transaction() as cursor:
        cursor.execute("UPDATE submission SET state = 'ended', ended_at = now()")
        cursor.execute(
            "UPDATE batch SET heartbeat_at = now() - interval '1 year', claimed_at = NULL"
        )
        cursor.execute("UPDATE run SET state = 'failed', created_at = now() - interval '1 year',"
                       " planned_at = NULL, ended_at = now() - interval '1 year'")  # fmt: skip
    site = make_site(tmp_path)
    removed = {one.found.name for one in clean_work(db, site).removals}
    assert removed == {"runs/first"}
    assert product.read_bytes() == b"catalogue"
    assert read_campaign_status(db, campaign.id).counts["completed"] == before.counts["completed"]
    assert set(find_whole(db, campaign, STEP, artifact="catalogue")) == {(0, 0.1), (0, 0.2)}
