"""How long a campaign's statistics take to read, and its ensemble to judge; a minute is the limit.

A campaign of 2,000 realizations × 20 redshifts has 200 files of 200 catalogues.  Their statistics
are drawn at random, with the counts and the scatter of boxes of 500 Mpc/h.  CPU seconds (user +
system, all threads) and the peak of this process's memory are those that the kernel counted.

    python benchmarks/mock_qa.py
    python benchmarks/mock_qa.py --realizations 200    a quick look
    python benchmarks/mock_qa.py --power               one catalogue's statistics beside it
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from muster.mocks.coordinates import Coordinate
from muster.mocks.qa.bins import (
    COARSE_HALO_MASS,
    COARSE_SFR,
    COARSE_STELLAR_MASS,
    HALO_MASS,
    SFR,
    SHELLS,
    STELLAR_MASS,
)
from muster.mocks.qa.collect import read_campaign
from muster.mocks.qa.judge import judge_campaign
from muster.mocks.qa.power import count_modes, measure_power
from muster.mocks.qa.statistics import CatalogueStatistics
from muster.mocks.qa.statistics_file import StatisticsRow, write_statistics
from muster.mocks.qa.steps import check_ensemble

if TYPE_CHECKING:
    from collections.abc import Callable

BOX_SIZE_MPCH = 500.0
GALAXIES = 400_000
CATALOGUES_A_FILE = 200
LIMIT_S = 60.0
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def falling(count: int, total: float) -> np.ndarray:
    """Mean counts that fall by a power of ten over four tenths of the bins."""
    shape = 10.0 ** (-np.arange(count) / (0.4 * count))
    return total * shape / shape.sum()


def draw_statistics(rng: np.random.Generator, redshift: float) -> CatalogueStatistics:
    halos = rng.poisson(falling(HALO_MASS.count, GALAXIES / (1 + redshift)))
    galaxies = rng.poisson(falling(STELLAR_MASS.count, GALAXIES / (1 + redshift)))
    n_galaxies = int(galaxies.sum())
    k_hmpc = 2 * np.pi / BOX_SIZE_MPCH * (1.5 + 2.0 * np.arange(SHELLS))
    modes = count_modes()
    power = 3000.0 / (1 + (k_hmpc / 0.1) ** 1.5) * (1 + rng.normal(0, np.sqrt(2 / modes)))
    pairs = (COARSE_HALO_MASS.count, COARSE_STELLAR_MASS.count)
    rates = (COARSE_STELLAR_MASS.count, COARSE_SFR.count)
    sfr = rng.poisson(falling(SFR.count, 0.9 * n_galaxies))
    return CatalogueStatistics(
        box_size_mpch=BOX_SIZE_MPCH,
        redshift=redshift,
        counts=np.array([halos.sum(), n_galaxies, n_galaxies - n_galaxies // 5, n_galaxies // 5]),
        halo_counts=halos,
        stellar_counts=galaxies,
        sfr_cumulative=np.minimum(n_galaxies, sfr[::-1].cumsum()[::-1]),
        halo_stellar=rng.poisson(np.outer(falling(pairs[0], 0.9), falling(pairs[1], n_galaxies))),
        stellar_sfr=rng.poisson(np.outer(falling(rates[0], 0.9), falling(rates[1], n_galaxies))),
        power_k_hmpc=k_hmpc,
        power_mpch3=power,
        power_modes=modes,
        shot_noise_mpch3=BOX_SIZE_MPCH**3 / n_galaxies,
    )


def write_campaign(folder: Path, realizations: int, redshifts: list[float]) -> int:
    rng = np.random.default_rng(0)
    rows: list[StatisticsRow] = []
    files = 0
    for realization in range(realizations):
        for index, redshift in enumerate(redshifts):
            coordinate = Coordinate(realization, redshift)
            uri = f"/campaign/catalogs/{coordinate.folder}/mock_z{redshift:.3f}.hdf5"
            found = draw_statistics(rng, redshift)
            rows.append(StatisticsRow(coordinate, index, uri, "0" * 64, EPOCH, found))
            if len(rows) == CATALOGUES_A_FILE:
                write_statistics(folder / f"batch_{files:04d}.parquet", rows)
                files, rows = files + 1, []
    if rows:
        write_statistics(folder / f"batch_{files:04d}.parquet", rows)
    return files + bool(rows)


def timed(what: str, work: Callable[[], object]) -> tuple[float, float]:
    wall, before = time.perf_counter(), os.times()
    work()
    after = os.times()
    wall_s = time.perf_counter() - wall
    cpu_s = after.user + after.system - before.user - before.system
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:<44} {wall_s:7.2f} s  {cpu_s:7.2f} CPU-s  peak {peak_mib:6.0f} MiB")
    return wall_s, cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--realizations", type=int, default=2000)
    parser.add_argument("--redshifts", type=int, default=20)
    parser.add_argument("--power", action="store_true")
    options = parser.parse_args()
    if options.power:
        points = np.random.default_rng(0).uniform(0, BOX_SIZE_MPCH, (GALAXIES, 3))
        timed(f"P(k) of {GALAXIES} points, first", lambda: measure_power(points, BOX_SIZE_MPCH))
        timed(f"P(k) of {GALAXIES} points, again", lambda: measure_power(points, BOX_SIZE_MPCH))
    redshifts = [round(0.1 * index, 3) for index in range(options.redshifts)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        statistics = folder / "statistics"
        statistics.mkdir()
        files = write_campaign(statistics, options.realizations, redshifts)
        stored = sum(path.stat().st_size for path in statistics.iterdir())
        catalogues = options.realizations * len(redshifts)
        print(f"{catalogues} catalogues in {files} files, {stored / 1024**2:.0f} MiB")
        timed("find the rows that count, check every value", lambda: read_campaign(statistics))
        timed("read and judge", lambda: judge_campaign(read_campaign(statistics)))
        wall_s, cpu_s = timed(
            "the step mocks.qa: read, judge, draw",
            lambda: check_ensemble(
                statistics_folder=str(statistics),
                expected={
                    "realizations": list(range(options.realizations)), "redshifts": redshifts
                },
                figures=str(folder / "figures"),
                summary=folder / "summary.json",
                matrices=folder / "matrices.npz",
            ),
        )  # fmt: skip
        print(f"{wall_s:.1f} s and {cpu_s:.1f} CPU-s; the limit is {LIMIT_S:.0f} s")


if __name__ == "__main__":
    main()
