"""What squeue, sacct, Slurm's file of ended jobs and sbatch print, as frozen rows.

Job names and comments are anybody's text, with blanks, bars and line breaks in it.  squeue and
sacct are therefore told to end every field with a control character that no text holds, and rows
are counted by fields.  What does not fit is an error and never left out: a row that is not seen
would be taken for a job that has gone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from muster.errors import SoftwareError
from muster.model.outcome import JobState, Observation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

FIELD_END = "\x1f"
TIMES = ("SLURM_TIME_FORMAT=%s", "SLURM_BITSTR_LEN=0")
"""Variables that squeue and sacct are called with: seconds since 1970, and whole lists of tasks."""

_QUEUE = (
    "ArrayJobID", "ArrayTaskID", "State", "exit_code", "Reason", "NodeList", "SubmitTime",
    "StartTime", "EndTime", "Name", "Comment",
)  # fmt: skip
_ACCOUNTING = (
    "JobID", "State", "ExitCode", "Reason", "NodeList", "Submit", "Start", "End", "JobName",
    "Comment",
)  # fmt: skip
QUEUE_FORMAT = ",".join(f"{name}:0{FIELD_END}" for name in _QUEUE)  # 0: however wide it is
QUEUE_ARGUMENTS = ("-h", "-r", "-t", "all", "-O", QUEUE_FORMAT)
"""Of squeue, for :func:`parse_queue`; with ``-u USER`` and, where wanted, ``-n KEY,KEY``."""
ACCOUNTING_FORMAT = ",".join(_ACCOUNTING)
ACCOUNTING_ARGUMENTS = ("-X", "-n", "-p", "-D", f"--delimiter={FIELD_END}", "-o", ACCOUNTING_FORMAT)
"""Of sacct, for :func:`parse_accounting`; with ``-S`` and ``-j ID,ID`` or ``--name=KEY``."""

_NOTHING = frozenset({"", "(null)", "N/A", "None", "Unknown", "unknown", "None assigned"})
_JOB = re.compile(r"(\d+)(?:\+\d+)?(?:_(?:(\d+)|\[(.*)\]))?")
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
_COMPLETION = re.compile(
    r"JobId=(?P<id>\d+) UserId=.*? GroupId=.*? Name=(?P<name>.*) JobState=(?P<state>\S+) "
    r"Partition=.* StartTime=(?P<start>\S+) EndTime=(?P<end>\S+) NodeList=(?P<node>\S+) .*"
    r" SubmitTime=(?P<submit>\S+) EligibleTime=\S+ +(?:ArrayJobId=(?P<array>\d+) "
    r"ArrayTaskId=(?P<task>\d+) )?.*\bExitCode=(?P<exit>\d+:\d+)\s*",
    re.DOTALL,
)

_WAITING = {
    "PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD",
    "SPECIAL_EXIT", "POWER_UP_NODE", "EXPEDITING",
}  # fmt: skip
# COMPLETING: its processes may live, and how it ended is not said before it has left the node. No
# outcome waits for that where a result is there, which is believed before anything seen here.
_RUNNING = {
    "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT",
    "UPDATE_DB",
}  # fmt: skip
_JOB_STATES = {
    **dict.fromkeys(_WAITING, JobState.WAITING),
    **dict.fromkeys(_RUNNING, JobState.RUNNING),
    "COMPLETED": JobState.COMPLETED,
    "FAILED": JobState.FAILED,
    "TIMEOUT": JobState.TIMED_OUT,
    "DEADLINE": JobState.TIMED_OUT,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
    "NODE_FAIL": JobState.NODE_FAILED,
    "BOOT_FAIL": JobState.NODE_FAILED,
    "LAUNCH_FAILED": JobState.NODE_FAILED,
    "RECONFIG_FAIL": JobState.NODE_FAILED,
    "PREEMPTED": JobState.PREEMPTED,
    "CANCELLED": JobState.CANCELLED,
    "REVOKED": JobState.CANCELLED,  # another cluster of a federation has it: a retry is a twin
}
LOST_FOLDER_SIGNAL = 53
"""No signal, but slurmd's word that it could not open the output in the submission's folder."""

# sacct takes 128 away from an exit code above it. A runner ends with none of these codes itself.
_SIGNALS_BEHIND_CODES = frozenset({4, 6, 7, 8, 9, 11, 15})

_NEVER_SATISFIED = "DependencyNeverSatisfied"
_REFUSED = "BadConstraints"
_STUCK = re.compile(
    r"PartitionTimeLimit|PartitionNodeLimit|PartitionConfig|BadConstraints|Invalid(?:Account|QOS)"
    r"|AccountNotAllowed|QOSNotAllowed|QOSUsageThreshold|JobHeld(?:Admin|User)"
    r"|(?:Assoc|QOS)Max\w*PerJob\w*|(?:Assoc|QOS)MaxWallDuration\w*"
)


@dataclass(frozen=True)
class JobRow:
    """One job, or one task of an array, as one of Slurm's sources shows it.

    Attributes
    ----------
    name : str
        Name: the submission key.
    job_id : int
        Number of the job, or of the whole array.
    task : int or None
        Index in the array; None for a job that is none.
    state : str
        Slurm's word, in upper case and without the "by UID" of a cancellation.
    reason : str or None
        Why it waits, or how it ended; the accounting keeps the last reason to wait.
    exit_code, signal : int or None
        How it ended; None while it has not.
    node : str or None
        Where it runs or ran.
    submitted_at, started_at, ended_at : datetime or None
        In UTC; what Slurm only expects is None.
    comment : str
        The submission key too; empty where the source keeps none.
    rest : bool
        Whether it stands for every task of the array that has no row of its own: the accounting
        cuts long lists of waiting tasks short.
    """

    name: str
    job_id: int
    task: int | None
    state: str
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    node: str | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    comment: str = ""
    rest: bool = False


def parse_queue(text: str) -> list[JobRow]:
    """Parse what ``squeue`` with QUEUE_ARGUMENTS prints.

    Raises
    ------
    SoftwareError
        When a row is not as it should be.
    """
    rows: list[JobRow] = []
    for fields in _split(text, len(_QUEUE), "squeue"):
        array, task, state, status, reason, node, *times, name, comment = fields
        try:
            ends = _read_status(status)
            job = f"{array}_{task}" if task not in _NOTHING else array
            rows += _rows(job, state, ends, (reason, node, name, comment), _read_times(times))
        except ValueError as error:
            raise _malformed("squeue", fields) from error
    return rows


def parse_accounting(text: str) -> list[JobRow]:
    """Parse what ``sacct`` with ACCOUNTING_ARGUMENTS prints; a row of many tasks becomes many.

    Raises
    ------
    SoftwareError
        When a row is not as it should be.
    """
    rows: list[JobRow] = []
    for fields in _split(text, len(_ACCOUNTING), "sacct"):
        job, state, exit_code, reason, node, *times, name, comment = fields
        try:
            code, signal = _read_exit(exit_code)
            if code in _SIGNALS_BEHIND_CODES:
                code += 128
            words = (reason, node, name, comment)
            rows += _rows(job, state, (code, signal), words, _read_times(times))
        except ValueError as error:
            raise _malformed("sacct", fields) from error
    return rows


def parse_job_completions(text: str, zone: tzinfo | None = None) -> list[JobRow]:
    """Parse the file of ended jobs that ``JobCompType=jobcomp/filetxt`` keeps.

    Parameters
    ----------
    text : str
        Whole lines of it.
    zone : tzinfo or None
        The controller's time zone, which the file does not say; by default this machine's.

    Raises
    ------
    SoftwareError
        When a line is not as it should be.
    """
    rows: list[JobRow] = []
    for line in re.split(r"\n(?=JobId=\d+ UserId=)", text.strip("\n")) if text.strip() else []:
        match = _COMPLETION.fullmatch(line)
        if match is None:
            raise _malformed("the file of ended jobs", [line])
        job = f"{match['array']}_{match['task']}" if match["array"] else match["id"]
        times = [_read_local(match[name], zone) for name in ("submit", "start", "end")]
        words = ("", match["node"], match["name"], "")
        rows += _rows(job, match["state"], _read_exit(match["exit"]), words, times)
    return rows


def parse_job_id(text: str) -> int:
    """Parse what ``sbatch --parsable`` prints: ``123``, or ``123;cluster``.

    Raises
    ------
    SoftwareError
        When it is neither.
    """
    match = re.fullmatch(r"(\d+)(;\S+)?", text.strip())
    if match is None:
        raise _malformed("sbatch --parsable", [text])
    return int(match[1])


def observe_row(row: JobRow) -> Observation:
    """Say in no scheduler's own words how a job is."""
    state = _JOB_STATES.get(row.state, JobState.UNKNOWN)
    code, signal = row.exit_code, row.signal
    if is_orphaned(row) and state is JobState.CANCELLED:
        state = JobState.ORPHANED
    if state is JobState.FAILED and signal == LOST_FOLDER_SIGNAL:
        state = JobState.NODE_FAILED  # the node does not see the folder: another one may
    if is_refusal(row):
        code, signal = os.EX_DATAERR, None  # Slurm shows a status that no process ended with
    return Observation(state, exit_code=code, signal=signal, host=row.node)


