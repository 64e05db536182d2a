"""Elements, batches, arrays and bytes of a campaign."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.jobs.planning.freeze import MOST_BATCHES
from muster.mocks.campaign.estimate_size import (
    MOST_GROUPS,
    bytes_per_row,
    estimate_size,
    split_batches,
)
from muster.mocks.campaign.selection import Selection
from muster.mocks.coordinates import Coordinate
from tests.unit.mocks.campaign.campaign_files import PLAN, make_campaign

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("elements", [1, 99, 100, 101, 12_300, 12_301, 40_000, 100_000])
@pytest.mark.parametrize("array_size", [1, 100, 1000])
def test_batches_hold_whole_arrays_in_order_and_stay_within_a_run(
    elements: int, array_size: int
) -> None:
    coordinates = [Coordinate(n, 0.5) for n in range(elements)]
    batches = split_batches(coordinates, array_size)
    assert [c for batch in batches for c in batch] == coordinates
    assert len(batches) <= MOST_GROUPS
    assert 2 * MOST_GROUPS + 3 <= MOST_BATCHES
    assert all(len(batch) % array_size == 0 for batch in batches[:-1])
    if elements <= array_size * MOST_GROUPS:
        assert max(map(len, batches)) <= array_size


def test_nothing_is_no_batch() -> None:
    assert split_batches([], 100) == []


def test_forty_thousand_elements_stay_within_one_run(tmp_path: Path) -> None:
    found = estimate_size(make_campaign(tmp_path, text=PLAN), pack=10)
    assert (found.elements, found.realizations, found.redshifts) == (40_000, 2000, 20)
    assert (found.batches, found.elements_per_batch) == (100, 400)
    assert (found.arrays, found.array_size, found.jobs) == (400, 100, 4000)
    assert found.slices == 20


def test_a_slice_of_it_is_estimated_alone(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path, text=PLAN)
    found = estimate_size(campaign, Selection(slice_index=3))
    assert (found.elements, found.batches, found.arrays) == (2000, 20, 20)


def test_the_bytes_of_catalogues_that_are_there_go_before_any_guess(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path)
    found = estimate_size(campaign, past_bytes=[100, 300])
    assert (found.bytes_per_catalogue, found.bytes) == (200, 4000)
    assert found.basis == "the mean of 2 catalogues"
    assert estimate_size(campaign, past_bytes=[100]).basis == "the mean of 1 catalogue"


def test_a_density_of_galaxies_gives_their_number_and_bytes(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path)
    found = estimate_size(campaign, galaxies_per_mpch3=0.01)
    assert found.galaxies_per_catalogue == 1250  # of 50³ (Mpc/h)³
    assert found.bytes_per_catalogue is not None
    assert found.bytes_per_catalogue > 1250 * bytes_per_row("galaxy", "lean")
    full = estimate_size(
        make_campaign(
            tmp_path,
            ("galaxy_model: hod", "galaxy_model: diffsky"),
            ("base_path", "layout: full\n  base_path"),
        ),
        galaxies_per_mpch3=0.01,
    )
    assert full.bytes_per_catalogue is not None
    assert full.bytes_per_catalogue > 2 * found.bytes_per_catalogue
    assert bytes_per_row("galaxy", "full") > 5 * bytes_per_row("galaxy", "lean")


@pytest.mark.slow
@pytest.mark.parametrize("mass_msunh", [1e11, 3e11, 1e12])
def test_the_guessed_number_of_haloes_is_near_tinkers(tmp_path: Path, mass_msunh: float) -> None:
    pytest.importorskip("colossus")
    import numpy as np
    from colossus.cosmology import cosmology
    from colossus.lss import mass_function

    from muster.mocks.campaign.estimate_size import GALAXIES_PER_HALO

    campaign = make_campaign(
        tmp_path,
        ("box_size_mpch: 50", "box_size_mpch: 100"),
        ("  galaxy_model", f"  min_mass_msunh: {mass_msunh:g}\n  galaxy_model"),
    )
    guessed = estimate_size(campaign).galaxies_per_catalogue
    assert guessed is not None
    cosmology.setCosmology("planck18", persistence="")
    masses = np.logspace(np.log10(mass_msunh), 16, 400)
    density = mass_function.massFunction(masses, 0.5, mdef="200m", model="tinker08", q_out="dndlnM")
    expected = np.trapezoid(density, np.log(masses)) * 100.0**3 * GALAXIES_PER_HALO
    assert 0.7 < guessed / expected < 1.4
