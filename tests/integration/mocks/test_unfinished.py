"""Runs of a campaign that are not over: which go on, and what each has before it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from muster.cli.campaign_status import monitor
from muster.errors import InvalidInput, Transient
from muster.mocks.campaign.config import read_campaign
from muster.mocks.campaign.register import register_campaign
from muster.mocks.campaign.selection import Selection, select
from muster.mocks.find import FoundCampaign
from muster.mocks.params import MockParams
from muster.mocks.progress import read_progress
from muster.mocks.unfinished import (
    cancel_campaign,
    check_not_in_hand,
    end_left_behind,
    hold_opening,
    list_left_behind,
    read_unfinished,
)
from muster.model.resources import Resources
from muster.store import batches, claims, runs
from muster.store.campaigns import hold_opening_lock
from muster.store.records import RunState
from tests.batches import make_batch
from tests.mock_campaigns import write_campaign
from tests.stored_campaign import make_site, plan_coordinate, plan_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

    from muster.site import Site
    from muster.store.database import Database

HERE = socket.gethostname()
RUN = "mock_campaign.cli__2026-11-30T12:00:00+00:00"
LONG_S = 600.0
SITE = """
[pools]
local = { backend = "local", slots = 2 }
[job_types]
local = { pool = "local", memory = "1GiB", time = "01:00:00" }
[placement]
"mocks.inspect" = { pool = "local" }
"mocks.populate" = { pool = "local" }
"mocks.collect" = { pool = "local" }
"mocks.qa" = { pool = "local" }
"mocks.manifest" = { pool = "local" }
"""


@pytest.fixture
def found(db: Database, tmp_path: Path) -> FoundCampaign:
    campaign = read_campaign(write_campaign(tmp_path, realizations=3))
    return FoundCampaign(campaign, register_campaign(db, campaign, allow_dirty=True))


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def make_planned(
    db: Database, tmp_path: Path, found: FoundCampaign, run_id: str, by: str, *, first: int = 2
) -> str:
    """Plan a run of the first catalogues, and let a process claim its batch."""
    site: Site = make_site(tmp_path)
    elements = [
        plan_coordinate(tmp_path, (c.realization, c.redshift), "batch 0")
        for c in select(found.campaign, Selection(first=first))
    ]
    (group,) = plan_run(db, site, tmp_path, found.require_record(), run_id, elements)
    (batch_id,) = group.batches.values()
    claims.take_claim(db, batch_id)
    with db.transaction() as cursor:
        cursor.execute("UPDATE batch SET claimed_by = %s WHERE id = %s", (by, batch_id))
    return batch_id


def attended(db: Database, found: FoundCampaign) -> bool:
    (run,) = read_unfinished(db, found.require_record().id)
    return run.is_attended(LONG_S)


def test_a_run_goes_on_until_its_process_is_killed(
    db: Database, tmp_path: Path, found: FoundCampaign, sleeper: subprocess.Popen[bytes]
) -> None:
    make_planned(db, tmp_path, found, RUN, f"{HERE}:{sleeper.pid}")
    assert attended(db, found)
    assert list_left_behind(db, found) == []
    asyncio.run(end_left_behind(db, found))
    wanted = [(c.realization, c.redshift) for c in select(found.campaign)]
    with pytest.raises(InvalidInput, match=r"2 of 6, r0000_z0.500 first.*monitor.*cancel 1_small"):
        check_not_in_hand(db, found, wanted)
    check_not_in_hand(db, found, wanted[2:])  # what it has not before it may be made beside it

    sleeper.send_signal(signal.SIGKILL)
    sleeper.wait()
    assert list_left_behind(db, found) == [RUN]
    asyncio.run(end_left_behind(db, found))
    check_not_in_hand(db, found, wanted)
    assert runs.read_run(db, RUN).state is RunState.CANCELLED
    assert [e.state for e in runs.read_status(db, RUN)] == ["cancelled"] * 2


def test_of_airflow_and_of_other_hosts_silence_alone_tells(
    db: Database, tmp_path: Path, found: FoundCampaign, sleeper: subprocess.Popen[bytes]
) -> None:
    sleeper.kill()
    sleeper.wait()
    make_planned(db, tmp_path, found, RUN, f"elsewhere:{sleeper.pid}")
    assert attended(db, found)
    with db.transaction() as cursor:
        old = "now() - interval '1 hour'"
        cursor.execute(f"UPDATE event SET at = {old}")
        cursor.execute(f"UPDATE run SET created_at = {old}, planned_at = {old}")
        cursor.execute(f"UPDATE batch SET heartbeat_at = {old}")
    assert not attended(db, found)
    with db.transaction() as cursor:
        cursor.execute("UPDATE batch SET heartbeat_at = now()")
    assert attended(db, found)
    runs.end_run(db, RUN, RunState.CANCELLED, "")
    make_planned(db, tmp_path, found, "mock_campaign.manual__1", f"{HERE}:{sleeper.pid}")
    assert attended(db, found), "another process of Airflow may have it"


def test_jobs_that_were_left_alone_go_on_without_a_process(
    db: Database, tmp_path: Path, found: FoundCampaign
) -> None:
    batch_id = make_planned(db, tmp_path, found, RUN, "elsewhere:1")
    claim = claims.take_claim(db, batch_id)
    element = batches.read_batch(db, claim).elements[0]
    submission, _ = batches.intend_submission(db, claim, {element.id: (1, Resources(), "/log")})
    batches.record_submitted(db, claim, submission, "17")
    claims.detach(db, claim)
    with db.transaction() as cursor:
        cursor.execute("UPDATE batch SET claimed_by = 'elsewhere:1'")
    assert attended(db, found)
    with pytest.raises(InvalidInput, match=f"muster wait {RUN[:20]}"):
        check_not_in_hand(db, found, [(0, 1.1)])
    with db.transaction() as cursor:
        cursor.execute("UPDATE submission SET state = 'ended'")
    assert not attended(db, found), "all of them have ended, and no process follows the run"
    assert f"its jobs have ended: 'muster wait {RUN}' judges it" in (
        read_progress(db, found).runs[0].describe()
    )


def watch(db: Database, found: FoundCampaign, *, last: str) -> None:
    """Let ``monitor`` come to an end by itself, and expect this of its last line."""
    arguments, env = [found.campaign.folder_uri, "--every", "0.2"], {"MUSTER_STORE_URL": db.url}
    ended: list[Result] = []
    thread = Thread(
        target=lambda: ended.append(CliRunner().invoke(monitor, arguments, env=env)), daemon=True
    )
    thread.start()
    thread.join(30)
    assert ended, "it never ends"
    (ran,) = ended
    assert ran.exit_code == 0, ran.output
    assert last in ran.output.splitlines()[-1]


def test_who_watches_a_campaign_sees_the_end_of_jobs_that_no_process_follows(
    db: Database, tmp_path: Path, found: FoundCampaign, sleeper: subprocess.Popen[bytes]
) -> None:
    make_planned(db, tmp_path, found, RUN, "elsewhere:1")
    batch = make_batch(tmp_path, [{}])
    with db.transaction() as cursor:  # the local backend's jobs have ended with their process
        cursor.execute(
            "UPDATE batch SET spec = %s, backend = 'local' WHERE run_id = %s",
            (batch.model_copy(update={"id": "x", "run": RUN}).to_json(), RUN),
        )
        cursor.execute("SELECT id FROM batch WHERE run_id = %s", (RUN,))
        ((batch_id,),) = cursor.fetchall()
    claim = claims.take_claim(db, batch_id)
    element = batches.read_batch(db, claim).elements[0]
    submission, _ = batches.intend_submission(db, claim, {element.id: (1, Resources(), "/log")})
    batches.record_submitted(db, claim, submission, f"{HERE}:boot:1")
    claims.detach(db, claim)
    assert attended(db, found)
    watch(db, found, last=f"its jobs have ended: 'muster wait {RUN}'")


def test_jobs_on_a_cluster_outlive_the_command_that_was_killed(
    db: Database, tmp_path: Path, found: FoundCampaign, sleeper: subprocess.Popen[bytes]
) -> None:
    batch_id = make_planned(db, tmp_path, found, RUN, f"{HERE}:{sleeper.pid}")
    claim = claims.take_claim(db, batch_id)
    element = batches.read_batch(db, claim).elements[0]
    submission, _ = batches.intend_submission(db, claim, {element.id: (1, Resources(), "/log")})
    batches.record_submitted(db, claim, submission, "17")
    with db.transaction() as cursor:
        cursor.execute("UPDATE batch SET claimed_by = %s", (f"{HERE}:{sleeper.pid}",))
    assert claims.is_followed(db, RUN)
    assert read_progress(db, found).runs[0].describe() == f"run {RUN}: planned"
    sleeper.kill()
    sleeper.wait()
    assert not claims.is_followed(db, RUN), "'muster wait' may follow it at once"
    assert f"no process follows it, its jobs go on: 'muster wait {RUN}'" in (
        read_progress(db, found).runs[0].describe()
    )
    watch(db, found, last=f"no process follows it, its jobs go on: 'muster wait {RUN}'")
    assert list_left_behind(db, found) == []
    with pytest.raises(InvalidInput, match=f"muster wait {RUN[:20]}"):
        check_not_in_hand(db, found, [(0, 1.1)])
    with db.transaction() as cursor:
        cursor.execute("UPDATE batch SET backend = 'local'")
    assert list_left_behind(db, found) == [RUN], "on this machine its jobs ended with it"


def test_a_run_that_is_not_planned_yet_has_all_before_it_that_it_selects(
    db: Database, tmp_path: Path, found: FoundCampaign
) -> None:
    params = MockParams.model_validate(
        {"definition": found.campaign.config.to_data(), "realizations": "1"}
    )
    runs.open_run(
        db,
        RUN,
        workflow="mock_campaign",
        params=params.model_dump(mode="json"),
        work_uri=str(tmp_path),
        campaign_id=found.require_record().id,
    )
    with pytest.raises(InvalidInput, match=r"1 of 2, r0001_z0.500 first"):
        check_not_in_hand(db, found, [(0, 1.1), (1, 0.5)])
    check_not_in_hand(db, found, [(0, 1.1), (2, 0.5)])


_OPEN = """
import sys
from muster.jobs.planning.plan_run import open_run
from muster.jobs.planning.workflow import load_workflow
from muster.mocks.params import MockParams
from muster.site import read_site
from muster.store.database import Database

