"""How fast the dissimilarity index is, beside scikit-learn's brute force and the BLAS it rests on.

Ours, the peer and a plain matrix product take turns in one process, and medians of CPU seconds
(user + system, all threads) are compared, so that a busy machine slows all three alike.

    python benchmarks/aoa.py                      100,000 pixels
    python benchmarks/aoa.py --pixels 1000000     the full size
    python benchmarks/aoa.py --crossing           where the k-d tree stops being faster
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from muster.traits.aoa import fit_aoa
from muster.traits.neighbours import KD_TREE_DIMENSIONS, Neighbours, effective_dimensions

if TYPE_CHECKING:
    from collections.abc import Callable

PLOTS = 20_000
PREDICTORS = 30
SGEMM_SIDE = 2048


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def median(values: list[float]) -> float:
    return statistics.median(values)


def measure(pixels: int, peer_pixels: int, repeat: int, threads: int) -> dict[str, Any]:
    rng = np.random.default_rng(20_240_501)
    training = rng.normal(size=(PLOTS, PREDICTORS))
    queries = rng.normal(size=(pixels, PREDICTORS))
    sample = queries[rng.choice(pixels, min(peer_pixels, pixels), replace=False)]
    fit_s, area = cpu_seconds(
        lambda: fit_aoa(training, np.ones(PREDICTORS), np.arange(PLOTS) % 5, threads=threads)
    )
    peer = NearestNeighbors(n_neighbors=1, algorithm="brute", n_jobs=threads)
    peer.fit((training - area.mean) / area.sd)
    left = rng.normal(size=(SGEMM_SIDE, SGEMM_SIDE)).astype(np.float32)
    right = rng.normal(size=(SGEMM_SIDE, SGEMM_SIDE)).astype(np.float32)
    ours_s: list[float] = []
    peer_s: list[float] = []
    sgemm_s: list[float] = []
    worst = 0.0
    with threadpool_limits(limits=threads):
        for _ in range(repeat):
            sgemm_s.append(cpu_seconds(lambda: left @ right)[0])
            ours_s.append(cpu_seconds(lambda: area.dissimilarity(queries))[0])
            seconds, (found, _) = cpu_seconds(
                lambda: peer.kneighbors((sample - area.mean) / area.sd)
            )
            peer_s.append(seconds * pixels / len(sample))
            ours = area.dissimilarity(sample) * area.mean_training_distance
            worst = max(worst, float(np.max(np.abs(ours / found[:, 0] - 1))))
    sgemm_rate = 2 * SGEMM_SIDE**3 / median(sgemm_s)
    our_rate = 2.0 * PLOTS * pixels * PREDICTORS / median(ours_s)
    return {
        "benchmark": "aoa",
        "machine": f"{platform.machine()}, {platform.processor() or platform.system()}",
        "plots": PLOTS,
        "predictors": PREDICTORS,
        "pixels": pixels,
        "threads": threads,
        "repeat": repeat,
        "engine": area.neighbours.engine,
        "fit_cpu_s": round(fit_s, 3),
        "ours_cpu_s": round(median(ours_s), 3),
        "sklearn_cpu_s": round(median(peer_s), 3),
        "sklearn_measured_pixels": len(sample),
        "sklearn_scaled_linearly": len(sample) != pixels,
        "times_faster": round(median(peer_s) / median(ours_s), 1),
        "sgemm_gflops_per_cpu_s": round(sgemm_rate / 1e9, 1),
        "percent_of_sgemm": round(100 * our_rate / sgemm_rate, 1),
        "greatest_relative_difference": worst,
    }


def render_row(result: dict[str, Any]) -> str:
    scaled = (
        f" (on {result['sklearn_measured_pixels']:,}, scaled)"
        if result["sklearn_scaled_linearly"]
        else ""
    )
    return (
        f"| AoA, {result['plots']:,} × {result['predictors']} plots, {result['pixels']:,} pixels "
        f"| {result['ours_cpu_s']} CPU-s | sklearn brute {result['sklearn_cpu_s']} CPU-s{scaled} "
        f"| {result['times_faster']} × | {result['percent_of_sgemm']} % of sgemm "
        f"({result['sgemm_gflops_per_cpu_s']} GFLOP/CPU-s) |"
    )


def measure_crossing(pixels: int, repeat: int) -> list[dict[str, float]]:
    """Compare the engines on clouds that fill more and more dimensions."""
    rng = np.random.default_rng(7)
    rows = []
    for dimensions in range(2, 11):
        scale = np.r_[np.ones(dimensions), np.full(PREDICTORS - dimensions, 0.05)]
        points = rng.normal(size=(PLOTS, PREDICTORS)) * scale
        queries = rng.normal(size=(pixels, PREDICTORS)) * scale
        row = {"effective_dimensions": round(effective_dimensions(points), 2)}
        for engine in ("tree", "blocks"):
            neighbours = Neighbours(points, engine=engine)
            seconds = [cpu_seconds(partial(neighbours.nearest, queries))[0] for _ in range(repeat)]
            row[f"{engine}_cpu_s"] = round(median(seconds), 3)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=100_000)
    parser.add_argument("--peer-pixels", type=int, default=2_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--crossing", action="store_true")
    arguments = parser.parse_args()
    if arguments.crossing:
        rows = measure_crossing(min(arguments.pixels, 20_000), arguments.repeat)
        print(json.dumps({"benchmark": "aoa crossing", "rule": KD_TREE_DIMENSIONS, "rows": rows}))
        return
    result = measure(arguments.pixels, arguments.peer_pixels, arguments.repeat, arguments.threads)
    print(json.dumps(result))
    print(render_row(result))


if __name__ == "__main__":
    main()
