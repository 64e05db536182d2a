"""What a cluster's own words mean for a site, in a line each: decisions, without a look at it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from muster.backends.slurm.parse import LOST_FOLDER_SIGNAL, is_stuck
from muster.config import render_time
from muster.counts import count_of
from muster.doctor.check import Check, bad, doubtful
from muster.errors import MusterError, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.backends.slurm.limits import Limits
    from muster.backends.slurm.parse import JobRow
    from muster.doctor.asked import Asked
    from muster.doctor.slurm_inventory import Nodes, Partition
    from muster.model.resources import Resources
    from muster.model.slurm_target import Cluster
    from muster.pools import SlurmPool

_SCRIPT = re.compile(r"^\S*/slurm_script: line \d+: ")
LOOKS_KEPT = 4
"""The queue should show an ended job for so many looks at least."""

_ADVICE = (
    (r"Priority|Resources|BeginTime|None", "the cluster is busy: try again with --patience 3600"),
    (r"PartitionTimeLimit", "lower 'time' of the placement, or 'max_time' of the pool"),
    (r"PartitionNodeLimit|PartitionConfig", "ask for what the partition gives, or name another"),
    (r"PartitionDown|PartitionInactive", "name another partition, or ask the administrators"),
    (r"ReqNodeNotAvail|Nodes.required|BadConstraints", "see what 'sinfo -R' says of the nodes"),
    (r"InvalidAccount|AccountNotAllowed", "correct 'account' of the pool"),
    (r"InvalidQOS|QOSNotAllowed", "correct 'qos' of the pool"),
    (r"(Assoc|QOS)\w*PerJob\w*|\w*MaxWall\w*", "ask for less, or name another 'qos'"),
    (r"Assoc|QOS|MaxJobs|MaxSubmit", "what you may have at once is in use: see 'squeue --me'"),
    (r"Reservation", "see 'scontrol show reservation'"),
    (r"JobHeld", "see what holds jobs on this cluster: 'scontrol show job' of any of yours"),
    (r"Licenses", "all licenses are in use: try again with --patience 3600"),
)


def check_limits(label: str, limits: Limits, slots: Mapping[str, int]) -> list[Check]:
    """Say what may be submitted; ``slots`` are the pools' own."""
    most = limits.max_submit_jobs
    own = "no limit on your jobs is known" if most is None else f"{count_of(most, 'job')} of yours"
    said = (
        f"arrays of {count_of(limits.max_array_size, 'task')} (MaxArraySize), "
        f"{count_of(limits.max_job_count, 'job')} in all (MaxJobCount), {own}"
    )
    wide = [name for name, count in slots.items() if most is not None and count > most]
    if wide:
        said += f": the slots of pool {', '.join(wide)} cannot all be used"
    return [Check(label, True, said, warning=bool(wide))]


def check_sources(
    label: str, limits: Limits, cluster: Cluster, *, sacct: str | None, log: str | None
) -> Check:
    """Say by what it is known how jobs end.

    Parameters
    ----------
    sacct, log : str or None
        Why the accounting, and the log of ended jobs, cannot be read; None where they can.
    """
    kept_s = limits.min_job_age_s
    queue = "the queue" + (f" (for {kept_s} s, MinJobAge)" if kept_s else " (for good)")
    sources = [queue]
    if limits.accounting and sacct is None:
        sources.append("the accounting")
    if limits.job_completions is not None and log is None:
        sources.append("the log of ended jobs")
    said = f"how jobs end is told by {', '.join(sources)} and result files"
    if limits.accounting and sacct is not None:
        return bad(
            label, "the accounting does not answer", where="sacct", got=sacct,
            do="ask the administrators whether slurmdbd runs",
        )  # fmt: skip
    if len(sources) > 1 or not kept_s:
        return Check(label, True, said)
    unread = f"; the log of ended jobs cannot be read here ({log})" if log is not None else ""
    lost = (
        "what ends without a result (killed for its memory, lost with its node) and is forgotten "
        "before it is looked at, is recorded as lost, without the reason"
    )
    wanted_s = max(600, 20 * cluster.poll_every)
    ask = (
        "ask the administrators for accounting (slurmdbd), or for JobCompType=jobcomp/filetxt with "
        f"a file that can be read here, or for MinJobAge of {wanted_s} or more"
    )
    if kept_s < LOOKS_KEPT * cluster.poll_every:
        return bad(
            label, "the queue forgets jobs too soon, and nothing else tells how they end: " + lost,
            where="scontrol show config", got=f"MinJobAge = {kept_s} s{unread}",
            expected=f"{LOOKS_KEPT} looks at the queue, one every {cluster.poll_every} s",
            do=ask,
        )  # fmt: skip
    return doubtful(label, f"{said}{unread}: while Muster is stopped, {lost}", do=ask)


