"""How fast a lean catalogue is written, beside h5py's own speed.

Ours puts the layout together, writes all datasets with their attributes, syncs, and renames; the
peer writes the same bytes of arrays as one contiguous dataset with h5py, and syncs.  The two take
turns in one process; wall and CPU seconds (user + system) are medians.

    python benchmarks/mock_write.py                       3 M galaxies
    python benchmarks/mock_write.py --galaxies 300_000    a quick look
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
from _side_by_side import describe_run

from muster.mocks.catalogue.arrays import make_content
from muster.mocks.catalogue.layout import Compression
from muster.mocks.catalogue.read import read_catalogue
from muster.mocks.catalogue.write import write_catalogue
from muster.mocks.galaxies.catalog import GalaxyCatalog
from muster.mocks.halos.catalog import Cosmology, HaloCatalog, HaloMetadata

if TYPE_CHECKING:
    from collections.abc import Callable

BOX_MPCH = 500.0
PLANCK = Cosmology(0.6736, 0.315192, 0.0493, 0.8076, 0.9649)


def make_box(galaxies: int, seed: int) -> tuple[GalaxyCatalog, HaloCatalog]:
    """Draw a box of one halo for six galaxies; half of the galaxies are satellites."""
    rng = np.random.default_rng(seed)
    count = max(1, galaxies // 6)
    ids = np.arange(count, dtype=np.int64) * 1000 + 7
    halos = HaloCatalog(
        rng.random((count, 3), dtype=np.float32) * np.float32(BOX_MPCH * 0.999),
        10 ** rng.uniform(11, 14, count),
        ids,
        rng.normal(0, 300, (count, 3)).astype(np.float32),
        rng.random(count, dtype=np.float32),
        HaloMetadata("benchmark", BOX_MPCH, 1.1, PLANCK, "ph3000", 0, min_mass_msunh=1e11),
    )
    hosts = np.sort(rng.integers(0, count, galaxies))
    properties = {
        "vel": rng.normal(0, 300, (galaxies, 3)).astype(np.float32),
        "logsm_t_obs": rng.uniform(8, 12, galaxies).astype(np.float32),
        "logssfr_t_obs": rng.uniform(-12, -8, galaxies).astype(np.float32),
        "logmp_t_obs": rng.uniform(11, 14, galaxies).astype(np.float32),
        "upid": np.where(rng.random(galaxies) < 0.5, ids[hosts], -1),
    }
    positions = rng.random((galaxies, 3), dtype=np.float32) * np.float32(BOX_MPCH * 0.999)
    return GalaxyCatalog(positions, properties, hosts, {"galaxy_model": "benchmark"}), halos


def time_runs(works: dict[str, Callable[[], None]], repeat: int) -> dict[str, dict[str, float]]:
    """Run all works in turn and return the medians of their seconds."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(repeat + 1):  # the first turn warms up
        for name, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            runs[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: {
            "wall_s": round(statistics.median(wall for wall, _ in found[1:]), 4),
            "cpu_s": round(statistics.median(cpu for _, cpu in found[1:]), 4),
        }
        for name, found in runs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--galaxies", type=int, default=3_000_000)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--seed", type=int, default=20240501)
    arguments = parser.parse_args()
    galaxies, halos = make_box(arguments.galaxies, arguments.seed)
    arrays = make_content(galaxies, halos, "lean").arrays
    same_bytes = np.concatenate([array.reshape(-1).view(np.uint8) for array in arrays.values()])
    with tempfile.TemporaryDirectory(prefix="muster-benchmark-") as temporary:
        ours, peer = Path(temporary) / "ours.hdf5", Path(temporary) / "peer.hdf5"

        def run_ours() -> None:
            ours.unlink(missing_ok=True)
            write_catalogue(ours, galaxies, halos, compression=Compression())

        def run_peer() -> None:
            peer.unlink(missing_ok=True)
            with h5py.File(peer, "w") as file:
                file.create_dataset("bytes", data=same_bytes)
            with peer.open("rb") as file:
                os.fsync(file.fileno())

        medians = time_runs({"ours": run_ours, "peer": run_peer}, arguments.repeat)
        read = read_catalogue(ours)[0]
        equal = all(np.array_equal(read[path], array) for path, array in arrays.items())
        bytes_ours = ours.stat().st_size
    ratio = {key: round(medians["peer"][key] / medians["ours"][key], 3) for key in medians["ours"]}
    answer = {
        "benchmark": "mock_write",
        **describe_run(),
        **{key: getattr(arguments, key) for key in ("galaxies", "repeat", "seed")},
        "array_bytes": same_bytes.size,
        "file_bytes": bytes_ours,
        "median": medians,
        "arrays_equal": equal,
        "speed_over_peer": ratio,
    }
    print(json.dumps(answer))
    speed = same_bytes.size / 1e6 / medians["ours"]["wall_s"]
    print(
        f"| lean catalogue, {arguments.galaxies / 1e6:g} M galaxies, {speed:.0f} MB/s "
        f"| {medians['ours']['cpu_s']:.3f} CPU-s | one contiguous dataset "
        f"{medians['peer']['cpu_s']:.3f} CPU-s | {ratio['wall_s']:.2f} × its speed |"
    )


if __name__ == "__main__":
    main()
