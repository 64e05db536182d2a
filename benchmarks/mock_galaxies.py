"""How many galaxies a second of CPU the models make, and what diffsky compiles.

hod: a box of haloes with the defaults, one slab, one process, alone and with its lean file written,
synced and renamed; medians of the rounds, in CPU seconds (user + system) and on the wall.  diffsky:
a first and a second box of the same bucket, with other haloes at another redshift.

    python benchmarks/mock_galaxies.py                    2,000,000 haloes; 400 for diffsky
    python benchmarks/mock_galaxies.py --halos 200000     a quick look
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from muster.mocks.catalogue.layout import Compression
from muster.mocks.catalogue.write import write_catalogue
from muster.mocks.galaxies.boxes import generate_box
from muster.mocks.galaxies.model import load_model
from muster.mocks.halos.catalog import Cosmology, HaloCatalog, HaloMetadata

BOX_MPCH = 1000.0
COSMOLOGY = Cosmology(h=0.6736, omega_m=0.3152, omega_b=0.0493, sigma8=0.808, n_s=0.9649)
WHERE = {"seed": 1, "redshift_index": 0, "slabs": 1}


def make_halos(count: int, redshift: float, seed: int) -> HaloCatalog:
    """Place haloes at random, with a steep mass function from 10^11.5 to 10^15 Msun/h."""
    rng = np.random.default_rng(seed)
    masses = np.minimum(10 ** (11.5 - np.log10(1 - rng.random(count)) / 0.9), 1e15)
    return HaloCatalog(
        positions=rng.random((count, 3), dtype=np.float32) * np.float32(BOX_MPCH),
        masses=masses,
        ids=np.arange(count, dtype=np.int64),
        velocities=rng.standard_normal((count, 3), dtype=np.float32) * np.float32(300),
        radii=(0.2 * (masses / 1e12) ** (1 / 3)).astype(np.float32),
        metadata=HaloMetadata("benchmark", BOX_MPCH, redshift, COSMOLOGY),
    )


def time_hod(count: int, rounds: int) -> None:
    """Print galaxies a second of hod, without its file and with it."""
    model = load_model("hod")
    halos, params = make_halos(count, 1.1, 1), model.parse({})
    times: dict[str, list[tuple[float, float]]] = {"alone": [], "with its file": []}
    galaxies = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "box.hdf5"
        for realization in range(rounds + 1):  # the first round warms up
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            made = generate_box(halos, model, params, realization=realization, **WHERE)
            times["alone"].append((time.process_time() - cpu_s, time.perf_counter() - wall_s))
            write_catalogue(path, made, halos, compression=Compression())
            times["with its file"].append(
                (time.process_time() - cpu_s, time.perf_counter() - wall_s)
            )
            galaxies = len(made)
    for what, spent in times.items():
        cpu_s, wall_s = (statistics.median(part) for part in zip(*spent[1:], strict=True))
        print(
            f"hod {what:<13} {count:>9,} haloes {galaxies:>9,} galaxies {cpu_s:7.3f} CPU-s"
            f" {galaxies / cpu_s / 1e6:6.2f} M galaxies a CPU-s, {galaxies / wall_s / 1e6:6.2f} M"
            " a second"
        )


def count_diffsky(count: int) -> None:
    """Print what the first and the second box of diffsky compile."""
    model = load_model("diffsky")
    missing = model.check_installed()
    if missing is not None:
        print(missing)
        return
    params = model.parse({"log_min_subhalo_mass": 11.5})
    model.versions()
    from muster.mocks.galaxies.jax_runtime import count_compilations

    for number, (size, redshift) in enumerate([(count, 1.1), (count * 9 // 10, 0.5)], start=1):
        halos = make_halos(size, redshift, number)
        begun = time.process_time()
        with count_compilations() as counted:
            galaxies = len(generate_box(halos, model, params, realization=number, **WHERE))
        spent = time.process_time() - begun
        print(
            f"diffsky  box {number} {size:>9,} haloes {galaxies:>9,} galaxies {spent:7.3f} CPU-s"
            f" {counted.compiled:3d} compilations, {counted.cached} from the cache"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--halos", type=int, default=2_000_000)
    parser.add_argument("--diffsky-halos", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    time_hod(arguments.halos, arguments.rounds)
    count_diffsky(arguments.diffsky_halos)


if __name__ == "__main__":
    main()
