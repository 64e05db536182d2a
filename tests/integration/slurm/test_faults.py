"""What breaks around a wave, and that nothing is lost by it and nothing runs twice."""

from __future__ import annotations

import asyncio
import gc
import shutil
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from muster.backends.slurm import client as slurm_client
from muster.backends.slurm.client import CommandClient
from muster.errors import Transient
from muster.jobs.supervision.supervisor import Supervisor
from muster.store import batches, claims, clusters
from tests.integration.slurm.campaign import QUICK, Campaign, start_bare, start_supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from minislurm.cluster import SlurmCluster
    from muster.backends.slurm.parse import JobRow
    from muster.model.batch import Batch
    from muster.store.database import Database

    MakeCluster = Callable[..., SlurmCluster]

pytestmark = [pytest.mark.slurm, pytest.mark.thorough, pytest.mark.timeout(600)]

ONCE = ["succeeded"]
LONGER_THAN_ANYBODY_ASKS_S = 75.0


@pytest.fixture
def make_campaign(
    db: Database,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    make_slurm_cluster: MakeCluster,
) -> Iterator[Callable[..., Campaign]]:
    """Make a campaign on a cluster of its own, which the test may break."""

    def make(settings: dict[str, str] | None = None, **options: object) -> Campaign:
        home = tmp_path_factory.mktemp("home")
        slurm = start_bare(make_slurm_cluster, home, settings, **options)
        return Campaign(db, slurm, tmp_path)

    yield make
    gc.collect()  # supervisors that the test left in the middle end while their store is there


MakeCampaign = "Callable[..., Campaign]"


async def bring_back(slurm: SlurmCluster, *daemons: str) -> None:
    for daemon in daemons:
        await asyncio.to_thread(slurm.start_daemon, daemon)


async def take_away(slurm: SlurmCluster, *daemons: str) -> None:
    for daemon in daemons:
        await asyncio.to_thread(slurm.kill, daemon)


def supervise_a_while(campaign: Campaign, batch: Batch, until: Callable[[], object]) -> None:
    """Supervise a batch until something is so, and let go of it."""

    async def scenario() -> None:
        backend = campaign.backend()
        claim = claims.take_claim(campaign.db, batch.id)
        task = asyncio.create_task(Supervisor(campaign.db, backend, claim, back_off=QUICK).run())
        await campaign.until(until)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await backend.close()

    asyncio.run(scenario())


def wait_until_forgotten(campaign: Campaign) -> None:
    """Return when the queue shows nothing any more, of what has ended neither."""
    deadline_s = time.monotonic() + 200
    while campaign.slurm.run("squeue", "-h", "-t", "all").stdout.strip():
        assert time.monotonic() < deadline_s
        time.sleep(1)


# -- the controller ---------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["submitting", "polling", "cancelling"])
def test_the_controller_is_away(make_campaign: MakeCampaign, moment: str) -> None:
    """For longer than anybody looks who is not asked; afterwards all goes on."""
    campaign = make_campaign()
    slow = moment == "cancelling"
    batch = campaign.batch([["sleep" if slow else "fine"]] * 4, seconds=3.0)

    async def meanwhile() -> None:
        if moment != "submitting":
            await campaign.until(lambda: campaign.count("begin") == 4)
            await take_away(campaign.slurm, "slurmctld")
        if slow:
            with campaign.db.transaction() as cursor:
                cursor.execute(
                    "UPDATE batch SET cancel_requested_at = now(), cancel_requested_by = 'person'"
                )
        said = await campaign.until_degraded(batch)
        assert "slurm" in said
        await asyncio.sleep(LONGER_THAN_ANYBODY_ASKS_S if moment == "polling" else 20)
        assert campaign.degraded(batch) is not None
        await bring_back(campaign.slurm, "slurmctld")

    if moment == "submitting":
        campaign.slurm.kill("slurmctld")
    campaign.run(batch, meanwhile)
    assert campaign.outcomes(batch) == [["cancelled"] if slow else ONCE] * 4
    assert campaign.submissions() == 1
    campaign.check_once(batch)


