"""Fifty deferred batches in one triggerer: one look at the cluster for all, few connections."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil
import pytest

from muster.model.resources import Resources
from muster.store.clusters import read_calls
from muster.store.database import MOST_CONNECTIONS
from tests.integration.airflow.slurm.cluster_run import ClusterRun, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.airflow.slurm.conftest import OnSlurm

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.thorough,
    pytest.mark.timeout(1800),
]

BATCHES = 50
WATCHED_S = 30.0


def looks(muster: OnSlurm) -> int:
    return sum(c.calls for c in read_calls(muster.db, "mini") if c.command == "squeue")


def connections(muster: OnSlurm) -> int:
    with muster.db.transaction() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'muster'")
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


def cpu_s(processes: list[psutil.Process]) -> float:
    return sum(p.cpu_times().user + p.cpu_times().system for p in processes)


def test_fifty_batches_share_what_they_can(muster: OnSlurm, tmp_path: Path) -> None:
    wishes = [write(tmp_path, 0.0, 1, number) for number in range(BATCHES)]
    run = ClusterRun(muster, tmp_path, wishes, resources=Resources(cpus=12))
    # Nothing starts until all is deferred, so that what is measured is the waiting alone.
    muster.slurm.run("scontrol", "update", "partition=genoa", "state=DOWN")
    try:
        run.start()
        muster.wait(lambda: len(run.queue()) == BATCHES, 900)
        muster.wait(lambda: run.task_states()["deferred"] == BATCHES, 300)
        triggerer = psutil.Process(muster.live.pid("triggerer"))
        processes = [triggerer, *triggerer.children(recursive=True)]
        before, used_s, began_s = looks(muster), cpu_s(processes), time.monotonic()
        most = 0
        while time.monotonic() - began_s < WATCHED_S:
            most = max(most, connections(muster))
            time.sleep(0.5)
        made, took_s = looks(muster) - before, time.monotonic() - began_s
        used_s = cpu_s(processes) - used_s
        rss_mib = sum(p.memory_info().rss for p in processes) / 2**20
        print(
            f"{BATCHES} deferred batches for {took_s:.0f} s: {made} looks, {most} connections,"
            f" triggerer {used_s:.1f} CPU-s and {rss_mib:.0f} MiB"
        )
        assert 0 < made <= took_s / muster.site.clusters["mini"].poll_every + 2, "one for all"
        # the triggerer's few, the session in which it polls the cluster, and this test's own
        assert most <= MOST_CONNECTIONS + 2
    finally:
        muster.slurm.run("scontrol", "update", "partition=genoa", "state=UP")
    assert run.end(1500) == "success"
    run.check_whole()
    assert len(run.submissions()) == BATCHES
