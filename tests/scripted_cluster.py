"""A cluster that is only acted: slots, a clock of its own speed, and the files that jobs leave.

Nothing runs.  Tasks wait for a slot, run for a drawn time, end as a drawn share of them does, and
leave what a runner would leave, at the same paths: a log, and a result that names its submission.
How long what ended is remembered, and how late the accounting learns of it, is as in Slurm.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.model.fence import read_batch_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.model.batch import Batch


@dataclass(frozen=True)
class Kind:
    """A way to end: Slurm's state, what wait(2) said, Slurm's reason, and the runner's word."""

    state: str
    status: int
    reason: str
    outcome: str | None

    @property
    def exit_code(self) -> str:
        """As the accounting writes it."""
        signal = self.status & 0x7F
        return f"{0 if signal else self.status >> 8}:{signal}"


KINDS = {
    "succeeded": Kind("COMPLETED", 0, "None", "succeeded"),
    "invalid_input": Kind("FAILED", 65 << 8, "NonZeroExitCode", "invalid_input"),
    "software_error": Kind("FAILED", 70 << 8, "NonZeroExitCode", "software_error"),
    "transient": Kind("FAILED", 75 << 8, "NonZeroExitCode", "transient"),
    "timed_out": Kind("TIMEOUT", 0, "TimeLimit", "terminated"),
    "cancelled": Kind("CANCELLED", 15, "None", "terminated"),
    "out_of_memory": Kind("OUT_OF_MEMORY", 125, "OutOfMemory", None),
    "node_failed": Kind("NODE_FAIL", 1, "NodeFail", None),
    "superseded": Kind("COMPLETED", 0, "None", None),
}


MOST_S = 0.2
"""How long the acting of what has happened may take at a time."""


@dataclass(frozen=True)
class Script:
    """What the cluster is like.

    Attributes
    ----------
    slots : int
        Tasks that run at once.
    runs_s : tuple of float
        Shortest and longest time that a task runs.
    starts_per_s : float
        Tasks that the scheduler starts in a second.
    shares : mapping of str to float
        Way to end → share of the tasks; the others succeed.
    min_job_age_s : float
        How long the queue remembers what has ended.
    accounting_lag_s : float
        How late the accounting learns of a beginning or an end at most.
    max_job_count, max_array_size : int
        As in slurm.conf.
    seed : int
        Of everything that is drawn.
    """

    slots: int = 2000
    runs_s: tuple[float, float] = (30.0, 90.0)
    starts_per_s: float = 100.0
    shares: Mapping[str, float] = field(default_factory=dict)
    min_job_age_s: float = 300.0
    accounting_lag_s: float = 10.0
    max_job_count: int = 200_000
    max_array_size: int = 50_001
    seed: int = 1


class ScaledClock:
    """Seconds of the cluster, which pass faster than those on the wall."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._start_s = time.time()

    def now_s(self) -> float:
        """Seconds of the cluster since its start."""
        return (time.time() - self._start_s) * self.speed

    def wall_s(self, at_s: float) -> float:
        """Turn seconds of the cluster into seconds since 1970."""
        return self._start_s + at_s / self.speed


@dataclass
class Job:
    """An array, or a job of one task."""

    id: int
    name: str
    comment: str
    submitted_s: float
    batch_uri: str
    is_array: bool
    at_once: int
    tasks: list[Task]
    waiting: deque[Task] = field(default_factory=deque)
    running: int = 0


@dataclass(slots=True)
class Task:
    """One task: which elements it runs, and what became of it."""

    job: Job
    place: int
    elements: tuple[int, ...]
    kind: Kind
    runs_s: float
    lag_s: float
    begun_s: float | None = None
    ended_s: float | None = None
    node: str = ""
    shown: tuple[str, str] = ("", "")
    """Its state, and its row in the queue, when it was last shown."""

    @property
    def state(self) -> str:
        """In Slurm's words, at this moment."""
        if self.ended_s is not None:
            return self.kind.state
        return "PENDING" if self.begun_s is None else "RUNNING"