def test_the_controller_is_killed_while_all_goes_on(make_campaign: MakeCampaign) -> None:
    """More than once; what it has forgotten the end of is known by its result."""
    campaign = make_campaign()
    batch = campaign.batch([["fine"]] * 12, seconds=4.0, slots=4)

    async def meanwhile() -> None:
        await campaign.until(lambda: campaign.count("begin"))
        for _ in range(3):
            await asyncio.sleep(6)
            await take_away(campaign.slurm, "slurmctld")
            await bring_back(campaign.slurm, "slurmctld")

    campaign.run(batch, meanwhile)
    campaign.check_once(batch, interrupted=True, ghosts=True)
    assert all(found[-1:] == ONCE for found in campaign.outcomes(batch))


@pytest.mark.parametrize("accounting", [False, True])
def test_the_controller_forgets_jobs_and_gives_their_ids_to_others(
    make_campaign: MakeCampaign, accounting: bool
) -> None:
    """What it saved last is older than the wave; somebody else's job has its id then."""
    campaign = make_campaign({"MinJobAge": "600"}, accounting=accounting)
    slurm = campaign.slurm
    state = slurm.folder / "state"
    slurm.terminate("slurmctld")
    shutil.copytree(state, slurm.folder / "state-before")
    slurm.start_daemon("slurmctld")
    slurm.wait_ready()
    batch = campaign.batch([["sleep", "fine"]] * 3)
    others: list[str] = []

    async def meanwhile() -> None:
        await campaign.until(lambda: campaign.count("begin") == 3)
        await campaign.until_submitted()
        await take_away(slurm, "slurmctld")
        shutil.rmtree(state)
        shutil.copytree(slurm.folder / "state-before", state)
        await bring_back(slurm, "slurmctld")
        for _ in range(3):
            answer = slurm.run(
                # Not where the old ones run still: Slurm ends a job whose id is there twice.
                "sbatch", "--parsable", "-J", "other", "-o", "/dev/null", "--mem=10M",
                "--exclude", "cpu1", text="#!/bin/sh\nsleep 15\n",
            )  # fmt: skip
            assert answer.returncode == 0, answer.stderr
            others.append(answer.stdout.strip())

    campaign.run(batch, meanwhile)
    with campaign.db.transaction() as cursor:
        cursor.execute("SELECT reference FROM submission ORDER BY id")
        ours = [row[0] for row in cursor.fetchall()]
    assert ours[0] in others, "the id is another job's now"
    for found in campaign.outcomes(batch):
        assert found[-1] == "succeeded"
        assert set(found[:-1]) <= {"lost", "transient", "node_failed", "cancelled"}
        assert len(found) == 2
    while slurm.run("squeue", "-h", "-n", "other").stdout.strip():
        time.sleep(0.5)
    states = slurm.run("squeue", "-h", "-t", "all", "-n", "other", "-o", "%T").stdout.split()
    assert states == ["COMPLETED"] * 3
    campaign.check_once(batch)


