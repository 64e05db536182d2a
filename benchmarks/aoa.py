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
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from muster.traits.aoa.aoa import fit_aoa
from muster.traits.aoa.neighbours import (
    KD_TREE_DIMENSIONS,
    TREE_PLOTS,
    effective_dimensions,
    open_neighbours,
)

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
    folds = np.arange(PLOTS) % 5
    fit = partial(fit_aoa, weights=np.ones(PREDICTORS), folds=folds, threads=threads)
    # Compiling is not what is measured.
    warm = fit_aoa(training[:100], np.ones(PREDICTORS), folds[:100])
    warm.dissimilarity_and_density(queries[:100])
    warm.dissimilarity(queries[:100])
    fit_s, area = cpu_seconds(lambda: fit(training))
    sample = queries[rng.choice(pixels, min(peer_pixels, pixels), replace=False)]
    # As pandas hands an array over: one column after the other.
    peers = {
        "c_order": (np.ascontiguousarray, (sample - area.mean) / area.sd),
        "pandas_order": (np.asfortranarray, (sample - area.mean) / area.sd),
        "mixed_dtypes": (np.ascontiguousarray, ((sample - area.mean) / area.sd).astype("f4")),
    }
    works = {
        name: partial(open_peer(order((training - area.mean) / area.sd), threads), order(values))
        for name, (order, values) in peers.items()
    }
    left = rng.normal(size=(SGEMM_SIDE, SGEMM_SIDE)).astype(np.float32)
    right = rng.normal(size=(SGEMM_SIDE, SGEMM_SIDE)).astype(np.float32)
    seconds: dict[str, list[float]] = defaultdict(list)
    worst = 0.0
    with threadpool_limits(limits=threads):
        ours = area.dissimilarity(sample) * area.mean_training_distance
        for _ in range(repeat):
            seconds["sgemm"].append(cpu_seconds(lambda: left @ right)[0])
            seconds["ours"].append(cpu_seconds(lambda: area.dissimilarity(queries))[0])
            seconds["lpd"].append(cpu_seconds(lambda: area.dissimilarity_and_density(queries))[0])
            for name, work in works.items():
                taken, (found, _) = cpu_seconds(work)
                seconds[name].append(taken * pixels / len(sample))
                if name != "mixed_dtypes":
                    worst = max(worst, float(np.max(np.abs(ours / found[:, 0] - 1))))
    taken_s = {name: median(values) for name, values in seconds.items()}
    sgemm_rate = 2 * SGEMM_SIDE**3 / taken_s["sgemm"]
    our_rate = 2.0 * PLOTS * pixels * PREDICTORS / taken_s["ours"]
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
        "ours_cpu_s": round(taken_s["ours"], 3),
        "ours_with_local_point_density_cpu_s": round(taken_s["lpd"], 3),
        **{f"sklearn_{name}_cpu_s": round(taken_s[name], 3) for name in works},
        "sklearn_measured_pixels": len(sample),
        "sklearn_scaled_linearly": len(sample) != pixels,
        "times_faster": round(taken_s["c_order"] / taken_s["ours"], 1),
        "sgemm_gflops_per_cpu_s": round(sgemm_rate / 1e9, 1),
        "percent_of_sgemm": round(100 * our_rate / sgemm_rate, 1),
        "greatest_relative_difference": worst,
    }


def open_peer(points: Any, threads: int) -> Callable[..., Any]:
    peer = NearestNeighbors(n_neighbors=1, algorithm="brute", n_jobs=threads)
    find: Callable[..., Any] = peer.fit(points).kneighbors
    return find


def render_row(result: dict[str, Any]) -> str:
    scaled = (
        f" (on {result['sklearn_measured_pixels']:,}, scaled)"
        if result["sklearn_scaled_linearly"]
        else ""
    )
    return (
        f"| AoA, {result['plots']:,} × {result['predictors']} plots, {result['pixels']:,} pixels "
        f"| {result['ours_cpu_s']} CPU-s, with local point density "
        f"{result['ours_with_local_point_density_cpu_s']} CPU-s "
        f"| sklearn brute{scaled}: C order {result['sklearn_c_order_cpu_s']} CPU-s, "
        f"pandas' order {result['sklearn_pandas_order_cpu_s']} CPU-s "
        f"| {result['times_faster']} × | {result['percent_of_sgemm']} % of sgemm "
        f"({result['sgemm_gflops_per_cpu_s']} GFLOP/CPU-s) |"
    )


def measure_crossing(pixels: int, repeat: int) -> list[dict[str, float]]:
    """Compare the engines on plots whose weights decay, and fill few dimensions or more."""
    rng = np.random.default_rng(7)
    rows = []
    for decay in (0.5, 0.8, 1.0, 1.5, 2.0, 3.0):
        weights = np.exp(-np.arange(PREDICTORS) / decay)
        points = rng.normal(size=(TREE_PLOTS, PREDICTORS)) * weights
        queries = rng.normal(size=(pixels, PREDICTORS)) * weights
        row = {"effective_dimensions": round(effective_dimensions(points), 2)}
        for engine in ("tree", "blocks"):
            neighbours = open_neighbours(points, engine=engine)
            neighbours.nearest(queries[:2])
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
        print(
            json.dumps(
                {
                    "benchmark": "aoa crossing",
                    "rule": KD_TREE_DIMENSIONS,
                    "plots": TREE_PLOTS,
                    "rows": rows,
                }
            )
        )
        return
    result = measure(arguments.pixels, arguments.peer_pixels, arguments.repeat, arguments.threads)
    print(json.dumps(result))
    print(render_row(result))


if __name__ == "__main__":
    main()
