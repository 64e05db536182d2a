"""Trying a cluster and its pools before they are trusted: what is asked, and in which order."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from muster.backends.slurm.backend import SlurmBackend, open_transport
from muster.backends.slurm.client import ANSWER_TIMEOUT_S, CommandClient
from muster.backends.slurm.limits import parse_config_time
from muster.backends.slurm.refusal import classify_refusal, refusal_line
from muster.backends.slurm.render import render_options
from muster.doctor import slurm_findings
from muster.doctor.asked import Asked
from muster.doctor.check import Check, bad
from muster.doctor.probe import (
    ahead_s,
    check_clocks,
    check_gpus,
    check_software,
    make_probe,
    read_report,
)
from muster.doctor.slurm_inventory import (
    NODE_ARGUMENTS,
    PARTITION_ARGUMENTS,
    parse_nodes,
    parse_partitions,
    parse_trial,
)
from muster.doctor.slurm_probe_job import ProbeJob
from muster.errors import MusterError, Transient
from muster.model.outcome import Outcome
from muster.model.resources import Resources
from muster.model.wave import Wave
from muster.store import clusters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from muster.backends.remote.transport import Answer
    from muster.backends.slurm.limits import Limits
    from muster.doctor.slurm_inventory import Nodes, Partition, Trial
    from muster.model.batch import Batch
    from muster.model.slurm_target import Cluster
    from muster.pools import SlurmPool
    from muster.site import Site
    from muster.store.database import Database

PROBE_MEMORY_MIB = 1024
PROBE_TIME_S = 300


class ClusterExaminer:
    """Tries one cluster of a site, and all pools on it.

    Parameters
    ----------
    db : Database
        The store, at this version's schema.
    site : Site
        Whose.
    pools : dict of str to SlurmPool
        By name: all on one cluster.
    patience_s : float
        How long a job may wait to begin, in seconds.
    """

    def __init__(
        self, db: Database, site: Site, pools: dict[str, SlurmPool], patience_s: float
    ) -> None:
        self._db = db
        self._site = site
        self._pools = pools
        self._patience_s = patience_s
        first = next(iter(pools.values()))
        self._cluster = site.find_cluster(first)
        self._label = f"cluster {self._cluster.name}"
        self._transport, self._files = open_transport(first.target(site))
        self._partitions: dict[str, Partition] = {}
        self._nodes: list[Nodes] = []

    async def examine(self) -> AsyncIterator[Check]:
        """Try the cluster, then all its pools at once."""
        jobs: list[asyncio.Task[list[Check]]] = []
        try:
            try:
                for check in await self._examine_cluster():
                    yield check
            except MusterError as error:
                yield Check(self._label, False, str(error))
                for name in self._pools:
                    yield Check(f"pool {name}", False, f"not tried: see {self._label}")
                return
            jobs = [asyncio.ensure_future(self._examine_pool(n, p)) for n, p in self._pools.items()]
            for job in jobs:
                for check in await job:
                    yield check
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)  # each cancels what it submitted
            await self._transport.close()

    async def _examine_cluster(self) -> list[Check]:
        cluster = self._cluster
        await asyncio.to_thread(clusters.know_cluster, self._db, cluster.name)
        started_s = time.monotonic()
        ahead = await self._read_clocks()
        config, controller_s = await self._ask_timed("scontrol", "show", "config")
        took_s = time.monotonic() - started_s
        told_s = parse_config_time(config.stdout)
        if told_s is not None:
            ahead["the controller"] = ahead_s(told_s, *controller_s, resolution_s=1.0)
        client = CommandClient(self._transport, self._db, cluster.name)
        limits = await client.read_limits()
        self._partitions = parse_partitions(
            (await self._ask("scontrol", *PARTITION_ARGUMENTS)).stdout
        )
        self._nodes = parse_nodes((await self._ask("sinfo", *NODE_ARGUMENTS)).stdout)
        way = "here" if cluster.transport == "local" else f"by ssh to {cluster.host}"
        checks = [
            Check(
                self._label,
                True,
                f"Slurm {limits.version}, cluster {limits.cluster} with its controller on "
                f"{limits.controller}; asked {way}, answered within {took_s:.2f} s",
            ),
            check_clocks(self._label, ahead),
            await self._check_sources(limits, client),
        ]
        for account, names in self._accounts().items():
            if account is not None and limits.accounting:
                own = CommandClient(self._transport, self._db, cluster.name, account)
                limits = await own.read_limits()
            slots = {name: self._pools[name].slots for name in names}
            label = f"{self._label}, account {account}" if account else self._label
            checks += slurm_findings.check_limits(label, limits, slots)
        checks.append(
            Check(
                self._label,
                True,
                f"Muster looks at the queue every {cluster.poll_every} s (poll_every), and submits "
                f"{cluster.submissions_per_s:g} jobs a second at most (submissions_per_s)",
            )
        )
        return checks

    async def _read_clocks(self) -> dict[str, float]:
        """Read whose clock is ahead of this machine's, and by how much in seconds."""
        before_s = time.time()
        look = await asyncio.to_thread(clusters.read_look, self._db, self._cluster.name)
        ahead = {"the store": ahead_s(look.now.timestamp(), before_s, time.time())}
        if self._cluster.transport != "local":
            answer, between_s = await self._ask_timed("date", "+%s")
            ahead["the login node"] = ahead_s(float(answer.stdout), *between_s, resolution_s=1.0)
        return ahead

    async def _check_sources(self, limits: Limits, client: CommandClient) -> Check:
        sacct = log = None
        if limits.accounting:
            try:
                await client.read_accounting(name="muster-doctor", since=datetime.now(UTC))
            except Transient as error:
                sacct = str(error)
        if limits.job_completions is not None:
            path = limits.job_completions
            answer = await self._call("test", "-r", path)
            log = None if answer.exit_code == 0 else path
        return slurm_findings.check_sources(
            self._label, limits, self._cluster, sacct=sacct, log=log
        )

    def _accounts(self) -> dict[str | None, list[str]]:
        """List the accounts that are charged, and the pools of each."""
        found: dict[str | None, list[str]] = {}
        for name, pool in self._pools.items():
            found.setdefault(pool.account, []).append(name)
        return found

    async def _examine_pool(self, name: str, pool: SlurmPool) -> list[Check]:
        label = f"pool {name}"
        try:
            return await self._try_pool(name, pool)
        except MusterError as error:
            return [Check(label, False, str(error))]

    async def _try_pool(self, name: str, pool: SlurmPool) -> list[Check]:
        label, checks = f"pool {name}", []
        names = pool.partition.split(",") if pool.partition else []
        if names:
            check = slurm_findings.check_partitions(label, names, self._partitions, self._nodes)
            checks.append(check)
            if not check.good:
                return checks
        probe = self._make_probe(name, pool)
        asked = Asked.of("a small job", probe.resources, pool.caps, 1)
        trial = await self._try(probe)
        if not names and trial.partition is not None:  # where Slurm puts what names none
            names = trial.partition.split(",")
        partitions = [self._partitions[n] for n in names if n in self._partitions]
        nodes = [group for group in self._nodes if group.partition in names]
        checks += slurm_findings.check_caps(label, pool, partitions, nodes)
        if trial.refusal is not None:
            return [
                *checks,
                slurm_findings.explain_refusal(label, asked, trial.refusal, pool, nodes),
            ]
        checks += await self._try_placements(name, pool, partitions, nodes)
        return [*checks, *await self._run_probe(name, pool, probe, trial)]

    async def _try_placements(
        self,
        name: str,
        pool: SlurmPool,
        partitions: list[Partition],
        nodes: list[Nodes],
    ) -> list[Check]:
        """Ask Slurm whether it would take a job of each step that is placed here."""
        label = f"pool {name}"
        checks: list[Check] = []
        good = []
        for step, placement in self._site.placement.items():
            if placement.pool != name:
                continue
            asked = Asked.of(step, placement.resources, pool.caps, pool.pack)
            batch = make_probe(self._site, name, pool, asked.resources)
            problems = slurm_findings.check_time(label, asked, partitions)
            trial = await self._try(batch)
            if trial.refusal is not None:
                problems = [
                    slurm_findings.explain_refusal(label, asked, trial.refusal, pool, nodes)
                ]
            checks += problems
            if not problems:
                good.append(f"{step} ({asked.describe()})")
        if good:
            checks.insert(0, Check(label, True, f"Slurm would take jobs of {', '.join(good)}"))
        return checks

    def _make_probe(self, name: str, pool: SlurmPool) -> Batch:
        placements = [p for p in self._site.placement.values() if p.pool == name]
        wants_gpu = any(p.gpus for p in placements) or any(
            entry.partition(":")[0] == "gpu" for entry in (pool.gres or "").split(",")
        )
        memory_mib = min(PROBE_MEMORY_MIB, pool.max_memory or PROBE_MEMORY_MIB)
        resources = Resources(gpus=int(wants_gpu), memory_mib=memory_mib, time_limit_s=PROBE_TIME_S)
        return make_probe(self._site, name, pool, resources)

    async def _try(self, batch: Batch) -> Trial:
        """Ask what Slurm would do with a batch's job, without submitting it."""
        wave = _wave(batch)
        options = render_options(wave, slots=batch.slots)
        answer = await self._call("sbatch", "--test-only", *options, "--wrap=true")
        if answer.exit_code != 0 and classify_refusal(answer) == "unreachable":
            raise Transient(
                "sbatch was not answered",
                where=self._cluster.name,
                got=refusal_line(answer.stderr),
            )
        return parse_trial(answer)

    async def _run_probe(
        self, name: str, pool: SlurmPool, batch: Batch, trial: Trial
    ) -> list[Check]:
        """Send a job, and say what it has found where it ran."""
        label, cluster = f"pool {name}", self._cluster
        client = CommandClient(self._transport, self._db, cluster.name, pool.account)
        backend = SlurmBackend(self._db, cluster, client, self._files, self._transport)
        job = ProbeJob(backend, client, self._files, _wave(batch), _said_at(name, pool, cluster))
        submitted_s = time.time()
        end = await job.run(self._patience_s, trial.start_s)
        seen_s = time.time()
        if end.trouble is not None or end.result is None:
            return [Check(label, False, str(end.trouble))]
        if end.result.outcome != Outcome.SUCCEEDED:
            return [
                bad(
                    label,
                    "the job failed",
                    where=end.result.host,
                    got=f"{end.result.outcome}: {end.result.message}",
                    do=f"see {batch.work_uri}",
                )
            ]
        facts = await asyncio.to_thread(read_report, batch)
        node = end.node or facts["host"]
        ahead = ahead_s(facts.get("clock_s", submitted_s), submitted_s, seen_s)
        clocks = check_clocks(label, {node: ahead})
        waited = "" if end.waited_s is None else f" waited {end.waited_s:.0f} s and"
        return [
            Check(
                label,
                True,
                f"a job on {node}{waited} was back with its result {end.took_s:.0f} s after it "
                f"was submitted: Python {facts['python']} ({facts['executable']}), "
                f"Muster {facts['muster']}, {facts['free_mib_at_work']} MiB free at work",
            ),
            *([clocks] if clocks.warning else []),
            *check_software(label, facts),
            *check_gpus(label, facts, batch.resources.gpus),
        ]

    async def _call(self, *arguments: str) -> Answer:
        return await self._transport.call(
            ["env", "SLURM_TIME_FORMAT=%s", *arguments], timeout_s=ANSWER_TIMEOUT_S
        )

    async def _ask(self, *arguments: str) -> Answer:
        answer = await self._call(*arguments)
        if answer.exit_code != 0:
            raise Transient(
                f"{arguments[0]} was not answered",
                where=self._cluster.name,
                got=refusal_line(answer.stderr) or f"exit code {answer.exit_code}",
                do="see that slurmctld runs, and that this machine knows its slurm.conf",
            )
        return answer

    async def _ask_timed(self, *arguments: str) -> tuple[Answer, tuple[float, float]]:
        """Ask, and say between which moments of this machine's clock, in seconds since 1970."""
        before_s = time.time()
        answer = await self._ask(*arguments)
        return answer, (before_s, time.time())


def _wave(batch: Batch) -> Wave:
    return Wave(batch, f"{batch.id}.w1", {0: 1}, batch.resources)


def _said_at(name: str, pool: SlurmPool, cluster: Cluster) -> str:
    """Say where the site file says how jobs of a pool start."""
    own = pool.python or pool.prelude is not None or pool.container is not None
    return f"[pools] {name}" if own else f"[clusters.{cluster.name}]"