def check_partitions(
    label: str,
    names: Sequence[str],
    partitions: Mapping[str, Partition],
    nodes: Sequence[Nodes],
) -> Check:
    """Say whether jobs of these partitions can start, and on what."""
    for name in names:
        if name not in partitions:
            return bad(
                label, "no such partition", got=name,
                expected=", ".join(sorted(partitions)) or "none that you may see",
                do="correct 'partition' of the pool",
            )  # fmt: skip
    where = f"partition {','.join(names)}"
    states = {name: partitions[name].state for name in names}
    if "UP" not in states.values():
        return bad(
            label, "the partition starts no jobs", where=where, got=", ".join(states.values()),
            expected="UP", do="name another one, or ask the administrators",
        )  # fmt: skip
    there = [group for group in nodes if group.partition in names]
    ready = [group for group in there if group.takes_jobs]
    total = sum(group.count for group in there)
    if not ready:
        return bad(
            label, "no node takes jobs", where=where,
            got=", ".join(_say_state(group) for group in there) or "a partition without nodes",
            do="see 'sinfo -R', or ask the administrators",
        )  # fmt: skip
    times_s = [partitions[name].max_time_s for name in names]
    longest = max((t for t in times_s if t is not None), default=0)
    limit = "no limit of time" if None in times_s else f"{render_time(longest)} at most"
    count = sum(group.count for group in ready)
    said = f"{where} is UP, {count} of {count_of(total, 'node')} take jobs"
    shapes = "; ".join(dict.fromkeys(_say_shape(group) for group in ready))
    return Check(label, True, f"{said}: {shapes}; {limit}")


def check_caps(
    label: str, pool: SlurmPool, partitions: Sequence[Partition], nodes: Sequence[Nodes]
) -> list[Check]:
    """Say where retries may grow above what the partitions give."""
    checks = []
    most_s = _most([partition.max_time_s for partition in partitions])
    if most_s is not None and pool.max_time is not None and pool.max_time > most_s:
        checks.append(
            doubtful(
                label,
                f"max_time is {render_time(pool.max_time)}, the partition gives "
                f"{render_time(most_s)}: a retry that grows above it would never start",
                do=f'max_time = "{render_time(most_s)}"',
            )
        )
    most_mib = max((group.memory_mib for group in nodes), default=None)
    if most_mib is not None and pool.max_memory is not None and pool.max_memory > most_mib:
        checks.append(
            doubtful(
                label,
                f"max_memory is {pool.max_memory} MiB, a node has {most_mib} MiB: a retry that "
                "grows above it would be refused",
                do=f'max_memory = "{most_mib}MiB"',
            )
        )
    return checks


def check_time(label: str, asked: Asked, partitions: Sequence[Partition]) -> list[Check]:
    """Find what would wait for ever, since Slurm takes such a job and never starts it."""
    most_s = _most([partition.max_time_s for partition in partitions])
    if asked.time_s is None or most_s is None or asked.time_s <= most_s:
        return []
    names = ",".join(partition.name for partition in partitions)
    return [
        bad(
            label,
            f"{asked.step} would wait for ever",
            where=f"partition {names}",
            got=f"asks for {render_time(asked.time_s)}",
            expected=f"{render_time(most_s)} at most",
            do="lower 'time' of the placement, or 'max_time' of the pool",
        )
    ]


def explain_refusal(
    label: str, asked: Asked, refusal: str, pool: SlurmPool, nodes: Sequence[Nodes]
) -> Check:
    """Say why Slurm would refuse a job, by what the nodes have."""
    expected, do = _find_misfit(asked.resources, pool, nodes)
    words = ("account", "qos", "constraint", "reservation", "gres")
    said = [f"{word} = {getattr(pool, word)}" for word in words if getattr(pool, word)]
    return bad(
        label,
        f"Slurm would refuse {asked.step}",
        where=f"partition {pool.partition}" if pool.partition else None,
        got=f"{refusal} (asked for {', '.join([asked.describe(), *said])})",
        expected=expected,
        do=do,
    )


