"""A campaign of 40,000 elements on Slurm: what planning, submitting, looking and recording cost.

The cluster is scripted, with the answers and latencies of a real one.  Its clock may run faster
than the wall's (``--speed``): all that waits is scaled then, and what Muster computes is not, so
that looks are farther apart than in earnest.  Calls are counted in seconds of the cluster, lags
from an end to its record in seconds on the wall.

    python benchmarks/slurm_scale.py                              all of it
    python benchmarks/slurm_scale.py --elements 4000 --slots 400  a quick look
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import resource
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
from _record_endings import SPARE, measure_records
from _scripted_server import scripted_server
from _side_by_side import describe_run

from muster.backends.slurm.client import CommandClient
from muster.backends.slurm.clients import SLURM_CLIENTS
from muster.jobs.planning.plan_run import freeze_plan
from muster.laptop.postgres import ensure_database, start_postgres, stop_postgres
from muster.store import clusters
from muster.store.database import Database
from muster.store.schema import migrate
from tests.scripted_campaign import (
    RUN,
    Pace,
    ScriptedBackends,
    make_site,
    plan_elements,
    supervise,
    write_plan,
)
from tests.scripted_cluster import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _scripted_server import ClusterSocket

SHARES = {
    "transient": 0.01, "software_error": 0.005, "out_of_memory": 0.003, "timed_out": 0.003,
    "node_failed": 0.002,
}  # fmt: skip


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def now_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


class ServerTime:
    """CPU seconds of Postgres: of its processes that run, and of those that have ended."""

    def __init__(self, pid: int) -> None:
        self._server = psutil.Process(pid)

    def cpu_s(self) -> float:
        """Seconds since the server's start."""
        own = self._server.cpu_times()
        found = own.children_user + own.children_system
        for child in self._server.children():
            with contextlib.suppress(psutil.Error):
                times = child.cpu_times()
                found += times.user + times.system
        return found


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else 0.0


# -- supervising -------------------------------------------------------------------------------


async def watch_loop(delays: list[float], sizes: list[float], every_s: float = 0.02) -> None:
    """Note how late the event loop is, and how much memory the process has."""
    while True:
        started_s = time.perf_counter()
        await asyncio.sleep(every_s)
        delays.append(max(0.0, time.perf_counter() - started_s - every_s))
        if len(delays) % 25 == 0:
            sizes.append(now_mib())


async def supervise_all(
    db: Database, ids: Sequence[str], socket: ClusterSocket, pace: Pace
) -> dict[str, Any]:
    delays: list[float] = []
    sizes: list[float] = []
    watching = asyncio.create_task(watch_loop(delays, sizes))
    backends = ScriptedBackends(db, socket)
    cpu_s, wall_s, before_mib = time.process_time(), time.monotonic(), now_mib()
    ends = await supervise(db, ids, backends, pace)
    found = {
        "wall_s": round(time.monotonic() - wall_s, 1),
        "cpu_s": round(time.process_time() - cpu_s, 1),
    }
    watching.cancel()
    await backends.close()
    half = len(sizes) // 2
    return {
        **found,
        "settled": all(end.settled for end in ends),
        "loop_delay_s": {
            "median": round(statistics.median(delays), 4),
            "p99": quantile(delays, 0.99),
            "max": round(max(delays), 2),
        },
        "rss_mib": {
            "before": round(before_mib),
            "peak": round(peak_mib()),
            "highest_first_half": round(max(sizes[:half])),
            "highest_second_half": round(max(sizes[half:])),
        },
    }


def read_lags(
    db: Database, ended: Sequence[Sequence[Any]], looks: Sequence[float]
) -> dict[str, Any]:
    """Tell how long after the end of its job each attempt was recorded, in seconds on the wall.

    Parameters
    ----------
    ended : sequence
        Key, element index, when it ended, and whether a result was left.
    looks : sequence of float
        When the queue was looked at, in seconds since 1970.
    """
    ends = {(key, index): (at_s, left) for key, index, at_s, left in ended}
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT s.key, e.index, extract(epoch FROM a.ended_at)::float8 FROM attempt a"
            " JOIN submission s ON s.id = a.submission_id JOIN element e ON e.id = a.element_id"
            " WHERE a.state = 'ended' AND s.reference <> %s",
            (SPARE,),
        )
        rows = cursor.fetchall()
    lags: dict[str, list[float]] = {"from_end": [], "from_look": [], "without_result": []}
    for key, index, at_s in rows:
        end_s, left = ends[key, index]
        if left:
            lags["from_end"].append(at_s - end_s)
            look = bisect_left(looks, end_s)
            lags["from_look"].append(at_s - looks[look] if look < len(looks) else 0.0)
        else:
            lags["without_result"].append(at_s - end_s)
    gaps = [b - a for a, b in pairwise(looks)]
    return {
        "attempts": len(rows),
        "between_looks": {name: quantile(gaps, share) for name, share in QUANTILES.items()},
        **{
            what: {name: quantile(found, share) for name, share in QUANTILES.items()}
            for what, found in lags.items()
        },
    }


