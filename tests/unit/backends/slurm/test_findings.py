"""What a cluster's words mean for a site: which are bad, and what there is to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from muster.backends.slurm.limits import Limits
from muster.backends.slurm.parse import JobRow
from muster.doctor.asked import Asked
from muster.doctor.slurm_findings import (
    check_caps,
    check_limits,
    check_partitions,
    check_sources,
    check_time,
    explain_end,
    explain_refusal,
    explain_wait,
)
from muster.doctor.slurm_inventory import Nodes, Partition
from muster.model.resources import Caps, Resources
from muster.model.slurm_target import Cluster
from muster.pools import SlurmPool

LIMITS = Limits(
    cluster="mini",
    version="22.05.8",
    controller="head1",
    max_array_size=1001,
    max_job_count=10000,
    max_submit_jobs=None,
    accounting=True,
    job_completions=None,
    min_job_age_s=300,
    kill_wait_s=30,
)
CLUSTER = Cluster(poll_every="00:00:30")
GENOA = Partition("genoa", "UP", max_time_s=86400, default=True)
CPU = Nodes("genoa", 2, 48, 190000, {}, "idle")
L40S = Nodes("l40s", 2, 32, 256000, {("gpu", "l40s"): 4}, "idle")
REFUSED = "Requested node configuration is not available"


def pool(**words: object) -> SlurmPool:
    return SlurmPool.model_validate({"backend": "slurm", "slots": 8, **words})


def asked(**wants: int) -> Asked:
    return Asked.of("traits.aoa", Resources(**wants), Caps(), 1)


def row(state: str, **how: object) -> JobRow:
    return JobRow("key", 7, None, state, node="cpu1", **how)


def test_sources_that_tell_how_jobs_end() -> None:
    check = check_sources("c", LIMITS, CLUSTER, sacct=None, log=None)
    assert check.mark == "ok"
    assert "the queue (for 300 s, MinJobAge), the accounting and result files" in check.finding
    check = check_sources("c", LIMITS, CLUSTER, sacct="refused", log=None)
    assert check.mark == "BAD"
    assert "slurmdbd" in check.finding


@pytest.mark.parametrize(
    ("min_job_age_s", "mark", "words"),
    [
        (300, "warn", "MinJobAge of 600 or more"),
        (60, "BAD", "the queue forgets jobs too soon"),
        (0, "ok", "the queue (for good)"),
    ],
)
def test_the_queue_alone_tells_only_for_a_while(min_job_age_s: int, mark: str, words: str) -> None:
    limits = replace(LIMITS, accounting=False, min_job_age_s=min_job_age_s)
    check = check_sources("c", limits, CLUSTER, sacct=None, log=None)
    assert check.mark == mark
    assert words in check.finding


def test_a_log_of_ended_jobs_helps_only_where_it_can_be_read() -> None:
    limits = replace(LIMITS, accounting=False, job_completions="/var/log/jobs")
    assert check_sources("c", limits, CLUSTER, sacct=None, log=None).mark == "ok"
    check = check_sources("c", limits, CLUSTER, sacct=None, log="/var/log/jobs")
    assert check.mark == "warn"
    assert "cannot be read here (/var/log/jobs)" in check.finding


def test_slots_beyond_what_the_account_allows() -> None:
    limits = replace(LIMITS, max_submit_jobs=10)
    (check,) = check_limits("c", limits, {"few": 8, "many": 40})
    assert check.mark == "warn"
    assert "10 jobs of yours: the slots of pool many cannot all be used" in check.finding
    assert check_limits("c", LIMITS, {"many": 40})[0].mark == "ok"


def test_a_partition_that_takes_jobs() -> None:
    check = check_partitions("p", ["genoa"], {"genoa": GENOA}, [CPU, L40S])
    assert check.mark == "ok"
    assert check.finding == (
        "partition genoa is UP, 2 of 2 nodes take jobs: 48 CPUs, 190000 MiB; 1-00:00:00 at most"
    )


@pytest.mark.parametrize(
    ("partition", "nodes", "words"),
    [
        (Partition("other", "UP"), CPU, "no such partition; got: genoa; expected: other"),
        (replace(GENOA, state="DRAIN"), CPU, "starts no jobs; where: partition genoa; got: DRAIN"),
        (
            GENOA,
            replace(CPU, state="drained"),
            "no node takes jobs; where: partition genoa; got: 2",
        ),
        (GENOA, replace(CPU, answers=False), "2 idle (no answer)"),
    ],
)
def test_a_partition_that_takes_none(partition: Partition, nodes: Nodes, words: str) -> None:
    check = check_partitions("p", ["genoa"], {partition.name: partition}, [nodes])
    assert check.mark == "BAD"
    assert words in check.finding


def test_a_job_longer_than_its_partition_gives_would_wait_for_ever() -> None:
    (check,) = check_time("p", asked(time_limit_s=86401), [GENOA])
    assert check.mark == "BAD"
    assert "would wait for ever" in check.finding
    assert "asks for 1-00:00:01; expected: 1-00:00:00 at most" in check.finding
    assert check_time("p", asked(time_limit_s=86400), [GENOA]) == []
    assert check_time("p", asked(time_limit_s=86401), [Partition("l", "UP")]) == []


def test_a_packed_job_takes_the_time_of_all_its_elements() -> None:
    job = Asked.of("traits.aoa", Resources(time_limit_s=600), Caps(time_limit_s=1500), 4)
    assert job.time_s == 1500
    assert Asked.of("traits.aoa", Resources(), Caps(time_limit_s=1500), 1).time_s == 1500


def test_retries_that_would_grow_above_what_there_is() -> None:
    checks = check_caps("p", pool(max_time="2-00:00:00", max_memory="400GiB"), [GENOA], [CPU])
    assert [check.mark for check in checks] == ["warn", "warn"]
    assert 'max_time = "1-00:00:00"' in checks[0].finding
    assert 'max_memory = "190000MiB"' in checks[1].finding
    assert check_caps("p", pool(max_time="1-00:00:00", max_memory="64GiB"), [GENOA], [CPU]) == []


@pytest.mark.parametrize(
    ("wants", "words", "expected"),
    [
        ({"cpus": 33}, {}, "at most 32 CPUs"),
        ({"gpus": 9}, {"gres": "gpu:l40s"}, "at most 4 GPUs"),
        ({"gpus": 1}, {"gres": "gpu:a100"}, "a gres that the nodes have: gpu:l40s:4"),
        ({"memory_mib": 256001}, {}, "at most 256000 MiB"),
        ({"cpus": 33, "gpus": 5}, {}, "at most 32 CPUs, 4 GPUs"),
        ({}, {"constraint": "zen4"}, "constraint = zen4); do: correct what the pool says to Slurm"),
        ({"cpus": 33}, {"nodes": 2, "ntasks": 2}, "do: correct what the pool says"),
    ],
)
def test_why_slurm_would_refuse_a_job(
    wants: dict[str, int], words: dict[str, object], expected: str
) -> None:
    check = explain_refusal("p", asked(**wants), REFUSED, pool(partition="l40s", **words), [L40S])
    assert check.mark == "BAD"
    assert f"got: {REFUSED} (asked for " in check.finding
    assert expected in check.finding


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("Resources", "--patience"),
        ("Priority", "--patience"),
        ("ReqNodeNotAvail, UnavailableNodes:cpu1", "sinfo -R"),
        ("AssocGrpCpuLimit", "squeue --me"),
        ("Mystery", "man squeue"),
    ],
)
def test_why_a_job_waits(reason: str, advice: str) -> None:
    said = str(explain_wait(row("PENDING", reason=reason), 120.0, "on Monday"))
    assert said.startswith("the job did not start, and was cancelled; got: ")
    assert f"got: {reason}, after 120 s (Slurm expects to start it on Monday)" in said
    assert advice in said.partition("; do: ")[2]


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("PartitionTimeLimit", "max_time"),
        ("InvalidAccount", "correct 'account'"),
        ("QOSMaxWallDurationPerJobLimit", "ask for less"),
    ],
)
def test_what_time_alone_does_not_bring(reason: str, advice: str) -> None:
    said = str(explain_wait(row("PENDING", reason=reason), 1.0, None))
    assert said.startswith(f"the job would never start, and was cancelled; got: {reason}; do: ")
    assert advice in said


@pytest.mark.parametrize(
    ("end", "output", "words"),
    [
        (row("FAILED", exit_code=0, signal=53), "", "cpu1 does not see the work directory"),
        (
            row("FAILED", exit_code=75),
            "muster: cpu1 cannot write to the folder of this submission: /w\n",
            "cpu1 does not see the work directory",
        ),
        (
            row("FAILED", exit_code=127),
            "hello\n/var/spool/job7/slurm_script: line 39: python3: command not found\n",
            "does not start on cpu1; where: [clusters.x]; got: python3: command not found "
            "(FAILED, exit code 127)",
        ),
        (row("FAILED", exit_code=1), "", "nothing printed (FAILED, exit code 1)"),
        (row("COMPLETED", exit_code=0), "", "its result is not seen here"),
        (row("OUT_OF_MEMORY", exit_code=0, signal=9), "x\n", "OUT_OF_MEMORY, signal 9; x"),
    ],
)
def test_why_a_job_left_no_result(end: JobRow, output: str, words: str) -> None:
    assert words in str(explain_end(end, output, "/w/slurm/key", "[clusters.x]"))
