"""What Slurm prints: real outputs of Slurm 22.05, and what must never be taken for an answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from muster.backends.slurm.parse import (
    ACCOUNTING_FORMAT,
    FIELD_END,
    QUEUE_FORMAT,
    JobRow,
    is_alive,
    is_orphaned,
    is_refusal,
    is_stuck,
    observe_row,
    parse_accounting,
    parse_job_completions,
    parse_job_id,
    parse_queue,
)
from muster.errors import SoftwareError
from muster.model.outcome import JobState, Observation

SAMPLES = Path(__file__).parent / "samples"


def read(name: str) -> str:
    return (SAMPLES / name).read_bytes().decode()


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def table(*rows: str) -> str:
    """Make a table of rows that are written with bars."""
    return "".join(row.replace("|", FIELD_END) + FIELD_END + "\n" for row in rows)


QUEUE_ROW = "8|1|FAILED|256|NonZeroExitCode|c1|10|20|30|key|comment"
ACCOUNTING_ROW = "8_1|FAILED|1:0|None|c1|10|20|30|key|comment"


def test_the_queue_as_slurm_prints_it() -> None:
    rows = {(row.job_id, row.task): row for row in parse_queue(read("queue.txt"))}
    assert rows[101, 7] == JobRow(
        name="c143",
        job_id=101,
        task=7,
        state="FAILED",
        reason="NonZeroExitCode",
        exit_code=137,
        node="c1",
        submitted_at=at(1795275413),
        started_at=at(1795275415),
        ended_at=at(1795275415),
    )
    assert (rows[100, None].exit_code, rows[100, None].signal) == (0, 11)
    assert (rows[14, None].exit_code, rows[14, None].signal) == (0, 53)
    assert rows[5, None].name == "new\nline"
    assert rows[5, None].comment == "c\td"
    assert rows[4, None].comment == 'a|b$(x) é "q"'
    running = rows[103, None]
    assert running.started_at == at(1795275415)
    assert running.ended_at is None  # squeue shows when its time is up
    assert running.exit_code is None
    waiting = rows[102, 3]
    assert (waiting.state, waiting.started_at, waiting.node) == ("PENDING", None, None)
    assert len(rows) == len(parse_queue(read("queue.txt")))


def test_the_accounting_as_slurm_prints_it() -> None:
    rows = {(row.job_id, row.task): row for row in parse_accounting(read("accounting.txt"))}
    assert rows[8, 3] == JobRow(
        name="arr",
        job_id=8,
        task=3,
        state="FAILED",
        reason="JobArrayTaskLimit",
        exit_code=3,
        node="c1",
        submitted_at=at(1795274689),
        started_at=at(1795274695),
        ended_at=at(1795274695),
        comment="arr",
    )
    assert [task for job, task in rows if job == 102] == [3, 4, 5, 6]
    assert [task for job, task in rows if job == 96] == [*range(0, 45, 2), *range(46, 61)]
    assert (rows[1, None].state, rows[1, None].signal) == ("CANCELLED", 9)
    assert rows[99, None].started_at is None
    assert rows[99, None].ended_at == at(1795275416)
    assert rows[5, None].name == "new\nline"
    assert rows[6, None].exit_code == 65
    assert rows[101, 7].exit_code == 137  # sacct says 9:0
    assert rows[9, None].exit_code == 143  # sacct says 15:0


def test_the_file_of_ended_jobs_as_slurm_writes_it() -> None:
    rows = {(row.job_id, row.task): row for row in parse_job_completions(read("jobcomp.txt"), UTC)}
    assert rows[101, 7] == JobRow(
        name="c143",
        job_id=101,
        task=7,
        state="FAILED",
        exit_code=137,
        node="c1",
        submitted_at=at(1795275413),
        started_at=at(1795275415),
        ended_at=at(1795275415),
    )
    assert (rows[100, None].signal, rows[100, None].node) == (11, "c1")
    assert (rows[99, None].state, rows[99, None].node) == ("CANCELLED", None)
    east = timezone(timedelta(hours=2))
    assert parse_job_completions(read("jobcomp.txt"), east)[0].ended_at == at(1795274629 - 7200)
    assert parse_job_completions("") == []


@pytest.mark.parametrize(
    ("older", "newer", "ends"),
    [
        ("256", "1:0", (1, 0)),
        ("35072", "137:0", (137, 0)),
        ("11", "0:11", (0, 11)),
        ("53", "0:53", (0, 53)),
    ],
)
def test_the_queue_says_how_a_job_ended_in_every_version(
    older: str, newer: str, ends: tuple[int, int]
) -> None:
    for text in (older, newer):
        (row,) = parse_queue(table(QUEUE_ROW.replace("256", text)))
        assert (row.exit_code, row.signal or 0) == ends


def test_a_job_cannot_pass_for_another_by_its_name() -> None:
    line = read("jobcomp.txt").splitlines()[0]
    name = "x JobState=FAILED Partition=a\nJobId=7 y"
    (row,) = parse_job_completions(line.replace("Name=nx", f"Name={name}"), UTC)
    assert (row.name, row.state) == (name, "CANCELLED")
    forged = "8|1|RUNNING|0|None|c1|10|20|30|a\n9|1|FAILED|256|x|c1|1|2|3|key|comment"
    with pytest.raises(SoftwareError):  # bars become field ends: no name of Slurm's holds those
        parse_queue(table(forged))
    (row,) = parse_queue(table(QUEUE_ROW.replace("key", "a\n9 1 FAILED")))
    assert (row.job_id, row.name) == (8, "a\n9 1 FAILED")


@pytest.mark.parametrize(
    ("job", "tasks", "rest"),
    [
        ("124", [None], False),
        ("124_7", [7], False),
        ("124_[1-2,5%1]", [1, 2, 5], False),
        ("124_[0-10:5]", [0, 5, 10], False),
        ("124_[3]", [3], False),
        ("124_[0,2,46-6...%1]", [0, 2, None], True),
        ("124_[0-19...]", [None], True),
        ("124+0", [None], False),
    ],
)
def test_lists_of_tasks_are_expanded(job: str, tasks: list[int | None], rest: bool) -> None:
    rows = parse_accounting(table(ACCOUNTING_ROW.replace("8_1", job).replace("FAILED", "PENDING")))
    assert [row.task for row in rows] == tasks
    assert {row.job_id for row in rows} == {124}
    assert [row.rest for row in rows] == [rest and task is None for task in tasks]


@pytest.mark.parametrize(
    "text",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n",
        table(QUEUE_ROW)[:-2],
        table(QUEUE_ROW) + "x",
        table(QUEUE_ROW).replace("\n", "") * 2,
        table("welcome to login1 " + QUEUE_ROW),
        table(QUEUE_ROW, QUEUE_ROW + "|more"),
        table(QUEUE_ROW.replace("|1|", "|one|")),
        table(QUEUE_ROW.replace("|256|", "||")),
        table(QUEUE_ROW.replace("|20|", "|2026-01-01T00:00:00|")),
        table(QUEUE_ROW.replace("FAILED", "")),
    ],
)
def test_what_is_no_queue_is_an_error_that_shows_it(text: str) -> None:
    with pytest.raises(SoftwareError, match="cannot understand Slurm; where: squeue; got: "):
        parse_queue(text)


@pytest.mark.parametrize(
    "text",
    [
        "sacct: error: Problem talking to the database\n",
        table(ACCOUNTING_ROW.replace("8_1", "8_[1-x]")),
        table(ACCOUNTING_ROW.replace("8_1", "8_[1-...,3]")),
        table(ACCOUNTING_ROW.replace("8_1", "")),
        table(ACCOUNTING_ROW.replace("8_1", "8_[]")),
        table(ACCOUNTING_ROW.replace("1:0", "1")),
    ],
)
def test_what_is_no_accounting_is_an_error(text: str) -> None:
    with pytest.raises(SoftwareError, match="where: sacct"):
        parse_accounting(text)


def test_a_line_that_is_none_of_ended_jobs_is_an_error() -> None:
    with pytest.raises(SoftwareError, match="ended jobs"):
        parse_job_completions("JobId=1 UserId=root(0)\n")


def test_nothing_is_no_job() -> None:
    assert parse_queue("") == []
    assert parse_accounting("") == []


def test_the_formats_ask_for_as_much_as_is_parsed() -> None:
    assert QUEUE_FORMAT.count(FIELD_END) == QUEUE_ROW.count("|") + 1
    assert ACCOUNTING_FORMAT.count(",") == ACCOUNTING_ROW.count("|")


# Every state that squeue and sacct of Slurm 22.05 document, and those of newer ones.
STATES = {
    "BOOT_FAIL": JobState.NODE_FAILED,
    "CANCELLED": JobState.CANCELLED,
    "CANCELLED by 1000": JobState.CANCELLED,
    "COMPLETED": JobState.COMPLETED,
    "CONFIGURING": JobState.WAITING,
    "COMPLETING": JobState.RUNNING,
    "DEADLINE": JobState.TIMED_OUT,
    "EXPEDITING": JobState.WAITING,
    "FAILED": JobState.FAILED,
    "LAUNCH_FAILED": JobState.NODE_FAILED,
    "NODE_FAIL": JobState.NODE_FAILED,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
    "PENDING": JobState.WAITING,
    "POWER_UP_NODE": JobState.WAITING,
    "PREEMPTED": JobState.PREEMPTED,
    "RECONFIG_FAIL": JobState.NODE_FAILED,
    "RUNNING": JobState.RUNNING,
    "RESV_DEL_HOLD": JobState.WAITING,
    "REQUEUE_FED": JobState.WAITING,
    "REQUEUE_HOLD": JobState.WAITING,
    "REQUEUED": JobState.WAITING,
    "RESIZING": JobState.RUNNING,
    "REVOKED": JobState.CANCELLED,
    "SIGNALING": JobState.RUNNING,
    "SPECIAL_EXIT": JobState.WAITING,
    "STAGE_OUT": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "TIMEOUT": JobState.TIMED_OUT,
    "UPDATE_DB": JobState.RUNNING,
    "A_STATE_OF_SLURM_30": JobState.UNKNOWN,
}


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_told_in_our_own_words(state: str) -> None:
    (row,) = parse_queue(table(QUEUE_ROW.replace("FAILED", state)))
    seen = observe_row(row)
    assert seen.state is STATES[state]
    assert seen.host == "c1"
    alive = {JobState.WAITING, JobState.RUNNING}
    assert is_alive(row) == (seen.state in alive)
    assert (row.ended_at is None) == is_alive(row)
    assert (row.started_at is None) == (seen.state is JobState.WAITING)


def test_a_failure_keeps_its_code_and_its_signal() -> None:
    rows = {(row.job_id, row.task): row for row in parse_queue(read("queue.txt"))}
    assert observe_row(rows[97, None]) == Observation(JobState.FAILED, exit_code=1, host="c1")
    assert observe_row(rows[100, None]) == Observation(
        JobState.FAILED, exit_code=0, signal=11, host="c1"
    )


def test_a_node_that_does_not_see_the_folder_has_failed() -> None:
    rows = {row.job_id: row for row in parse_queue(read("queue.txt"))}
    assert observe_row(rows[14]).state is JobState.NODE_FAILED
    assert observe_row(rows[14]).host == "c1"


def test_a_dependency_that_can_never_be_is_seen() -> None:
    rows = {row.job_id: row for row in parse_queue(read("queue.txt"))}
    assert [job for job, row in rows.items() if is_orphaned(row)] == [99, 98]
    assert observe_row(rows[99]).state is JobState.ORPHANED
    assert observe_row(rows[98]).state is JobState.WAITING


def test_what_slurm_refused_stands_in_its_queue_and_is_no_failure_of_a_job() -> None:
    rows = {row.job_id: row for row in parse_queue(read("queue.txt"))}
    assert sorted(job for job, row in rows.items() if is_refusal(row)) == [15, 16, 18]
    assert observe_row(rows[15]) == Observation(JobState.FAILED, exit_code=65)


def test_what_only_a_person_can_move_is_seen() -> None:
    rows = {row.job_id: row for row in parse_queue(read("queue.txt"))}
    assert sorted(job for job, row in rows.items() if is_stuck(row)) == [4, 5, 17, 22, 98, 102]


@pytest.mark.parametrize(("text", "job"), [("123\n", 123), ("123;perlmutter\n", 123)])
def test_the_number_of_a_job(text: str, job: int) -> None:
    assert parse_job_id(text) == job


@pytest.mark.parametrize("text", ["", "Submitted batch job 123\n", "123\n124\n", "-1", "12a"])
def test_what_is_no_number_of_a_job(text: str) -> None:
    with pytest.raises(SoftwareError):
        parse_job_id(text)