def is_alive(row: JobRow) -> bool:
    """Tell whether a job waits or runs, by Slurm's word."""
    return row.state in _WAITING or row.state in _RUNNING


def is_orphaned(row: JobRow) -> bool:
    """Tell whether what a job waited for can never be.

    The queue alone says so; the accounting shows no more than that such a job was cancelled.
    """
    return row.reason == _NEVER_SATISFIED


def is_refusal(row: JobRow) -> bool:
    """Tell whether Slurm only noted here that it refused a job.

    sbatch was told so with an error; the note stands in the queue under the submission's name.
    """
    return row.state == "FAILED" and row.reason == _REFUSED and row.node is None


def is_stuck(row: JobRow) -> bool:
    """Tell whether a job waits for what time alone does not bring: a person has to act."""
    waits = row.state == "PENDING"
    return waits and (is_orphaned(row) or _STUCK.fullmatch(row.reason or "") is not None)


def _split(text: str, count: int, source: str) -> Iterator[list[str]]:
    """Split a table whose fields all end with FIELD_END, and whose rows end with a line break."""
    *fields, rest = text.split(FIELD_END)
    if rest.strip("\n") or len(fields) % count:
        raise _malformed(source, [*fields[len(fields) // count * count :], rest])
    for first in range(0, len(fields), count):
        row = fields[first : first + count]
        if first:
            if not row[0].startswith("\n"):
                raise _malformed(source, row)
            row[0] = row[0][1:]
        yield row


def _rows(
    job: str,
    state: str,
    ends: tuple[int, int],
    words: tuple[str, str, str, str],
    times: list[datetime | None],
) -> Iterator[JobRow]:
    match = _JOB.fullmatch(job)
    state = state.partition(" ")[0].upper()
    if match is None or not re.fullmatch(r"[A-Z][A-Z0-9_+]*", state):
        raise ValueError(job)
    tasks: list[int | None] = [int(match[2]) if match[2] else None]
    rest = False
    if match[3] is not None:
        listed, _, _ = match[3].partition("%")
        rest = listed.endswith("...")
        if rest:  # the last number may be cut, too
            listed = listed.rpartition(",")[0]
        tasks = [*_expand(listed), *([None] if rest else [])]
    if not tasks:
        raise ValueError(job)
    reason, node = (None if word in _NOTHING else word for word in words[:2])
    name, comment = ("" if word == "(null)" else word for word in words[2:])
    alive = state in _WAITING or state in _RUNNING
    submitted_at, started_at, ended_at = times
    for task in tasks:
        yield JobRow(
            name=name,
            job_id=int(match[1]),
            task=task,
            state=state,
            reason=reason,
            exit_code=None if alive else ends[0],
            signal=None if alive else ends[1] or None,
            node=node,
            submitted_at=submitted_at,
            started_at=None if state in _WAITING else started_at,
            ended_at=None if alive else ended_at,
            comment=comment,
            rest=rest and task is None,
        )


def _expand(listed: str) -> Iterator[int]:
    """Expand a list of tasks such as ``1-3,7,10-20:5``."""
    for part in listed.split(",") if listed else ():
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(listed)
        first = int(match[1])
        yield from range(first, int(match[2] or first) + 1, int(match[3] or 1))


def _read_status(text: str) -> tuple[int, int]:
    """Take exit code and signal out of what squeue prints.

    That is ``code:signal`` in Slurm 24.11, and what wait(2) has told Slurm in 22.05.
    """
    if ":" in text:
        return _read_exit(text)
    status = int(text)
    signal = status & 0x7F
    return (0 if signal else status >> 8 & 0xFF), signal


def _read_exit(text: str) -> tuple[int, int]:
    code, _, signal = text.partition(":")
    return int(code), int(signal)


def _read_times(times: list[str]) -> list[datetime | None]:
    return [None if t in _NOTHING else datetime.fromtimestamp(int(t), UTC) for t in times]


def _read_local(text: str, zone: tzinfo | None) -> datetime | None:
    if text in _NOTHING:
        return None
    told = datetime.fromisoformat(text)
    return (told.replace(tzinfo=zone) if zone else told).astimezone(UTC)


def _malformed(source: str, fields: list[str]) -> SoftwareError:
    return SoftwareError("cannot understand Slurm", where=source, got=repr("|".join(fields))[:500])