"""Reference of the submissions that only the comparison of records makes."""
QUANTILES = {"median": 0.5, "p99": 0.99, "max": 1.0}


def count_submissions(db: Database) -> dict[str, Any]:
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT round, count(*), sum(size) FROM (SELECT max(a.number) AS round, count(*) AS"
            " size FROM attempt a JOIN submission s ON s.id = a.submission_id"
            " WHERE s.reference <> 'spare' GROUP BY s.id) s GROUP BY 1 ORDER BY 1"
        )
        rounds = {f"round {n}": f"{count} of {size} attempts" for n, count, size in cursor}
        cursor.execute("SELECT state, count(*) FROM element GROUP BY 1 ORDER BY 1")
        return {"submissions": rounds, "states": dict(cursor.fetchall())}


# -- the baseline ------------------------------------------------------------------------------


def measure_real_calls(folder: Path, repeat: int) -> dict[str, float] | None:
    """Measure on a real cluster what a single job and an array cost; None without Slurm."""
    try:
        from minislurm.cluster import SlurmCluster
        from minislurm.programs import find_programs
        from muster.errors import MissingInput

        find_programs()
    except (ImportError, MissingInput) as error:
        print(f"no real cluster: {error}", file=sys.stderr)
        return None
    from muster.backends.remote.local_commands import LocalCommands

    cluster = SlurmCluster(folder / "real")
    cluster.start()
    work = folder / "jobs"
    work.mkdir()
    script = work / "job.sh"
    script.write_text("#!/bin/bash\n#SBATCH --mem=10M\n#SBATCH --output=/dev/null\ntrue\n")
    commands = LocalCommands(SLURM_CLIENTS, cluster.environment)

    async def time_call(*arguments: str) -> float:
        started_s = time.perf_counter()
        answer = await commands.call(arguments, timeout_s=60)
        if answer.exit_code:
            raise SystemExit(answer.stderr)
        return time.perf_counter() - started_s

    async def measure() -> dict[str, float]:
        there = f"--chdir={work}"
        single, look, array = [], [], []
        for number in range(repeat):
            single.append(await time_call("sbatch", "--parsable", there, str(script)))
            look.append(await time_call("squeue", "-h", "-j", f"{number + 1},1"))
            if number % 5 == 0:
                call = ("sbatch", "--parsable", there, "--array=0-199", str(script))
                array.append(await time_call(*call))
        whole = await time_call("squeue", "-h", "-r", "-t", "all", "-O", "ArrayJobID:0,State:0")
        found = {"sbatch_s": single, "squeue_s": look, "sbatch_array_200_s": array}
        return {
            **{name: round(statistics.median(seconds), 4) for name, seconds in found.items()},
            "squeue_all_s": round(whole, 4),
        }

    try:
        return asyncio.run(measure())
    finally:
        cluster.stop()


def measure_scripted_calls(
    db: Database, socket: ClusterSocket, speed: float, repeat: int
) -> dict[str, float]:
    """Measure a look at one job of the scripted cluster, in seconds of the cluster."""

    async def measure() -> list[float]:
        client = CommandClient(socket, db, "slurm")
        taken = []
        for _ in range(repeat):
            started_s = time.perf_counter()
            await client.read_queue("a-single-job")
            taken.append((time.perf_counter() - started_s) * speed)
        return taken

    return {"squeue_s": round(statistics.median(asyncio.run(measure())), 4)}


