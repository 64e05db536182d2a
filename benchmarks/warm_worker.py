"""What an element costs beside its own work, in a process that stays and in one of its own.

``python -m benchmarks.warm_worker [--elements N]`` runs a step that does nothing but create its
output: the fence is read, an output is staged, hashed and published, the log is divided and the
result is written, each as for any element.  Printed are the medians of an element in milliseconds,
by the clock from one result to the next, and the CPU time of all processes together, without that
of their start: it alone is told apart from what else runs on the machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from muster.jobs.running.runner import Running, run_elements
from muster.model.batch import Batch, Element
from muster.model.fence import write_fences
from muster.model.wave import Wave

STEPS = Path(__file__).parents[1] / "tests" / "steps"
KEY = "benchmark.b.w1.00000000"
FEW = 10


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Measure, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=400)
    elements = parser.parse_args(arguments).elements
    found = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{STEPS}{os.pathsep + found if found else ''}"
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), elements)
    json.dump(measured, sys.stdout, indent=1)
    print()
    return measured


def measure(folder: Path, count: int) -> dict[str, float]:
    """Run a pack, and a few elements alone; return milliseconds an element."""
    few = make_batch(folder / "few", FEW)
    used_s = read_cpu_s()
    run_elements(few.uri, list(range(FEW)), Running(KEY, own_logs=True))
    few_s, used_s = read_cpu_s() - used_s, read_cpu_s()
    pack = make_batch(folder / "pack", count)
    started = time.monotonic()
    run_elements(pack.uri, list(range(count)), Running(KEY, own_logs=True))
    took_s = time.monotonic() - started
    pack_s = read_cpu_s() - used_s
    ends = [Path(pack.result_uri(index, 1)).stat().st_mtime_ns for index in range(count)]
    gaps_ms = [(after - before) / 1e6 for before, after in itertools.pairwise(ends[1:])]
    alone = make_batch(folder / "alone", 5)
    started = time.monotonic()
    for index in range(5):
        run_elements(alone.uri, [index], Running(KEY, own_logs=True))
    alone_s = time.monotonic() - started
    return {
        "elements": count,
        "warm_cpu_ms": round(1000 * (pack_s - few_s) / (count - FEW), 3),
        "warm_median_ms": round(statistics.median(gaps_ms), 3),
        "warm_p95_ms": round(statistics.quantiles(gaps_ms, n=20)[-1], 3),
        "warm_mean_with_start_ms": round(1000 * took_s / count, 3),
        "alone_mean_ms": round(1000 * alone_s / 5, 3),
    }


def read_cpu_s() -> float:
    """Read the CPU time of this process and of its children that have ended, in seconds."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def make_batch(folder: Path, count: int) -> Batch:
    """Freeze a batch of elements that do nothing, and order them."""
    batch = Batch(
        id="benchmark.b",
        run="benchmark",
        step="test.nothing",
        backend="local",
        pool="local",
        elements=tuple(
            Element(index=i, name=str(i), outputs={"out": str(folder / "products" / f"{i}.bin")})
            for i in range(count)
        ),
        work_uri=str(folder / "work"),
        pool_uri=str(folder / "pool"),
        layout=2,
    )
    write_fences(Wave(batch, KEY, dict.fromkeys(range(count), 1), batch.resources))
    return batch


if __name__ == "__main__":
    main()
