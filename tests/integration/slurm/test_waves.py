"""Waves on a real cluster: what ends how, and that each element comes to its one right end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from muster.jobs.supervision import follow_logs
from muster.jobs.supervision.supervisor import Supervisor
from muster.model.logs import log_of
from muster.model.outcome import Outcome
from muster.model.resources import Caps, Resources
from muster.store import batches, claims
from muster.store.records import AttemptEnd
from tests.batches import make_batch
from tests.integration.slurm.campaign import Campaign, kill_node, start_bare, wave_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from muster.model.batch import Batch

    MakeCluster = Callable[..., "SlurmCluster"]
    from minislurm.cluster import SlurmCluster
    from muster.store.database import Database

pytestmark = pytest.mark.slurm


@pytest.fixture
def campaign(db: Database, tmp_path: Path, slurm_cluster: SlurmCluster) -> Campaign:
    return Campaign(db, slurm_cluster, tmp_path)


PLANTED = {
    "invalid": (["invalid"], ["invalid_input"]),
    "missing": (["missing"], ["missing_input"]),
    "raise": (["raise"], ["software_error"] * 2),
    "raise once": (["raise", "fine"], ["software_error", "succeeded"]),
    "transient": (["transient"], ["transient"] * 4),
    "transient twice": (["transient", "transient", "fine"], ["transient"] * 2 + ["succeeded"]),
    "crash": (["crash"], ["software_error"] * 2),
    "kill once": (["kill", "fine"], ["transient", "succeeded"]),
    "eat once": (["eat", "fine"], ["out_of_memory", "succeeded"]),
    "eat": (["eat"], ["out_of_memory"] * 2),
    "sleep once": (["sleep", "fine"], ["timed_out", "succeeded"]),
}
OUTCOMES = {
    "fine": "succeeded",
    "invalid": "invalid_input",
    "missing": "missing_input",
    "raise": "software_error",
    "crash": "software_error",
    "transient": "transient",
    "kill": "transient",
    "eat": "out_of_memory",
    "sleep": "timed_out",
}
RESOURCES = Resources(memory_mib=200, time_limit_s=10)
CAPS = Caps(memory_mib=250, time_limit_s=15)


def check_planted(campaign: Campaign, batch: Batch, planted: dict[int, str]) -> None:
    """Each element ended as planted, with as much as its last attempt needed."""
    outcomes = campaign.outcomes(batch)
    for index, element in enumerate(batches.read_elements(campaign.db, batch.id)):
        expected = PLANTED[planted[index]][1] if index in planted else ["succeeded"]
        assert outcomes[index] == expected, (element.name, planted.get(index))
        memory = [a.resources.memory_mib for a in element.attempts]
        time_s = [a.resources.time_limit_s for a in element.attempts]
        grown_memory = expected[0] == "out_of_memory"
        assert memory == ([200, 250] if grown_memory else [200] * len(expected))
        assert time_s == ([10, 15] if expected[0] == "timed_out" else [10] * len(expected))


def test_each_failure_has_its_end_and_the_others_are_left_alone(campaign: Campaign) -> None:
    acts = [acts for acts, _ in PLANTED.values()] + [["fine"]] * 3
    batch = campaign.batch(acts, resources=RESOURCES, caps=CAPS)
    campaign.run(batch)
    check_planted(campaign, batch, dict(enumerate(PLANTED)))
    campaign.check_once(batch)
    campaign.check_record(batch)


def find_step(campaign: Campaign, name: str) -> int | None:
    """Find the process of the step that an element runs in."""
    for pid in campaign.pids_of():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"muster.jobs.running.child" in words and Path(words[3].decode()).exists():
                task = json.loads(Path(words[3].decode()).read_text())
                if task["inputs"].get("name") == name:
                    return pid
    return None


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_two_hundred_elements_each_come_to_their_own_end(
    db: Database, tmp_path: Path, make_slurm_cluster: MakeCluster
) -> None:
    """One array, with every failure planted, a node that dies, and somebody else's scancel."""
    slurm = start_bare(make_slurm_cluster, tmp_path / "home", {"SlurmdTimeout": "20"})
    campaign = Campaign(db, slurm, tmp_path)
    campaign.use_quick_runner()  # of most, as 200 starts of the runner take minutes
    acts = [["fine"]] * 200
    planted = {4 * place: word for place, word in enumerate([*PLANTED, *PLANTED])}
    for index, word in planted.items():
        acts[index] = PLANTED[word][0]
    killed, runner_killed, cancelled, waiting = 1, 2, 3, (196, 197, 198, 199)
    for index in (killed, runner_killed, cancelled):
        acts[index] = ["sleep", "fine"]
    victims = range(61, 140, 12)  # some of them sleep where the node dies
    for index in victims:
        acts[index] = ["sleep", "fine"]
    resources = Resources(cpus=4, memory_mib=200, time_limit_s=60)  # 12 on each node
    caps = Caps(memory_mib=250, time_limit_s=90)
    batch = campaign.batch(acts, resources=resources, caps=caps, slots=24)

    async def scancel(*tasks: int) -> None:
        key = wave_keys(db)[0]
        answer = slurm.run("squeue", "-h", "-n", key, "-o", "%F")
        for task in tasks:
            slurm.run("scancel", f"{answer.stdout.split()[0]}_{task}")

    async def kill(index: int, *, runner: bool) -> None:
        name = f"b-e{index}"
        await campaign.until(lambda: find_step(campaign, name))
        pid = find_step(campaign, name)
        assert pid is not None
        os.kill(psutil.Process(pid).ppid() if runner else pid, signal.SIGKILL)

    async def node_dies() -> None:
        doomed = {f"begin b-e{index} 1 cpu2" for index in victims}
        await campaign.until(lambda: doomed & set(campaign.lines()))
        kill_node(campaign, "cpu2")

    async def meanwhile() -> None:
        await campaign.until(lambda: campaign.count("begin"))
        await scancel(*waiting)
        await campaign.until(lambda: find_step(campaign, f"b-e{cancelled}"))
        await scancel(cancelled)
        await kill(killed, runner=False)
        await kill(runner_killed, runner=True)
        await node_dies()

    end = campaign.run(batch, meanwhile)
    expected = {index: PLANTED[word][1] for index, word in planted.items()}
    expected |= {i: ["transient", "succeeded"] for i in (killed, runner_killed)}
    expected |= {i: ["timed_out", "succeeded"] for i in victims}
    expected |= {i: ["cancelled"] for i in (cancelled, *waiting)}
    failed_on_node = 0
    for element in batches.read_elements(db, batch.id):
        outcomes = [str(a.outcome) for a in element.attempts]
        nodes = [a for a in element.attempts if a.outcome == "node_failed"]
        failed_on_node += len(nodes)
        rest = [o for o in outcomes if o != "node_failed"]
        if not nodes or element.index <= cancelled:
            assert rest == expected.get(element.index, ["succeeded"]), (element.name, outcomes)
        else:  # the attempt that was cut off had its act, too
            acted = [acts[element.index][: a.number][-1] for a in element.attempts]
            pairs = zip(acted, outcomes, strict=True)
            assert all(o in ("node_failed", OUTCOMES[act]) for act, o in pairs), element.name
            assert element.state == expected.get(element.index, ["succeeded"])[-1]
        assert all(a.host == "cpu2" for a in nodes)
        after = [a for a in element.attempts if nodes and a.number > nodes[-1].number]
        assert all(a.host == "cpu1" for a in after), "the node that failed is kept away from"
    assert failed_on_node
    assert Counter(e.state for e in end.elements)["cancelled"] == 1 + len(waiting)
    campaign.check_once(batch, interrupted=True)