def _find_misfit(
    wants: Resources, pool: SlurmPool, nodes: Sequence[Nodes]
) -> tuple[str | None, str]:
    """Say what nodes would allow, and what to do; None where they are not the reason."""
    if not nodes:
        return None, "correct what the pool says to Slurm"
    kind = _gpu_type(pool.gres)
    gpus = max(group.gpus(kind) for group in nodes)
    if wants.gpus and not gpus:
        known = sorted({_say_gres(group) for group in nodes} - {""})
        return (
            f"a gres that the nodes have: {'; '.join(known) or 'they have none'}",
            "correct 'gres' of the pool, or name a partition that has such GPUs",
        )
    limits = []
    cpus = max(group.cpus for group in nodes)
    memory_mib = max(group.memory_mib for group in nodes)
    spans = pool.nodes not in (None, 1) or pool.ntasks not in (None, 1)
    if wants.cpus > cpus and not spans:
        limits.append(count_of(cpus, "CPU"))
    if wants.gpus > gpus:
        limits.append(count_of(gpus, "GPU"))
    if wants.memory_mib is not None and wants.memory_mib > memory_mib:
        limits.append(f"{memory_mib} MiB of memory")
    if not limits:
        return None, "correct what the pool says to Slurm"
    return (
        f"at most {', '.join(limits)}, which is what a node has",
        "ask for less where the step is placed, or place it on another pool",
    )


def explain_wait(row: JobRow, waited_s: float, start: str | None) -> MusterError:
    """Say why a job waits, and what there is to do."""
    reason = row.reason or "None"
    advice = next((do for words, do in _ADVICE if re.match(words, reason)), None)
    never = is_stuck(row)
    expects = f" (Slurm expects to start it {start})" if start else ""
    return MusterError(
        f"the job {'would never' if never else 'did not'} start, and was cancelled",
        got=reason if never else f"{reason}, after {waited_s:.0f} s{expects}",
        do=advice or f"see what 'man squeue' says of {reason}",
    )


def explain_end(row: JobRow, output: str, folder: str, said_at: str) -> MusterError:
    """Say why a job has left no result, by its end and the last of what it printed.

    Parameters
    ----------
    folder : str
        That it ran in.
    said_at : str
        Where the site says how a job starts.
    """
    node = row.node or "the node"
    lines = [one_line(line) for line in output.splitlines() if line.strip()]
    last = _SCRIPT.sub("", lines[-1])[-300:] if lines else "nothing printed"
    lost = next((line for line in lines if line.startswith("muster: ")), None)
    if row.signal == LOST_FOLDER_SIGNAL or (lost and " the folder of this submission" in lost):
        return MusterError(
            f"{node} does not see the work directory as this machine does",
            where=folder,
            got=lost or f"{row.state}: the job could not open a file there",
            expected="a folder that both can write to, at the same path",
            do="mount it there, or set 'work' of the site to a folder that both see",
        )
    ended = row.state if row.signal is None else f"{row.state}, signal {row.signal}"
    if row.exit_code:
        ended = f"{ended}, exit code {row.exit_code}"
    if row.state == "COMPLETED":
        return MusterError(
            "the job ended well, and its result is not seen here", where=folder,
            got=f"no result on this machine; it ran on {node}: {last}",
            do="see that the work directory is the same one there, and how far its caches lag "
            "(result_grace)",
        )  # fmt: skip
    if row.state == "FAILED":
        return MusterError(
            f"the environment does not start on {node}", where=said_at,
            got=f"{last} ({ended})", expected="python with Muster, behind the prelude",
            do=f"correct 'python', 'prelude' or 'container'; all that it printed: {folder}/job.out",
        )  # fmt: skip
    return MusterError(
        "the job ended without a result", where=node, got=f"{ended}; {last}",
        do=f"see {folder}/job.out",
    )  # fmt: skip


def _most(limits: Sequence[int | None]) -> int | None:
    """Return the greatest limit; None where one is none, or there is none."""
    known = [limit for limit in limits if limit is not None]
    return max(known) if known and len(known) == len(limits) else None


def _gpu_type(gres: str | None) -> str:
    for entry in (gres or "").split(","):
        name, _, kind = entry.partition(":")
        if name == "gpu":
            return kind
    return ""


def _say_gres(group: Nodes) -> str:
    return ",".join(
        f"{name}:{kind}:{count}" if kind else f"{name}:{count}"
        for (name, kind), count in group.gres.items()
    )


def _say_shape(group: Nodes) -> str:
    gres = _say_gres(group)
    return f"{count_of(group.cpus, 'CPU')}, {group.memory_mib} MiB" + (f", {gres}" if gres else "")


def _say_state(group: Nodes) -> str:
    return f"{group.count} {group.state}" + ("" if group.answers else " (no answer)")