def tell_baseline(calls: list[list[Any]], one: dict[str, float], elements: int) -> dict[str, Any]:
    """Say what an sbatch and a squeue an element would take, in seconds of the cluster."""
    sbatch_s = statistics.median([0.04, 0.5])  # as the script draws it
    per_look = elements * one["squeue_s"]
    return {
        "sbatch_an_element_s": round(elements * sbatch_s),
        "squeue_an_element_once_s": round(per_look),
        "our_sbatch_calls": sum(command == "sbatch" for _, command, *_ in calls),
        "our_status_calls": sum(command in ("squeue", "sacct") for _, command, *_ in calls),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--elements", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--slots", type=int, default=4000)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--repeat", type=int, default=5, help="of the comparison of records")
    parser.add_argument("--min-job-age", type=float, default=300.0)
    parser.add_argument("--folder", type=Path, help="where the files go; a temporary one else")
    parser.add_argument("--work", type=Path, help="where the work directory goes, if elsewhere")
    parser.add_argument("--profile", type=Path, help="where the event loop's profile goes")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--only-plan", action="store_true")
    arguments = parser.parse_args()
    if 30 % arguments.speed:
        parser.error("a speed must go into 30: looks are whole seconds apart")
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.ERROR)
    with contextlib.ExitStack() as stack:
        prefix = "muster-benchmark-"
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=arguments.folder))
        if arguments.work:
            work = tempfile.TemporaryDirectory(prefix=prefix, dir=arguments.work)
            arguments.work = Path(stack.enter_context(work))
        found = run(Path(name), arguments)
    print(json.dumps({"benchmark": "slurm_scale", **describe_run(), **found}, indent=1))


def run(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    server = start_postgres(folder / "pg")
    try:
        ensure_database(server, "muster")
        migrate(server.url("muster"))
        db = Database(server.url("muster"))
        try:
            return measure_campaign(db, ServerTime(server.pid), folder, arguments)
        finally:
            db.close()
    finally:
        stop_postgres(folder / "pg")


def measure_campaign(
    db: Database, server: ServerTime, folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    pace = Pace(arguments.speed)
    site = make_site(arguments.work or folder, pace, arguments.slots)
    elements = plan_elements(folder, arguments.elements, arguments.batch)
    write_plan(db, site, elements)
    started_s, cpu_s, server_s = time.perf_counter(), time.process_time(), server.cpu_s()
    groups = freeze_plan(db, site, RUN)
    planning_s, planning_cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    planning_server_s = server.cpu_s() - server_s
    ids = [batch for group in groups for batch in group.batches.values()]
    found: dict[str, Any] = {
        "elements": arguments.elements,
        "batches": len(ids),
        "planning_s": round(planning_s, 2),
        "planning_cpu_s": round(planning_cpu_s, 2),
        "planning_server_cpu_s": round(planning_server_s, 2),
    }
    if arguments.only_plan:
        return found
    del elements, groups
    script = Script(
        slots=arguments.slots, shares=SHARES, min_job_age_s=arguments.min_job_age, seed=4
    )
    server_s = server.cpu_s()
    with scripted_server(folder, script, arguments.speed) as socket:
        if arguments.profile:
            import cProfile

            profile = cProfile.Profile()
            told = profile.runcall(asyncio.run, supervise_all(db, ids, socket, pace))
            profile.dump_stats(arguments.profile)
        else:
            told = asyncio.run(supervise_all(db, ids, socket, pace))
        report = asyncio.run(socket.report())
        counted = clusters.read_calls(db, "slurm")
        one = measure_scripted_calls(db, socket, arguments.speed, 20)
    found |= told
    found["server_cpu_s"] = round(server.cpu_s() - server_s, 1)
    found["simulated_s"] = round(report["now_s"])
    found["calls"] = dict(Counter(command for _, command, *_ in report["calls"]))
    found["calls_counted_in_store"] = {c.command: c.calls for c in counted}
    found["most_status_calls_in_30_s"] = max(report["status_calls"])
    found["refused"] = report["refused"]
    found["begun_twice"] = report["begun_twice"]
    found |= count_submissions(db)
    found["poll_wall_s"] = pace.poll_wall_s
    found["lag_wall_s"] = read_lags(db, report["ended"], report["looks_wall_s"])
    found["cluster_cpu_s"] = round(report["cpu_s"], 1)
    found["baseline"] = tell_baseline(report["calls"], one, arguments.elements)
    found["records"] = compare_records(db, folder, site, arguments)
    found["real_calls"] = measure_real_calls(folder, 20)
    return found


def compare_records(
    db: Database, folder: Path, site: Any, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Plan a few more batches in a store that holds the campaign, and record their ends."""
    spare = 3 * arguments.repeat * arguments.batch
    elements = plan_elements(folder, arguments.elements + spare, arguments.batch)
    write_plan(db, site, elements[arguments.elements :])
    ids = [b for group in freeze_plan(db, site, RUN) for b in group.batches.values()]
    return measure_records(db, ids, arguments.repeat)


if __name__ == "__main__":
    main()
