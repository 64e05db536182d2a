"""What the tests of the Slurm backend share: batches whose every act is written into a ledger."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from muster.backends.remote.local_commands import LocalCommands
from muster.backends.remote.transport import SharedFiles
from muster.backends.slurm.backend import SlurmBackend
from muster.backends.slurm.client import CommandClient
from muster.backends.slurm.clients import SLURM_CLIENTS
from muster.jobs.supervision.retry import BackOff
from muster.jobs.supervision.supervisor import Supervisor
from muster.laptop.airflow_api import wait_until
from muster.model.slurm_target import Cluster, SlurmTarget
from muster.store import batches, claims, clusters, history
from tests.batches import STEPS_FOLDER, make_batch, store_batch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from minislurm.cluster import SlurmCluster
    from muster.jobs.supervision.batch_end import BatchEnd
    from muster.model.batch import Batch
    from muster.store.database import Database
    from muster.store.history import TriedAttempt

QUICK = BackOff(first_s=0.01, longest_s=0.02)
PATIENCE_S = 550.0
QUEUE_PATIENCE_S = 90.0

# Writes what a runner writes, without its start, for elements that do well; else it is the runner.
QUICK_RUNNER = """\
import datetime, json, os, sys
work, key = os.environ["MUSTER_WORK"], os.environ["MUSTER_JOB"]
node = os.environ["SLURMD_NODENAME"]
with open(sys.argv[4]) as file:
    elements = json.load(file)["elements"]
for index in [word for before, word in zip(sys.argv, sys.argv[1:]) if before == "--index"]:
    with open(f"{work}/fences.json") as file:
        order = json.load(file)[index]
    if order["submission"] != key:
        continue
    element, attempt = elements[int(index)], order["attempt"]
    inputs, out = element["inputs"], element["outputs"]["out"]
    if inputs["acts"][min(attempt, len(inputs["acts"])) - 1] != "fine":
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    with open(inputs["ledger"], "a") as file:
        for word in ("begin", "done"):
            file.write(f"{word} {inputs['name']} {attempt} {node}\\n")
    result = {
        "submission": key, "index": int(index), "attempt": attempt,
        "outcome": "succeeded", "exit_code": 0, "seconds": 0.01, "max_rss_mib": 1.0,
        "started_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "host": node, "pid": os.getpid(),
    }
    told = f"{work}/results/{index}.{attempt}.json"
    for path, text in ((out, inputs["name"]), (told, json.dumps(result))):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".part", "w") as file:
            file.write(text)
        os.rename(path + ".part", path)