def test_who_cancels_jobs_ends_those_and_no_others(campaign: Campaign) -> None:
    """Also those that wait, of which Slurm keeps nothing."""
    batch = campaign.batch([["sleep", "fine"], ["fine"], ["fine"], ["fine"]], slots=1, seconds=0.5)

    async def meanwhile() -> None:
        await campaign.until(lambda: campaign.count("begin"))
        job = campaign.slurm.run("squeue", "-h", "-n", wave_keys(campaign.db)[0], "-o", "%F")
        number = job.stdout.split()[0]
        campaign.slurm.run("scancel", f"{number}_[2-3]")
        campaign.slurm.run("scancel", f"{number}_0")

    campaign.run(batch, meanwhile)
    assert campaign.outcomes(batch) == [["cancelled"], ["succeeded"], ["cancelled"], ["cancelled"]]
    campaign.check_once(batch)


def test_several_elements_share_a_job(campaign: Campaign) -> None:
    """Each has its own end, and its own log."""
    acts = [["fine"], ["raise", "fine"], ["invalid"], ["fine"], ["fine"]]
    batch = campaign.batch(acts, place={"pack": 3})
    campaign.run(batch)
    assert campaign.outcomes(batch) == [
        ["succeeded"],
        ["software_error", "succeeded"],
        ["invalid_input"],
        ["succeeded"],
        ["succeeded"],
    ]
    campaign.check_once(batch)
    campaign.check_record(batch)
    assert campaign.submissions() == 2
    log = log_of(batch, 4, 1).read().decode()
    assert "b-e4 begins" in log
    assert "b-e3" not in log