def test_an_answer_that_comes_too_late_makes_no_twin(
    make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller takes the job after nobody waits for its word any more."""
    monkeypatch.setattr(slurm_client, "SUBMIT_TIMEOUT_S", 3.0)
    monkeypatch.setattr(slurm_client, "ANSWER_TIMEOUT_S", 3.0)
    campaign = make_campaign()
    batch = campaign.batch([["fine"]] * 3, seconds=2.0)

    async def meanwhile() -> None:
        await campaign.until_degraded(batch)
        await asyncio.sleep(8)
        campaign.slurm.resume("slurmctld")

    class Stalls(CommandClient):
        stalled = False

        async def submit(self, folder: str, script: str) -> int:
            if not Stalls.stalled:
                Stalls.stalled = True
                campaign.slurm.pause("slurmctld")
            return await super().submit(folder, script)

    campaign.run(batch, meanwhile, backend=campaign.backend(Stalls))
    assert campaign.outcomes(batch) == [ONCE] * 3
    campaign.check_once(batch)


# -- the nodes, munge, and the accounting -----------------------------------------------------


def test_a_nodes_daemon_is_killed_and_its_jobs_go_on(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    batch = campaign.batch([["fine"]] * 4, seconds=6.0)

    async def meanwhile() -> None:
        await campaign.until(lambda: campaign.count("begin") == 4)
        await take_away(campaign.slurm, "slurmd.cpu1")
        await asyncio.sleep(10)  # they end while nobody listens
        await bring_back(campaign.slurm, "slurmd.cpu1")

    campaign.run(batch, meanwhile)
    assert campaign.outcomes(batch) == [ONCE] * 4
    campaign.check_once(batch)


def test_munge_is_away(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    batch = campaign.batch([["fine"]] * 6, seconds=3.0, slots=3)

    async def meanwhile() -> None:
        await campaign.until(lambda: campaign.count("begin"))
        await take_away(campaign.slurm, "munged")
        await campaign.until_degraded(batch)
        await asyncio.sleep(15)
        await bring_back(campaign.slurm, "munged")

    campaign.run(batch, meanwhile)
    assert campaign.outcomes(batch) == [ONCE] * 6
    assert campaign.submissions() == 1
    campaign.check_once(batch)


def kill_runner(campaign: Campaign, index: int) -> bool:
    """End the runner of an element, so that it leaves no result."""
    for pid in campaign.pids_of():
        try:
            process = psutil.Process(pid)
            words = process.cmdline()
            if words[-2:] == ["--index", str(index)] and "muster" in words:
                process.send_signal(signal.SIGKILL)
                return True
        except psutil.Error:
            continue
    return False


@pytest.mark.parametrize(
    ("sources", "killed_as"),
    [("accounting", "transient"), ("log of ended jobs", "transient"), ("results", "lost")],
)
def test_nobody_looks_for_longer_than_the_queue_remembers(
    make_campaign: MakeCampaign, sources: str, killed_as: str
) -> None:
    """What has ended meanwhile is known from elsewhere: results always tell of success."""
    campaign = make_campaign(
        {"MinJobAge": "2"},
        accounting=sources == "accounting",
        completion_log=sources == "log of ended jobs",
    )
    batch = campaign.batch([["fine"], ["fine"], ["sleep", "fine"], ["invalid"]], seconds=1.0)
    supervise_a_while(campaign, batch, lambda: campaign.count("begin") == 4)
    deadline_s = time.monotonic() + 60
    while not kill_runner(campaign, 2):
        assert time.monotonic() < deadline_s
    wait_until_forgotten(campaign)
    campaign.run(batch)
    assert campaign.outcomes(batch) == [ONCE, ONCE, [killed_as, "succeeded"], ["invalid_input"]]
    campaign.check_once(batch)
    assert campaign.calls()["sbatch"] == 2


def test_the_accounting_does_not_answer(make_campaign: MakeCampaign) -> None:
    """Results are believed, the rest waits for it, and no attempt is spent."""
    campaign = make_campaign({"MinJobAge": "2"}, accounting=True)
    batch = campaign.batch([["fine"], ["sleep", "fine"], ["fine"]], seconds=1.0)
    supervise_a_while(campaign, batch, lambda: campaign.count("begin") == 3)
    campaign.slurm.kill("slurmdbd")
    deadline_s = time.monotonic() + 60
    while not kill_runner(campaign, 1):
        assert time.monotonic() < deadline_s
    wait_until_forgotten(campaign)

    async def meanwhile() -> None:
        said = await campaign.until_degraded(batch)
        assert "accounting" in said
        await campaign.until(lambda: campaign.outcomes(batch)[0] == ONCE)
        await asyncio.sleep(5)
        assert campaign.outcomes(batch) == [ONCE, ["None"], ONCE]
        assert campaign.degraded(batch) is not None
        await bring_back(campaign.slurm, "slurmdbd")

    campaign.run(batch, meanwhile)
    assert campaign.outcomes(batch)[::2] == [ONCE, ONCE]
    killed = campaign.outcomes(batch)[1]
    assert killed in (["transient", "succeeded"], ["lost", "succeeded"]), killed
    campaign.check_once(batch)


def test_slurm_ends_what_takes_longer_than_its_own_limit(make_campaign: MakeCampaign) -> None:
    from muster.model.resources import Caps, Resources

    campaign = make_campaign()
    batch = campaign.batch([["sleep"]], caps=Caps(time_limit_s=60), resources=Resources())
    campaign.run(batch)
    assert campaign.outcomes(batch) == [["timed_out"]]
    campaign.check_record(batch)


# -- supervisors ------------------------------------------------------------------------------


class Deaf(CommandClient):
    """Does not understand the first answer when it looks a key up."""

    looked = 0

    async def read_queue(self, name: str | None = None) -> list[JobRow]:
        if name is not None:
            type(self).looked += 1
            if type(self).looked == 1:
                raise Transient("planted", where="squeue")
        return await super().read_queue(name)


@pytest.mark.parametrize(
    ("how", "then", "expected"),
    [
        ("dies-after", "at once", ONCE),
        ("dies-after", "when it has ended", ONCE),
        ("dies-after", "when the queue has forgotten", ONCE),
        ("dies-after", "with a first look-up that fails", ONCE),
        ("dies-before", "at once", ["superseded", "succeeded"]),
    ],
)
def test_a_supervisor_is_killed_around_its_submission(
    make_campaign: MakeCampaign, how: str, then: str, expected: list[str]
) -> None:
    campaign = make_campaign({"MinJobAge": "2"})
    batch = campaign.batch([["fine"]] * 2, seconds=1.0)
    assert start_supervisor(campaign, batch, how).wait(120) == 9
    assert batches.read_elements(campaign.db, batch.id)[0].attempts[0].state == "planned"
    if "when" in then:
        deadline_s = time.monotonic() + 100
        while campaign.count("done") < 2 or campaign.open_jobs():
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
    if "forgotten" in then:
        wait_until_forgotten(campaign)
    Deaf.looked = 0
    backend = campaign.backend(Deaf if "fails" in then else CommandClient)
    campaign.run(batch, backend=backend)
    assert campaign.outcomes(batch) == [expected] * 2
    assert campaign.calls()["sbatch"] == 1
    campaign.check_once(batch)


def looked_at(campaign: Campaign) -> object:
    return clusters.read_look(campaign.db, campaign.cluster.name).at


def test_two_processes_share_one_look(make_campaign: MakeCampaign) -> None:
    """And when the one that looks is stopped, the other goes on; woken up, it goes on as well."""
    campaign = make_campaign()
    both = [campaign.batch([["sleep"]] * 2, name=name) for name in ("b1", "b2")]
    processes = [start_supervisor(campaign, batch) for batch in both]
    try:
        asyncio.run(campaign.until(lambda: campaign.count("begin") == 4))
        before, started_s = campaign.calls()["squeue"], time.monotonic()
        time.sleep(15)
        spent_s, calls = time.monotonic() - started_s, campaign.calls()["squeue"] - before
        assert calls <= 2 * spent_s
        for process in processes:
            process.send_signal(signal.SIGSTOP)
            time.sleep(5)
            seen = looked_at(campaign)
            asyncio.run(campaign.until(lambda seen=seen: looked_at(campaign) != seen))
            process.send_signal(signal.SIGCONT)
        with campaign.db.transaction() as cursor:
            cursor.execute(
                "UPDATE batch SET cancel_requested_at = now(), cancel_requested_by = 'person'"
            )
        assert [process.wait(120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for batch in both:
        assert campaign.outcomes(batch) == [["cancelled"]] * 2


def test_who_was_stopped_and_replaced_does_nothing_any_more(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    batch = campaign.batch([["fine"]] * 4 + [["transient", "fine"]] * 2, seconds=3.0, slots=3)
    process = start_supervisor(campaign, batch)
    try:
        asyncio.run(campaign.until(lambda: campaign.count("begin")))
        process.send_signal(signal.SIGSTOP)
        campaign.run(batch)
        campaign.check_once(batch)
        calls = campaign.calls()
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()
    after = campaign.calls()
    assert (after["sbatch"], after.get("scancel")) == (calls["sbatch"], calls.get("scancel"))
    campaign.check_once(batch)


def test_processes_keep_to_one_rate_of_submissions(
    make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make_campaign()
    campaign.use_quick_runner()
    campaign.settings = {**campaign.settings, "submissions_per_s": 0.5}
    turns = campaign.folder / "turns"
    monkeypatch.setenv("TURNS", str(turns))
    made = [campaign.batch([["fine"]], name=f"b{i}") for i in range(4)]
    processes = [start_supervisor(campaign, batch, "notes") for batch in made]
    assert [process.wait(120) for process in processes] == [0] * 4
    at = sorted(map(float, turns.read_text().split()))
    assert len(at) == 4
    assert at[-1] - at[0] > 3 * 2.0 - 1.0


# -- many -------------------------------------------------------------------------------------


def test_what_is_too_large_for_one_array_is_split(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign({"MaxArraySize": "11"})
    campaign.use_quick_runner()
    batch = campaign.batch([["fine"]] * 25)
    campaign.run(batch)
    assert campaign.outcomes(batch) == [ONCE] * 25
    assert campaign.submissions() == 3
    campaign.check_once(batch)


def test_a_full_cluster_is_waited_for(make_campaign: MakeCampaign) -> None:
    """Others fill it, and it counts what has ended as well; nothing fails by it."""
    campaign = make_campaign({"MaxJobCount": "12", "MinJobAge": "2"})
    campaign.use_quick_runner()
    for _ in range(10):
        campaign.slurm.run("sbatch", "-J", "other", "-o", "/dev/null", text="#!/bin/sh\nsleep 20\n")
    batch = campaign.batch([["fine"]] * 20)
    campaign.run(batch)
    assert campaign.outcomes(batch) == [ONCE] * 20
    campaign.check_once(batch)


@pytest.mark.timeout(1500)
def test_two_thousand_elements_in_ten_arrays(
    make_campaign: MakeCampaign, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = make_campaign()
    campaign.use_quick_runner()
    campaign.settings = {**campaign.settings, "submissions_per_s": 2, "poll_every": "00:00:02"}
    made = [campaign.batch([["fine"]] * 200, name=f"b{i}", slots=5) for i in range(10)]
    started_s = time.monotonic()

    async def scenario() -> None:
        backend = campaign.backend()
        supervisors = [
            Supervisor(campaign.db, backend, claims.take_claim(campaign.db, b.id), back_off=QUICK)
            for b in made
        ]
        await asyncio.gather(*(supervisor.run() for supervisor in supervisors))
        await backend.close()

    asyncio.run(scenario())
    spent_s = time.monotonic() - started_s
    calls = clusters.read_calls(campaign.db, campaign.cluster.name)
    with capsys.disabled():
        print(f"\n2,000 elements in 10 arrays: {spent_s:.0f} s;", *calls, sep="\n")
    assert [o for batch in made for o in campaign.outcomes(batch)] == [ONCE] * 2000
    for batch in made:
        campaign.check_once(batch)
    assert campaign.calls()["sbatch"] == 10
    assert campaign.calls()["squeue"] <= spent_s
