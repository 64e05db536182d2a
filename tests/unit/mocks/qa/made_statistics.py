"""Statistics of boxes drawn at random with known means: no catalogue, no mesh."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

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
from muster.mocks.qa.power import count_modes
from muster.mocks.qa.statistics import CatalogueStatistics
from muster.mocks.qa.statistics_file import StatisticsRow, write_statistics

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BOX_SIZE_MPCH = 100.0
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
POWER = 3000.0 / (1.0 + np.arange(SHELLS))
HALO_COUNTS = np.where(np.arange(HALO_MASS.count) < 40, 400.0 * 0.9 ** np.arange(60), 0.0)


@cache
def modes() -> np.ndarray[Any, Any]:
    return count_modes()


def draw(seed: int, redshift: float = 0.5, **changes: Any) -> CatalogueStatistics:
    """Draw a box: Poisson counts, and a Gaussian power spectrum with variance 2P²/N_k."""
    rng = np.random.default_rng(seed)
    halos = rng.poisson(HALO_COUNTS)
    stellar = rng.poisson(np.linspace(100.0, 0.0, STELLAR_MASS.count))
    galaxies = int(stellar.sum())
    above = np.sort(rng.integers(0, galaxies, SFR.count))[::-1]
    spread = rng.normal(0, np.sqrt(2 / modes()))
    made = CatalogueStatistics(
        box_size_mpch=BOX_SIZE_MPCH,
        redshift=redshift,
        counts=np.array([halos.sum(), galaxies, galaxies - galaxies // 4, galaxies // 4]),
        halo_counts=halos,
        stellar_counts=stellar,
        sfr_cumulative=above,
        halo_stellar=rng.poisson(0.5, (COARSE_HALO_MASS.count, COARSE_STELLAR_MASS.count)),
        stellar_sfr=rng.poisson(0.5, (COARSE_STELLAR_MASS.count, COARSE_SFR.count)),
        power_k_hmpc=2 * np.pi / BOX_SIZE_MPCH * (1.5 + 2.0 * np.arange(SHELLS)),
        power_mpch3=POWER * (1 + spread),
        power_modes=modes(),
        shot_noise_mpch3=BOX_SIZE_MPCH**3 / galaxies,
    )
    return replace(made, **changes)


def make_row(
    realization: int,
    redshift: float = 0.5,
    *,
    minutes: int = 0,
    uri: str = "",
    statistics: CatalogueStatistics | None = None,
) -> StatisticsRow:
    coordinate = Coordinate(realization, redshift)
    return StatisticsRow(
        coordinate,
        redshift_index=3,
        uri=uri or f"/c/{coordinate.folder}/mock_z{redshift:.3f}.hdf5",
        fingerprint=f"{realization:064x}",
        made_at=EPOCH + timedelta(minutes=minutes),
        statistics=statistics or draw(1000 * int(10 * redshift) + realization, redshift),
    )


def write_campaign(
    folder: Path, realizations: Iterable[int], redshifts: Iterable[float] = (0.5,), files: int = 1
) -> list[StatisticsRow]:
    """Write all pairs into files, dealt out in turn, and return their rows."""
    folder.mkdir(exist_ok=True)
    redshifts = list(redshifts)
    rows = [make_row(realization, z) for realization in realizations for z in redshifts]
    for number in range(files):
        write_statistics(folder / f"batch_{number:04d}.parquet", rows[number::files])
    return rows
