"""Slurm's commands as a script answers them: in the words of the real ones, and as slowly.

It takes the arguments that it knows and refuses all others, as the real ones do; what it refused is
kept, so that a test can say that nothing was.  The formats are read from the arguments, and never
taken from the code that parses the answers.
"""

from __future__ import annotations

import asyncio
import getpass
import random
import re
import shlex
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from muster.backends.remote.transport import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.scripted_cluster import Job, ScriptedCluster, Task

CONFIG = Path(__file__).parent / "unit/backends/slurm/samples/config.txt"
SBATCH_OPTIONS = {
    "job-name", "comment", "no-requeue", "partition", "account", "qos", "constraint", "gres",
    "cpus-per-task", "mem", "time", "array", "exclude", "output", "open-mode", "export",
}  # fmt: skip
STATUS_COMMANDS = ("squeue", "sacct")


class Refused(Exception):
    """What a command says when it does not do what it was asked."""

    def __init__(self, line: str, exit_code: int = 1) -> None:
        super().__init__(line)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Call:
    """One call: when it began, in seconds of the cluster, and how many rows it was answered."""

    at_s: float
    command: str
    rows: int
    exit_code: int


@dataclass(frozen=True)
class Latency:
    """How long commands take, in seconds of the cluster, as seen on a real one of two cores."""

    sbatch_s: tuple[float, float] = (0.04, 0.5)
    status_s: float = 0.02
    queue_row_s: float = 2.2 / 38_000
    accounting_row_s: float = 5.0 / 38_000
    other_s: float = 0.02