url, file, run_id = sys.argv[1:]
params = {"config": file, "allow_dirty": True}
args = Database(url), read_site(), load_workflow("mock_campaign"), run_id
print("ready", flush=True)
sys.stdin.readline()
open_run(*args, params)
print("opened", flush=True)
"""


@pytest.mark.thorough
def test_of_two_processes_that_start_a_campaign_at_once_one_alone_opens_a_run(
    db: Database, tmp_path: Path
) -> None:
    file = write_campaign(tmp_path, resources={"job_type": "local"})
    site = tmp_path / "site.toml"
    site.write_text(SITE)
    env = {**os.environ, "MUSTER_HOME": str(tmp_path / "home"), "MUSTER_SITE": str(site)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN, db.url, str(file), f"mock_campaign.cli__{n}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=env,
        )
        for n in "12"
    ]  # fmt: skip
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=120) for process in both]
    assert sorted(out for out, _ in ends) == ["", "opened\n"], ends
    (refused,) = (err for out, err in ends if not out)
    assert "a run of the campaign is going that makes the same catalogues" in refused
    assert len(runs.list_runs(db)) == 1


def test_no_run_is_opened_beside_one_that_makes_the_same_catalogues(
    db: Database, tmp_path: Path, found: FoundCampaign
) -> None:
    data = found.campaign.config.to_data()
    params = MockParams.model_validate({"definition": data, "realizations": "1"})
    other = MockParams.model_validate({"definition": data, "realizations": "0,2"})
    folder, again = found.campaign.folder_uri, "mock_campaign.manual__2"
    with hold_opening(db, RUN, params):
        with (
            pytest.raises(Transient, match="another run of the campaign is being opened"),
            hold_opening_lock(db, folder, 0.0),
        ):
            pass
        runs.open_run(
            db, RUN, workflow="mock_campaign", params=params.model_dump(mode="json"),
            work_uri=str(tmp_path), campaign_id=found.require_record().id,
        )  # fmt: skip
    with (
        pytest.raises(InvalidInput, match=r"2 of 2, r0001_z0\.500 first"),
        hold_opening(db, again, params),
    ):
        pass
    with hold_opening(db, again, other), hold_opening_lock(db, f"{folder}_other", 0.0):
        pass
    with hold_opening(db, RUN, params):  # opened again, as a task that is cleared does
        pass
    with hold_opening(db, again, params.model_copy(update={"failed_only": True})):
        pass


def test_a_campaign_is_cancelled_in_a_line_a_run_that_counts_its_elements(
    db: Database, tmp_path: Path, found: FoundCampaign, caplog: pytest.LogCaptureFixture
) -> None:
    make_planned(db, tmp_path, found, RUN, f"{HERE}:1", first=6)
    lines = asyncio.run(cancel_campaign(db, found))
    assert lines == [f"run {RUN} is cancelled: 6 cancelled"]
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    with pytest.raises(InvalidInput, match="no run of the campaign is going"):
        asyncio.run(cancel_campaign(db, found))