class ScriptedCluster:
    """Acts a cluster.

    Attributes
    ----------
    jobs : dict
        By their ids.
    begun : Counter
        (submission key, element index) → how many tasks have begun it.
    """

    def __init__(self, script: Script, clock: ScaledClock) -> None:
        self.script = script
        self.clock = clock
        self.jobs: dict[int, Job] = {}
        self.begun: Counter[tuple[str, int]] = Counter()
        self.published: dict[tuple[str, int], tuple[float, bool]] = {}  # wall time, has a result
        self._random = random.Random(script.seed)
        self._next_id = 1
        self._waiting: dict[int, Job] = {}
        self._running: list[tuple[float, int, int]] = []  # end, job, place
        self._free = script.slots
        self._time_s = 0.0
        self._last_start_s = 0.0

    def submit(self, name: str, comment: str, batch_uri: str, tasks: list[tuple[int, ...]],
               *, at_once: int | None = None, is_array: bool = True) -> int:  # fmt: skip
        """Take a job and return its id."""
        now_s = self.advance()
        job = Job(self._next_id, name, comment, now_s, batch_uri, is_array,
                  at_once or len(tasks), [])  # fmt: skip
        self._next_id += 1
        job.tasks = [
            Task(
                job, place, elements, self._draw_kind(),
                self._random.uniform(*self.script.runs_s),
                self._random.uniform(0, self.script.accounting_lag_s),
            )
            for place, elements in enumerate(tasks)
        ]  # fmt: skip
        job.waiting = deque(job.tasks)
        self.jobs[job.id] = job
        self._waiting[job.id] = job
        return job.id

    def cancel(self, name: str) -> None:
        """End all jobs of a name."""
        now_s = self.advance()
        for job in self.jobs.values():
            if job.name != name:
                continue
            job.waiting.clear()
            self._waiting.pop(job.id, None)
            for task in job.tasks:
                if task.ended_s is None:
                    task.kind = KINDS["cancelled"]
                    if task.begun_s is None:
                        task.ended_s = now_s
                    else:
                        self._end(task, now_s)

    def alive(self) -> int:
        """Count the tasks that wait or run."""
        waiting = sum(len(job.waiting) for job in self._waiting.values())
        return waiting + self.script.slots - self._free

    def advance(self) -> float:
        """Let happen what has happened by now; return the cluster's time.

        Where that takes long, the rest is left to the next time: an answer must not wait for it.
        """
        now_s = self.clock.now_s()
        patience_s = time.monotonic() + MOST_S
        while time.monotonic() < patience_s:
            begin_s = self._next_start_s()
            end_s = self._running[0][0] if self._running else float("inf")
            if min(begin_s, end_s) > now_s:
                self._time_s = now_s
                return now_s
            if begin_s <= end_s:
                self._time_s = self._last_start_s = begin_s
                self._start(begin_s)
            else:
                self._time_s = end_s
                _, job_id, place = heapq.heappop(self._running)
                task = self.jobs[job_id].tasks[place]
                if task.ended_s is None:
                    self._end(task, end_s)
        return now_s

    def _next_start_s(self) -> float:
        if not self._free or self._startable() is None:
            return float("inf")
        return max(self._time_s, self._last_start_s + 1 / self.script.starts_per_s)

    def _startable(self) -> Job | None:
        return next((job for job in self._waiting.values() if job.running < job.at_once), None)

    def _start(self, at_s: float) -> None:
        job = self._startable()
        assert job is not None
        task = job.waiting.popleft()
        if not job.waiting:
            del self._waiting[job.id]
        task.begun_s = at_s
        task.node = f"node{self._free % 40:02}"
        job.running += 1
        self._free -= 1
        self.begun.update((job.name, index) for index in task.elements)
        heapq.heappush(self._running, (at_s + task.runs_s, job.id, task.place))

    def _end(self, task: Task, at_s: float) -> None:
        task.ended_s = at_s
        task.job.running -= 1
        self._free += 1
        for index in task.elements:
            left = self._leave_files(task, index)
            self.published[task.job.name, index] = (self.clock.wall_s(at_s), left)

    def _draw_kind(self) -> Kind:
        drawn = self._random.random()
        for name, share in self.script.shares.items():
            drawn -= share
            if drawn < 0:
                return KINDS[name]
        return KINDS["succeeded"]

    def _leave_files(self, task: Task, index: int) -> bool:
        """Leave log and result as a runner would; tell whether there is a result."""
        assert task.begun_s is not None
        batch, _ = _read_batch(task.job.batch_uri)
        order = _read_order(Path(batch.fence_uri(index)))
        order = order.get(str(index), {}) if batch.layout else order
        if order.get("submission") != task.job.name:
            task.kind = KINDS["superseded"]
            return False
        attempt = order["attempt"]
        element = batch.elements[index]
        said = f"INFO {element.name}: {task.kind.state}\n"
        _write(Path(batch.log_uri(index, attempt)), said)
        if task.kind.outcome is None:
            return False
        begun_at = datetime.fromtimestamp(self.clock.wall_s(task.begun_s), UTC)
        result = _describe(task, begun_at) | {
            "submission": task.job.name,
            "index": index,
            "attempt": attempt,
        }
        if task.kind.outcome == "succeeded":
            result["facts"] = {"galaxies": 1000 + index}
            result["artifacts"] = [
                {"name": n, "uri": uri, "sha256": "ab" * 32, "bytes": 1, "media_type": "text/plain"}
                for n, uri in element.outputs.items()
            ]
        _write(Path(batch.result_uri(index, attempt)), json.dumps(result))
        return True


def _describe(task: Task, begun_at: datetime) -> dict[str, Any]:
    """Say how a task ended, in the words of a runner's result."""
    stopped = task.kind.outcome == "terminated"
    done = task.kind.outcome == "succeeded"
    return {
        "outcome": task.kind.outcome,
        "exit_code": None if stopped else task.kind.status >> 8,
        "signal": 15 if stopped else None,
        "started_at": begun_at.isoformat(),
        "seconds": round(task.runs_s, 3),
        "max_rss_mib": 512.0,
        "host": task.node,
        "pid": 4711,
        "error_class": None if done else "ScriptedFailure",
        "message": None if done else f"{task.kind.outcome}, as the script says",
    }


@lru_cache(maxsize=512)
def _read_batch(uri: str) -> tuple[Batch, Path]:
    return read_batch_file(uri), Path(uri).parent


def _read_order(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