@pytest.mark.thorough
@pytest.mark.timeout(400)
def test_a_job_ends_before_its_walltime_and_what_is_left_goes_on(campaign: Campaign) -> None:
    """Six elements of some 12 s in jobs of a minute: each begins only what it can end."""
    batch = campaign.batch(
        [["fine"]] * 6,
        place={"pack": 6},
        resources=Resources(time_limit_s=30),
        caps=Caps(time_limit_s=60),
        seconds=12.0,
    )
    campaign.run(batch)
    outcomes = campaign.outcomes(batch)
    assert outcomes[0] == ["succeeded"]
    assert outcomes[-1] == ["not_begun", "succeeded"]
    assert {o for attempts in outcomes for o in attempts} == {"succeeded", "not_begun"}
    assert campaign.submissions() == 2
    campaign.check_once(batch)
    campaign.check_record(batch)


def test_an_attempt_leaves_two_inodes_beside_its_product(campaign: Campaign) -> None:
    """What Slurm, the script and the runner write for each of them, links counted once."""
    batch = campaign.batch([["fine"]] * 8)
    campaign.run(batch)
    work = Path(batch.work_uri)
    once = {"job.sh", "elements", "environment", "fences.json"}
    files = [p for p in work.rglob("*") if p.is_file() and p.name not in once]
    files = [p for p in files if not p.name.startswith(("batch-", "job."))]
    notes = [p for p in files if p.name.startswith("started.")]
    assert len(notes) == 8
    assert len({p.stat().st_ino for p in notes}) == 1
    assert len({p.stat().st_ino for p in files} - {p.stat().st_ino for p in notes}) == 16


HOSTILE = "a b'c\"d$(touch MARKER)`touch MARKER`\n# x\n\t—ü%j%a%%\\n\\;&|<>*?{}~!"


def test_hostile_text_arrives_unchanged_and_runs_nothing(
    db: Database, tmp_path: Path, slurm_cluster: SlurmCluster
) -> None:
    marker = tmp_path / "marker"
    text = HOSTILE.replace("MARKER", str(marker))
    folder = tmp_path / "a b'c\"d$(id)`id`;é%j%%\\x&" / "line\nbreak"
    campaign = Campaign(db, slurm_cluster, folder)
    folder.mkdir(parents=True)
    batch = make_batch(
        folder,
        [{"name": f"n{i} {text}", "acts": ["echo"], "ledger": str(folder / "l")} for i in range(2)],
        step="test.perform",
    )
    elements = [e.model_copy(update={"name": f"{e.index} {text}"}) for e in batch.elements]
    batch = batch.model_copy(
        update={"elements": tuple(elements), "environment": {"HOSTILE": text, "BASH_ENV": text}}
    )
    batch = campaign.store(batch)
    assert campaign.run(batch).succeeded
    for element in batch.elements:
        assert Path(element.outputs["out"]).read_text() == text
    assert campaign.outcomes(batch) == [["succeeded"]] * 2
    assert not marker.exists()
    said = (folder / "l").read_text()
    assert [said.count(f"{word} n{i} {text} 1 ") for word in ("begin", "done") for i in (0, 1)] == [
        1
    ] * 4