class ScriptedSlurm:
    """A transport to an acted cluster.

    Attributes
    ----------
    calls : list of Call
        All of them, in their order.
    refused : list of str
        What was not understood.
    """

    def __init__(self, cluster: ScriptedCluster, latency: Latency | None = None) -> None:
        self.cluster = cluster
        self.calls: list[Call] = []
        self.refused: list[str] = []
        self._latency = latency or Latency()
        self._random = random.Random(cluster.script.seed)
        self._user = getpass.getuser()
        self._commands: dict[str, Callable[[Sequence[str]], str]] = {
            "sbatch": self._sbatch,
            "squeue": self._squeue,
            "sacct": self._sacct,
            "scancel": self._scancel,
            "scontrol": self._scontrol,
            "sacctmgr": self._sacctmgr,
            "id": self._id,
        }

    async def call(self, arguments: Sequence[str], *, timeout_s: float) -> Answer:
        """Answer a command, as late as the real one would."""
        started_s = time.monotonic()
        at_s = self.cluster.advance()
        command, answer = self._answer(arguments)
        rows = answer.stdout.count("\n")
        self.calls.append(Call(at_s, command, rows, answer.exit_code))
        late_s = self._takes_s(command, rows) / self.cluster.clock.speed
        await asyncio.sleep(max(0.0, late_s - (time.monotonic() - started_s)))
        return answer

    async def close(self) -> None:
        """Do nothing."""

    def status_calls(self, window_s: float = 30.0) -> list[int]:
        """Count, from each status call on, how many there were in so many seconds."""
        times = [call.at_s for call in self.calls if call.command in STATUS_COMMANDS]
        return [sum(t <= other < t + window_s for other in times) for t in times]

    def _answer(self, arguments: Sequence[str]) -> tuple[str, Answer]:
        command, words = "", list(arguments)
        try:
            words = _take_environment(words)
            command, *words = words
            return command, Answer(0, self._find(command)(words), "")
        except Refused as error:
            if "Batch job submission failed" not in str(error):
                self.refused.append(shlex.join(arguments))
            return command, Answer(error.exit_code, "", f"{error}\n")

    def _find(self, command: str) -> Callable[[Sequence[str]], str]:
        if command not in self._commands:
            raise Refused(f"env: ‘{command}’: No such file or directory", 127)
        return self._commands[command]

    def _takes_s(self, command: str, rows: int) -> float:
        late = self._latency
        if command == "sbatch":
            return self._random.uniform(*late.sbatch_s)
        row_s = {"squeue": late.queue_row_s, "sacct": late.accounting_row_s}.get(command)
        return late.other_s if row_s is None else late.status_s + row_s * rows

    # -- the commands ------------------------------------------------------------------------

    def _sbatch(self, words: Sequence[str]) -> str:
        if len(words) != 3 or words[0] != "--parsable" or not words[1].startswith("--chdir="):
            raise Refused(f"sbatch: unrecognized option in {words!r}")
        folder, script = Path(words[1].removeprefix("--chdir=")), Path(words[2])
        options = dict(_directives(script.read_text(encoding="utf-8")))
        unknown = sorted(set(options) - SBATCH_OPTIONS)
        if unknown:
            raise Refused(f"sbatch: unrecognized option '--{unknown[0]}'")
        variables = _variables((folder / "environment").read_text(encoding="utf-8"))
        if variables["MUSTER_JOB"] != options["job-name"]:
            raise Refused("sbatch: error: the script and its variables tell of different jobs")
        lines = (folder / "elements").read_text(encoding="utf-8").splitlines()
        tasks = [tuple(map(int, line.split())) for line in lines]
        count, at_once = _array(options.get("array"))
        if count != len(tasks):
            raise Refused(f"sbatch: error: an array of {count} for {len(tasks)} lines of elements")
        if count > self.cluster.script.max_array_size:
            raise Refused(f"{_FAILED}: Invalid job array specification")
        if self.cluster.alive() + count >= self.cluster.script.max_job_count:
            raise Refused(f"{_FAILED}: Resource temporarily unavailable")
        job_id = self.cluster.submit(
            options["job-name"],
            options["comment"],
            variables["MUSTER_BATCH"],
            tasks,
            at_once=at_once,
            is_array="array" in options,
        )
        return f"{job_id}\n"

    def _squeue(self, words: Sequence[str]) -> str:
        options = _options("squeue", words, flags=("-h", "-r"), values=("-t", "-O", "-u", "-n"))
        if not {"-h", "-r"} <= options.keys() or options.get("-t") != "all":
            raise Refused(f"squeue: error: this script answers -h -r -t all only: {words!r}")
        self._check_user("squeue", options.get("-u"))
        fields = _queue_fields(options.get("-O", ""))
        names = set(options["-n"].split(",")) if "-n" in options else None
        now_s, remembered_s = self.cluster.clock.now_s(), self.cluster.script.min_job_age_s
        return "".join(
            self._row(task, fields)
            for job in self.cluster.jobs.values()
            if names is None or job.name in names
            for task in job.tasks
            if task.ended_s is None or now_s - task.ended_s < remembered_s
        )

    def _row(self, task: Task, fields: Sequence[tuple[str, str]]) -> str:
        """Show a task; its row is the same until its state is another."""
        state = f"{task.state} {id(fields)}"
        if task.shown[0] != state:
            values = (f"{_QUEUE[name](self, task)}{end}" for name, end in fields)
            task.shown = (state, f"{''.join(values)}\n")
        return task.shown[1]

    def _sacct(self, words: Sequence[str]) -> str:
        options = _options(
            "sacct", words, flags=("-X", "-n", "-p", "-D"),
            values=("-o", "-S", "-j", "--delimiter", "--name"),
        )  # fmt: skip
        if not {"-X", "-n", "-p", "-D"} <= options.keys():
            raise Refused(f"sacct: error: this script answers -X -n -p -D only: {words!r}")
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", options.get("-S", "")):
            raise Refused(f"sacct: error: Invalid time specification: {options.get('-S')!r}")
        ids = {int(word) for word in options["-j"].split(",")} if "-j" in options else None
        names = options["--name"].split(",") if "--name" in options else None
        fields, end = options.get("-o", "").split(","), options.get("--delimiter", "|")
        unknown = [name for name in fields if name not in _ACCOUNTING]
        if unknown:
            raise Refused(f'sacct: error: Invalid field requested: "{unknown[0]}"')
        now_s = self.cluster.clock.now_s()
        rows = (
            "".join(f"{_ACCOUNTING[name](self, label, task, state)}{end}" for name in fields)
            for job in self.cluster.jobs.values()
            if (ids is None or job.id in ids) and (names is None or job.name in names)
            for label, task, state in _accounted(job, now_s)
        )
        return "".join(f"{row}\n" for row in rows)

    def _scancel(self, words: Sequence[str]) -> str:
        options = _options("scancel", words, flags=(), values=("--name", "-u"))
        self._check_user("scancel", options.get("-u"))
        self.cluster.cancel(options["--name"])
        return ""

    def _scontrol(self, words: Sequence[str]) -> str:
        if list(words) != ["show", "config"]:
            raise Refused(f"scontrol: error: invalid keyword: {words!r}")
        script = self.cluster.script
        settings = {
            "MinJobAge": f"{script.min_job_age_s:.0f} sec",
            "MaxJobCount": script.max_job_count,
            "MaxArraySize": script.max_array_size,
        }
        text = CONFIG.read_text(encoding="utf-8")
        for name, value in settings.items():
            text, count = re.subn(rf"(?m)^({name} *= ).*$", rf"\g<1>{value}", text)
            assert count == 1, name
        return text

    def _sacctmgr(self, words: Sequence[str]) -> str:
        wanted = ["-n", "-P", "show", "assoc", "format=account,maxsubmitjobs,maxjobs,grpsubmitjobs",
                  "where", f"user={self._user}"]  # fmt: skip
        if list(words) != wanted:
            raise Refused(f"sacctmgr: Unknown condition: {words!r}")
        return "science|||\n"

    def _id(self, words: Sequence[str]) -> str:
        if list(words) != ["-un"]:
            raise Refused(f"id: unrecognized option {words!r}")
        return f"{self._user}\n"

    # -- what they show ----------------------------------------------------------------------

    def time(self, at_s: float | None) -> str:
        """Tell a time of the cluster in whole seconds since 1970."""
        assert at_s is not None
        return str(int(self.cluster.clock.wall_s(at_s)))

    def _check_user(self, command: str, user: str | None) -> None:
        if user != self._user:
            raise Refused(f"{command}: error: Invalid user: {user}")