"""


@dataclass
class Campaign:
    """Batches on one real cluster, and what became of them.

    Attributes
    ----------
    db, slurm, folder
        The store, the cluster, and where all files lie.
    settings : mapping
        Of the cluster, as the site file would say them.
    """

    db: Database
    slurm: SlurmCluster
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ledger(self) -> Path:
        """Where every attempt leaves a line when it begins, and one when it is done."""
        return self.folder / "ledger"

    @property
    def cluster(self) -> Cluster:
        """How the cluster is reached."""
        said: dict[str, Any] = {
            "poll_every": "00:00:01",
            "result_grace": "00:00:01",
            "submissions_per_s": 100,
            "environment": {
                "PYTHONPATH": os.pathsep.join([str(STEPS_FOLDER)]),
                "LEDGER": str(self.ledger),
            },
        }
        return Cluster.model_validate({**said, **self.settings})

    def use_quick_runner(self) -> None:
        """Run what does well with a stand-in for the runner, which takes no time to start."""
        script = self.folder / "runner.py"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(QUICK_RUNNER)
        program = self.folder / "runner"
        program.write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S {shlex.quote(str(script))} "$@"\n'
        )
        program.chmod(0o755)
        self.settings = {**self.settings, "python": str(program)}

    def backend(
        self, client: type[CommandClient] = CommandClient, cluster: Cluster | None = None
    ) -> SlurmBackend:
        """Open the backend as a fresh process would."""
        transport = LocalCommands(SLURM_CLIENTS, self.slurm.environment)
        cluster = cluster or self.cluster
        verbs = client(transport, self.db, cluster.name)
        backend = SlurmBackend(self.db, cluster, verbs, SharedFiles(), transport)
        backend.look_again_s = 0.3
        return backend

    def batch(
        self,
        acts: Sequence[Sequence[str]],
        *,
        place: Mapping[str, Any] | None = None,
        seconds: float = 0.0,
        name: str = "b",
        **options: Any,
    ) -> Batch:
        """Store a batch of elements that do what is said: an act for each of their attempts."""
        inputs = [
            {
                "name": f"{name}-e{i}",
                "acts": list(a),
                "ledger": str(self.ledger),
                "seconds": seconds,
            }
            for i, a in enumerate(acts)
        ]
        options.setdefault("step", "test.perform")
        options.setdefault("slots", 100)
        return self.store(make_batch(self.folder, inputs, name=name, **options), place)

    def store(self, batch: Batch, place: Mapping[str, Any] | None = None) -> Batch:
        """Put a batch on the cluster and into the store."""
        slurm = SlurmTarget(cluster=self.cluster, **{"partition": "genoa", **(place or {})})
        placed = batch.model_copy(update={"target": slurm})
        return store_batch(self.db, placed)

    def run(
        self,
        batch: Batch,
        meanwhile: Callable[[], Awaitable[None]] | None = None,
        **options: Any,
    ) -> BatchEnd:
        """Supervise a batch to its end, while something happens to the cluster."""

        async def scenario() -> BatchEnd:
            async with asyncio.timeout(PATIENCE_S):
                backend = options.pop("backend", None) or self.backend()
                claim = await asyncio.to_thread(claims.take_claim, self.db, batch.id)
                supervisor = Supervisor(self.db, backend, claim, back_off=QUICK, **options)
                try:
                    if meanwhile is None:
                        return await supervisor.run()
                    async with asyncio.TaskGroup() as tasks:
                        task = tasks.create_task(supervisor.run())
                        tasks.create_task(_begin(meanwhile))
                    return task.result()
                finally:
                    await backend.close()

        return asyncio.run(scenario())

    # -- what became of it -------------------------------------------------------------------

    def lines(self) -> list[str]:
        """Return what the ledger says."""
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def count(self, word: str) -> int:
        """Count the lines of the ledger that begin with a word."""
        return sum(line.startswith(f"{word} ") for line in self.lines())

    async def until_submitted(self) -> None:
        """Return when the cluster has taken something, and the store knows it."""

        def is_submitted() -> bool:
            with self.db.transaction() as cursor:
                cursor.execute("SELECT count(*) FROM submission WHERE state = 'submitted'")
                return bool(cursor.fetchone()[0])

        await self.until(is_submitted)

    async def until_degraded(self, batch: Batch) -> str:
        """Return what a batch waits for, as soon as it does."""
        await self.until(lambda: self.degraded(batch))
        return self.degraded(batch) or ""

    async def until(self, condition: Callable[[], object], patience_s: float = 240.0) -> None:
        """Return when something is so."""
        deadline_s = time.monotonic() + patience_s
        while not await asyncio.to_thread(condition):
            assert time.monotonic() < deadline_s, "it never came to that"
            await asyncio.sleep(0.1)

    def outcomes(self, batch: Batch) -> list[list[str]]:
        """Return the outcomes of each element's attempts."""
        return [
            [str(attempt.outcome) for attempt in element.attempts]
            for element in batches.read_elements(self.db, batch.id)
        ]

    def degraded(self, batch: Batch) -> str | None:
        """Return what a batch waits for."""
        with self.db.transaction() as cursor:
            cursor.execute(
                "SELECT degraded, degraded_since IS NULL FROM batch WHERE id = %s", (batch.id,)
            )
            degraded, nothing_since = cursor.fetchone()
        assert nothing_since == (degraded is None)
        return degraded

    def calls(self) -> dict[str, int]:
        """Return how often each command was called."""
        return {c.command: c.calls for c in clusters.read_calls(self.db, self.cluster.name)}

    def submissions(self) -> int:
        """Count the submissions in the store."""
        with self.db.transaction() as cursor:
            cursor.execute("SELECT count(*) FROM submission")
            return cursor.fetchone()[0]

    def check_once(self, batch: Batch, *, interrupted: bool = False, ghosts: bool = False) -> None:
        """Make sure that no element was lost, and that none ran to success twice.

        With ``interrupted``, an attempt that was cut off may have come to its own end, as long as
        nothing of it was published.
        """
        done, begun = (
            Counter(line.split()[1] for line in self.lines() if line.startswith(f"{word} "))
            for word in ("done", "begin")
        )
        names = [str(e.inputs["name"]) for e in batch.elements]
        elements = batches.read_elements(self.db, batch.id)
        for name, element in zip(names, elements, strict=True):
            assert all(a.outcome is not None for a in element.attempts), name
            succeeded = [a for a in element.attempts if a.outcome == "succeeded"]
            assert len(succeeded) == (element.state == "succeeded"), name
            most = begun[name] if interrupted else len(succeeded)
            assert len(succeeded) <= done[name] <= most, (name, done[name], element)
            published = Path(batch.elements[element.index].outputs["out"])
            if batch.step == "test.perform":
                assert published.exists() == bool(succeeded), name
        assert self.degraded(batch) is None
        if ghosts:  # Slurm shows as running what it has forgotten the end of
            assert not self.pids_of(), "nothing may run"
        else:  # a controller that was away is told of an end by the node, in the node's own time
            empty = wait_until(lambda: not self.open_jobs(), QUEUE_PATIENCE_S)
            assert empty, f"nothing may be left in the queue: {self.open_jobs()}"

    def check_record(self, batch: Batch) -> list[TriedAttempt]:
        """Make sure that the record of every attempt that ran is complete."""
        tried = history.read_tried(self.db, batch.run)
        for attempt in tried:
            assert attempt.outcome is not None
            if attempt.outcome == "not_begun":
                continue
            assert attempt.state == "ended"
            assert None not in (attempt.submitted_at, attempt.started_at, attempt.ended_at), attempt
            assert attempt.host in {"cpu1", "cpu2", "gpu1", "gpu2"}, attempt
            assert attempt.seconds is not None, attempt
            assert attempt.waited_s is not None, attempt
            assert attempt.outcome == "succeeded" or attempt.message, attempt
            if attempt.message is None or "no result" not in attempt.message:
                assert attempt.max_rss_mib is not None, attempt
                assert (attempt.exit_code, attempt.signal) != (None, None) or attempt.outcome in {
                    "out_of_memory", "timed_out", "cancelled", "transient",
                }, attempt  # fmt: skip
        return tried

    def open_jobs(self) -> list[str]:
        """List what lives in the queue."""
        answer = self.slurm.run("squeue", "-h", "-r", "-o", "%i %T %j %r")
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.splitlines()

    def pids_of(self, node: str | None = None) -> list[int]:
        """Return the processes of jobs of this campaign, on a node."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with contextlib.suppress(OSError):
                    variables = dict(
                        entry.partition("=")[::2]
                        for entry in (folder / "environ")
                        .read_bytes()
                        .decode("utf-8", "replace")
                        .split("\0")
                    )
                    if variables.get("SLURM_CONF") != self.slurm.environment["SLURM_CONF"]:
                        continue
                    if "SLURMD_NODENAME" in variables and node in (
                        None,
                        variables["SLURMD_NODENAME"],
                    ):
                        found.append(int(folder.name))
        return [pid for pid in found if pid != os.getpid()]


def count_jobs(key: str) -> int:
    """Count the runners of a submission that live, wherever they were started."""
    count = 0
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            count += (
                environment.get("MUSTER_JOB") == key
                and "MUSTER_ROLE" not in environment
                and process.status() != psutil.STATUS_ZOMBIE
                and "muster" in process.cmdline()
            )
        except psutil.Error:
            continue
    return count


def kill_node(campaign: Campaign, node: str) -> None:
    """Let a node die with all that runs on it."""
    campaign.slurm.kill(f"slurmd.{node}")
    jobs, steps = [], {}
    for pid in campaign.pids_of(node):
        with contextlib.suppress(psutil.Error):
            job = psutil.Process(pid)
            jobs.append(job)
            steps.update({p.pid: p for p in job.parents() if p.name() == "slurmstepd"})
    for process in [*steps.values(), *jobs]:  # first who would tell the controller
        with contextlib.suppress(psutil.Error):
            process.kill()


def start_bare(
    make: Callable[..., SlurmCluster],
    home: Path,
    settings: Mapping[str, str] | None = None,
    **options: object,
) -> SlurmCluster:
    """Start a cluster whose jobs log in without this user's own start-up files.

    Those take time, twice a job, and locks (pyenv does) that a killed job leaves for all others.
    """
    prolog = home / "prolog"
    home.mkdir(parents=True, exist_ok=True)
    prolog.write_text(f"#!/bin/sh\necho 'export HOME={home}'\n")
    prolog.chmod(0o755)
    bare = {"TaskProlog": str(prolog), "GetEnvTimeout": "0", **(settings or {})}
    slurm = make(start=False, settings=bare, **options)
    known = slurm.folder / "state" / "env_cache"
    known.mkdir(parents=True)
    (known / getpass.getuser()).write_text(f"HOME={home}\nPATH=/usr/bin:/bin\nLANG=C.UTF-8\n")
    slurm.start()
    return slurm


def start_supervisor(
    campaign: Campaign, batch: Batch, how: str = "well"
) -> subprocess.Popen[bytes]:
    """Supervise a batch in a process of its own; ``how`` as in other_process.py."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "tests.integration.slurm.other_process", campaign.db.url,
            str(campaign.slurm.folder), str(campaign.folder), batch.id, how,
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


async def _begin(meanwhile: Callable[[], Awaitable[None]]) -> None:
    await meanwhile()


def wave_keys(db: Database) -> list[str]:
    """List the keys of all submissions, oldest first."""
    with db.transaction() as cursor:
        cursor.execute("SELECT key FROM submission ORDER BY id")
        return [row[0] for row in cursor.fetchall()]


__all__ = [
    "PATIENCE_S",
    "QUICK",
    "Campaign",
    "count_jobs",
    "kill_node",
    "start_bare",
    "start_supervisor",
    "wave_keys",
]
