"""Small boxes of made-up galaxies and haloes, and their files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.mocks.catalogue.write import write_catalogue
from muster.mocks.galaxies.catalog import GalaxyCatalog
from muster.mocks.halos.catalog import Cosmology, HaloCatalog, HaloMetadata

if TYPE_CHECKING:
    from pathlib import Path

BOX_MPCH = 32.2
"""Rounds to a float32 above it, which is outside."""

PLANCK = Cosmology(0.6736, 0.315192, 0.0493, 0.8076, 0.9649)
TIMES = 6


def make_halos(count: int = 50, seed: int = 7) -> HaloCatalog:
    rng = np.random.default_rng(seed)
    return HaloCatalog(
        (rng.random((count, 3)) * 32).astype(np.float32),
        10 ** rng.uniform(11, 14, count),
        np.arange(count, dtype=np.int64) * 1000 + 5,
        rng.normal(0, 300, (count, 3)).astype(np.float32),
        rng.uniform(0.1, 1, count).astype(np.float32),
        HaloMetadata(
            "AbacusSummit_small_c000", BOX_MPCH, 1.1, PLANCK, "ph3007", 7, 1.7e9, False, 1e11
        ),
    )


def make_galaxies(
    halos: HaloCatalog, count: int = 300, seed: int = 8, *, full: bool = False
) -> GalaxyCatalog:
    """Draw galaxies, a central and then satellites in each halo that has any."""
    rng = np.random.default_rng(seed)
    hosts = np.sort(rng.integers(0, max(1, len(halos)), count))
    is_central = np.diff(hosts, prepend=-1) != 0
    properties: dict[str, Any] = {
        "vel": rng.normal(0, 300, (count, 3)).astype(np.float32),
        "logsm_t_obs": rng.uniform(8, 12, count).astype(np.float32),
        "logssfr_t_obs": rng.uniform(-12, -8, count).astype(np.float32),
        "logmp_t_obs": rng.uniform(11, 14, count).astype(np.float32),
        "upid": np.where(is_central, -1, halos.ids[hosts] if count else 0),
    }
    if full:
        properties["t_table"] = np.linspace(0.1, 5.4, TIMES)
        properties["log_mah_table"] = rng.uniform(9, 14, (count, TIMES)).astype(np.float32)
        properties["sfh_table"] = rng.uniform(0, 9, (count, TIMES)).astype(np.float32)
        properties["mah_params"] = rng.normal(size=(5, count)).astype(np.float32)
    positions = np.zeros((0, 3), np.float32)
    if count:
        offsets = rng.uniform(-0.5, 0.5, (count, 3)) * halos.radii[hosts, None]
        offsets[is_central] = 0
        positions = halos.positions[hosts] + offsets
        outside = (positions < 0) | (positions >= 32)
        positions = np.where(outside, positions - 2 * offsets, positions).astype(np.float32)
    return GalaxyCatalog(positions, properties, hosts, {"galaxy_model": "made up"})


def make_box(count: int = 300, halos: int = 50, *, full: bool = False) -> tuple[Any, Any]:
    found = make_halos(halos)
    return make_galaxies(found, count, full=full), found


def write_box(path: Path, count: int = 300, halos: int = 50, **more: Any) -> Path:
    galaxies, found = make_box(count, halos, full=more.get("layout") == "full")
    more = {"attributes": {"seed": 3, "fingerprint": "ab12"}, **more}
    write_catalogue(path, galaxies, found, **more)
    return path


def with_properties(galaxies: GalaxyCatalog, **properties: Any) -> GalaxyCatalog:
    return replace(galaxies, properties={**galaxies.properties, **properties})