_FAILED = "sbatch: error: Batch job submission failed"

_QUEUE: Mapping[str, Callable[[ScriptedSlurm, Task], object]] = {
    "ArrayJobID": lambda _, task: task.job.id,
    "ArrayTaskID": lambda _, task: task.place if task.job.is_array else "N/A",
    "State": lambda _, task: task.state,
    "exit_code": lambda _, task: 0 if task.ended_s is None else task.kind.status,
    "Reason": lambda _, task: _reason(task),
    "NodeList": lambda _, task: task.node,
    "SubmitTime": lambda slurm, task: slurm.time(task.job.submitted_s),
    "StartTime": lambda slurm, task: _time(slurm, task.begun_s, task.ended_s),
    "EndTime": lambda slurm, task: _time(slurm, task.ended_s, task.begun_s),
    "Name": lambda _, task: task.job.name,
    "Comment": lambda _, task: task.job.comment or "(null)",
}

_ACCOUNTING: Mapping[str, Callable[[ScriptedSlurm, str, Task, str], object]] = {
    "JobID": lambda _, label, task, state: label,
    "State": lambda _, label, task, state: "CANCELLED by 0" if state == "CANCELLED" else state,
    "ExitCode": lambda _, label, task, state: task.kind.exit_code if _over(state) else "0:0",
    "Reason": lambda _, label, task, state: "None",
    "NodeList": lambda _, label, task, state: "None assigned" if _idle(task, state) else task.node,
    "Submit": lambda slurm, label, task, state: slurm.time(task.job.submitted_s),
    "Start": lambda slurm, label, task, state: (
        "Unknown" if _idle(task, state) else slurm.time(task.begun_s)
    ),
    "End": lambda slurm, label, task, state: (
        slurm.time(task.ended_s) if _over(state) else "Unknown"
    ),
    "JobName": lambda _, label, task, state: task.job.name,
    "Comment": lambda _, label, task, state: task.job.comment,
}