def test_what_slurm_refuses_says_why_in_slurms_own_words(campaign: Campaign) -> None:
    batch = campaign.batch([["fine"]] * 2, place={"partition": "nowhere"})
    end = campaign.run(batch)
    assert [e.state for e in end.elements] == ["invalid_input"] * 2
    assert "invalid partition specified: nowhere" in (end.elements[0].message or "")
    assert campaign.outcomes(batch) == [["invalid_input"]] * 2
    assert campaign.lines() == []


def test_what_has_failed_on_every_node_still_runs(campaign: Campaign) -> None:
    batch = campaign.batch([["fine"]])
    claim = claims.take_claim(campaign.db, batch.id)
    element = batches.read_batch(campaign.db, claim).elements[0]
    for number, host in enumerate(("cpu1", "cpu2"), start=1):
        asked = {element.id: (number, Resources(), batch.log_uri(0, number))}
        batches.intend_submission(campaign.db, claim, asked)
        attempt = batches.read_batch(campaign.db, claim).elements[0].attempts[-1]
        end = AttemptEnd(attempt.id, Outcome.NODE_FAILED, host=host, message="planted")
        batches.record_ends(campaign.db, claim, [end])
    assert campaign.run(batch).succeeded
    assert campaign.outcomes(batch) == [["node_failed", "node_failed", "succeeded"]]
    campaign.check_once(batch)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was told of the elements' output, in its order."""
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.msg == "%s | %s":
                lines.append(record.getMessage())

    listener = Listener()
    follow_logs.log.addHandler(listener)
    monkeypatch.setattr(follow_logs.log, "level", logging.INFO)
    monkeypatch.setattr(follow_logs.LogFollower.__init__, "__kwdefaults__", {"every_s": 0.3})
    yield lines
    follow_logs.log.removeHandler(listener)


@pytest.mark.thorough
def test_logs_are_told_without_gap_or_double_whoever_supervises(
    campaign: Campaign, told: list[str]
) -> None:
    batch = campaign.batch([["talk"], ["talk"], ["raise", "fine"]])

    async def scenario() -> None:
        first = Supervisor(
            campaign.db,
            campaign.backend(),
            claims.take_claim(campaign.db, batch.id),
            tell_logs=True,
        )
        task = asyncio.create_task(first.run())
        await campaign.until(lambda: sum("says" in line for line in told) > 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await first.backend.close()

    asyncio.run(scenario())
    assert campaign.count("done") < 2, "it is told while it runs"
    campaign.run(batch, tell_logs=True)
    for index, attempts in enumerate(batches.read_elements(campaign.db, batch.id)):
        for attempt in attempts.attempts:
            prefix = f"b-e{index}, attempt {attempt.number} | "
            whole = log_of(batch, index, attempt.number).read().decode().splitlines()
            assert [line.removeprefix(prefix) for line in told if line.startswith(prefix)] == whole
    campaign.check_once(batch)


@pytest.mark.thorough
def test_logs_of_failures_come_first_and_all_are_bounded(
    campaign: Campaign, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_logs, "ATTEMPT_BYTES", 600)
    monkeypatch.setattr(follow_logs, "BATCH_BYTES", 1500)
    monkeypatch.setattr(follow_logs.LogFollower.__init__, "__kwdefaults__", {"every_s": 1e6})
    batch = campaign.batch([["talk"], ["talk"], ["talk"], ["invalid"]])
    campaign.run(batch, tell_logs=True)
    assert told[0].startswith("b-e3, attempt 1 | ")
    assert any("planted invalid" in line for line in told)
    assert sum(len(line.partition(" | ")[2].encode()) + 1 for line in told) <= 1500
