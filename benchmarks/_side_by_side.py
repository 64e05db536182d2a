"""Ours and the peer in turn, each run in a process of its own, as the kernel counts it."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

Figures = dict[str, float]


def measure(script: str, work: str, folder: Path, threads: int) -> Figures:
    """Run one of the two in a process of its own and return what the kernel counted."""
    command = [sys.executable, script, "--run", work, "--folder", str(folder)]
    start = time.perf_counter()
    pid = os.posix_spawn(sys.executable, [*command, "--threads", str(threads)], dict(os.environ))
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{work} ended with {os.waitstatus_to_exitcode(status)}")
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.perf_counter() - start,
        "rss_mib": usage.ru_maxrss / 1024,
    }


def measure_in_turn(
    script: str, folder: Path, *, threads: int, repeat: int
) -> tuple[dict[str, list[Figures]], dict[str, Figures]]:
    """Measure ours and the peer in turn, and return all runs and their medians."""
    runs: dict[str, list[Figures]] = {"ours": [], "peer": []}
    for _ in range(repeat):
        for work, found in runs.items():
            found.append(measure(script, work, folder, threads))
    medians = {
        work: {key: round(statistics.median(run[key] for run in found), 2) for key in found[0]}
        for work, found in runs.items()
    }
    return runs, medians


def describe_run() -> dict[str, str]:
    """Say where and when."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