def _time(slurm: ScriptedSlurm, at_s: float | None, other_s: float | None) -> str:
    known_s = at_s if at_s is not None else other_s
    return "N/A" if known_s is None else slurm.time(known_s)


def _reason(task: Task) -> str:
    if task.ended_s is not None:
        return task.kind.reason
    return "Resources" if task.begun_s is None else "None"


def _over(state: str) -> bool:
    return state not in ("PENDING", "RUNNING")


def _idle(task: Task, state: str) -> bool:
    return state == "PENDING" or task.begun_s is None


def _accounted(job: Job, now_s: float) -> Iterator[tuple[str, Task, str]]:
    """List the rows of a job: what waits in one, as the accounting does."""
    waiting: list[Task] = []
    for task in job.tasks:
        known_s = now_s - task.lag_s
        if task.ended_s is not None and task.ended_s <= known_s:
            yield _label(job, str(task.place)), task, task.kind.state
        elif task.begun_s is not None and task.begun_s <= known_s:
            yield _label(job, str(task.place)), task, "RUNNING"
        else:
            waiting.append(task)
    if waiting:
        places = ",".join(str(task.place) for task in waiting)
        yield _label(job, f"[{places}%{job.at_once}]"), waiting[0], "PENDING"


def _label(job: Job, place: str) -> str:
    return f"{job.id}_{place}" if job.is_array else str(job.id)


def _take_environment(words: Sequence[str]) -> list[str]:
    """Take env and its variables off; times must be asked for in seconds, lists uncut."""
    given: set[str] = set()
    rest = list(words)
    if rest[:1] == ["env"]:
        count = next((i for i, word in enumerate(rest[1:], 1) if "=" not in word), len(rest))
        given, rest = set(rest[1:count]), rest[count:]
    needed = {"SLURM_TIME_FORMAT=%s", "SLURM_BITSTR_LEN=0"} if rest[0] in STATUS_COMMANDS else set()
    if given != needed:
        raise Refused(f"env: not what this script answers to: {sorted(given)}", 125)
    return rest


def _options(
    command: str, words: Sequence[str], *, flags: Sequence[str], values: Sequence[str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, is_long, value = word.partition("=")
        if word in flags:
            found[word] = ""
        elif name in values and name.startswith("--") and is_long:
            found[name] = value
        elif word in values and not word.startswith("--") and waiting:
            found[word] = waiting.pop(0)
        else:
            raise Refused(f"{command}: unrecognized option '{word}'")
    return found


@lru_cache(maxsize=8)
def _queue_fields(text: str) -> tuple[tuple[str, str], ...]:
    """Read fields of ``Name:0X``: as wide as they are, and what ends each."""
    fields = []
    for field in text.split(","):
        match = re.fullmatch(r"(\w+):0(.?)", field, re.DOTALL)
        if match is None or match[1] not in _QUEUE:
            raise Refused(f"squeue: error: Unrecognized field: {field!r}")
        fields.append((match[1], match[2]))
    return tuple(fields)


def _directives(script: str) -> Iterator[tuple[str, str]]:
    for line in script.splitlines():
        if line.startswith("#SBATCH "):
            name, _, value = line.removeprefix("#SBATCH ").removeprefix("--").partition("=")
            yield name, value


def _variables(text: str) -> dict[str, str]:
    pairs = (word.partition("=") for word in shlex.split(text) if word != "export")
    return {name: value for name, _, value in pairs}


def _array(text: str | None) -> tuple[int, int | None]:
    if text is None:
        return 1, None
    match = re.fullmatch(r"0-(\d+)(?:%(\d+))?", text)
    if match is None:
        raise Refused(f"{_FAILED}: Invalid job array specification")
    return int(match[1]) + 1, int(match[2]) if match[2] else None
