"""Statistics of a catalogue against brute force, and arrays of files that cannot be true."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import InvalidInput
from muster.mocks.errors import ModelError
from muster.mocks.galaxies.catalog import GalaxyCatalog
from muster.mocks.halos.catalog import Cosmology, HaloCatalog, HaloMetadata
from muster.mocks.qa import bins
from muster.mocks.qa.statistics import CatalogueStatistics, compute_statistics
from tests.hypothesis_profiles import examples
from tests.unit.mocks.qa.made_statistics import draw

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

COSMOLOGY = Cosmology(h=0.6736, omega_m=0.3152, omega_b=0.0493, sigma8=0.808, n_s=0.9649)


def make_box(
    n_halos: int, n_galaxies: int, seed: int = 0, box_size_mpch: float = 50.0
) -> tuple[GalaxyCatalog, HaloCatalog]:
    rng = np.random.default_rng(seed)
    halos = HaloCatalog(
        positions=rng.uniform(0, box_size_mpch, (n_halos, 3)).astype(np.float32),
        masses=10 ** rng.uniform(9.5, 15.5, n_halos),
        ids=np.arange(n_halos),
        velocities=np.zeros((n_halos, 3), np.float32),
        radii=np.ones(n_halos, np.float32),
        metadata=HaloMetadata("test", box_size_mpch, 1.1, COSMOLOGY),
    )
    parents = rng.integers(0, n_halos, n_galaxies) if n_halos else np.zeros(0, np.int64)
    galaxies = GalaxyCatalog(
        positions=rng.uniform(0, box_size_mpch, (n_galaxies, 3)).astype(np.float32),
        properties={
            "logsm_t_obs": rng.uniform(5.5, 12, n_galaxies).astype(np.float32),
            "logssfr_t_obs": rng.uniform(-14, -8, n_galaxies).astype(np.float32),
            "upid": np.where(rng.random(n_galaxies) < 0.7, -1, parents),
        },
        parent_halos=parents,
    )
    return galaxies, halos


def test_histograms_equal_those_of_numpy() -> None:
    galaxies, halos = make_box(3000, 8000)
    found = compute_statistics(galaxies, halos)
    mass = np.log10(halos.masses)
    stellar = galaxies.properties["logsm_t_obs"].astype(np.float64)
    sfr = (galaxies.properties["logsm_t_obs"] + galaxies.properties["logssfr_t_obs"]).astype(float)
    host = mass[galaxies.parent_halos]

    def pairs(
        x: NDArray[Any], y: NDArray[Any], of_x: bins.Bins, of_y: bins.Bins
    ) -> NDArray[np.float64]:
        return np.histogram2d(x, y, bins=(of_x.edges, of_y.edges))[0]

    for got, values, of in (
        (found.halo_counts, mass, bins.HALO_MASS),
        (found.stellar_counts, stellar, bins.STELLAR_MASS),
    ):
        np.testing.assert_array_equal(got, np.histogram(values, bins=of.edges)[0])
    np.testing.assert_array_equal(
        found.sfr_cumulative, [(sfr > threshold).sum() for threshold in bins.SFR.edges[:-1]]
    )
    np.testing.assert_array_equal(
        found.halo_stellar, pairs(host, stellar, bins.COARSE_HALO_MASS, bins.COARSE_STELLAR_MASS)
    )
    np.testing.assert_array_equal(
        found.stellar_sfr, pairs(stellar, sfr, bins.COARSE_STELLAR_MASS, bins.COARSE_SFR)
    )
    centrals = int((galaxies.properties["upid"] == -1).sum())
    assert found.counts.tolist() == [3000, 8000, centrals, 8000 - centrals]
    assert (found.halos, found.galaxies) == (3000, 8000)
    assert (found.centrals, found.satellites) == (centrals, 8000 - centrals)
    assert (found.box_size_mpch, found.redshift) == (50.0, 1.1)
    assert found.shot_noise_mpch3 == pytest.approx(50**3 / 8000)
    # Galaxies at random: nothing but shot noise.
    mean = np.average(found.power_mpch3, weights=found.power_modes)
    assert mean == pytest.approx(found.shot_noise_mpch3, rel=0.03)


def test_values_on_edges_and_without_a_place() -> None:
    galaxies, halos = make_box(1, 7)
    spoilt = {
        "logsm_t_obs": np.array([10.0, np.nan, -np.inf, np.inf, 5.99, 13.0, 6.0]),
        "logssfr_t_obs": np.array([-10.0, -10.0, -10.0, -10.0, -10.0, -10.0, -11.0]),
        "upid": np.full(7, -1),
    }
    halos = replace(halos, masses=np.array([0.0]))
    found = compute_statistics(replace(galaxies, properties=spoilt), halos)
    # A value on an edge is in the bin above it.
    assert np.flatnonzero(found.stellar_counts).tolist() == [0, 40]
    assert found.stellar_counts.sum() == 2
    assert found.stellar_sfr.sum() == 2
    assert found.stellar_sfr[0, 0] == 1
    assert found.halo_counts.sum() == found.halo_stellar.sum() == 0
    # 0, ∞, −4.01 and 3 lie above −5; −5 itself does not, nor do NaN and −∞.
    assert found.sfr_cumulative[0] == 4
    assert CatalogueStatistics.from_arrays(found.to_arrays()).galaxies == 7


@pytest.mark.parametrize(("n_halos", "n_galaxies"), [(200, 500), (5, 0), (0, 0)])
def test_arrays_are_small_and_give_the_same_again(n_halos: int, n_galaxies: int) -> None:
    found = compute_statistics(*make_box(n_halos, n_galaxies))
    arrays = found.to_arrays()
    assert sum(array.nbytes for array in arrays.values()) <= bins.MOST_BYTES
    assert [(a.dtype, a.shape) for a in arrays.values()] == [
        (np.dtype(field.kind), field.shape) for field in bins.FIELDS
    ]
    again = CatalogueStatistics.from_arrays(arrays)
    for field in fields(found):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(found, field.name))
    assert np.isnan(found.power_mpch3).all() == (n_galaxies == 0)


def test_fields_of_statistics_are_those_of_the_table() -> None:
    names = {field.name for field in fields(CatalogueStatistics)}
    assert {field.name for field in bins.FIELDS} - {"version"} == names
    assert all(field.unit and field.description for field in bins.FIELDS)


def test_galaxies_that_cannot_be_counted_are_the_models_fault() -> None:
    galaxies, halos = make_box(10, 20)
    without = {k: v for k, v in galaxies.properties.items() if k != "upid"}
    with pytest.raises(ModelError, match="no upid"):
        compute_statistics(replace(galaxies, properties=without), halos)
    with pytest.raises(ModelError, match="haloes that there are not; got: halo 10 to 10"):
        compute_statistics(replace(galaxies, parent_halos=np.full(20, 10)), halos)
    with pytest.raises(ModelError, match="not finite"):
        compute_statistics(replace(galaxies, positions=np.full((20, 3), np.nan, np.float32)), halos)


def spoil(name: str, place: int, value: float) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name].flat[place] = value

    return change


def put(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            lambda arrays: arrays.pop("counts"),
            r"where: f\.hdf5; got: without \['counts",
        ),
        (put("more", np.zeros(1)), r"beside \['more'\]"),
        (put("counts", np.zeros(4)), "counts of the statistics is of another kind; .*float64"),
        (put("counts", np.zeros(5, np.int64)), r"got: int64 \(5,\); expected: int64 \(4,\)"),
        (put("counts", np.zeros(4, ">i8")), "got: >i8"),
        (put("counts", [1, 2, 3, 4]), "got: list"),
        (put("counts", np.array([object()] * 4)), "got: object"),
        (put("version", np.array([2])), "another version; .*got: 2; expected: 1"),
        (spoil("box_size_mpch", 0, np.nan), "box_size_mpch is no length"),
        (spoil("box_size_mpch", 0, 1e300), "box_size_mpch is no length"),
        (spoil("box_size_mpch", 0, 50.0), "shot_noise_mpch3 is not volume over number"),
        (spoil("redshift", 0, np.inf), "redshift is none"),
        (spoil("halo_counts", 3, -1), "halo_counts holds a negative number"),
        (spoil("halo_counts", 3, 2**62), "more haloes than there are"),
        (spoil("stellar_counts", 69, 10**6), "stellar_counts holds more galaxies"),
        (spoil("halo_stellar", 5, 10**6), "halo_stellar holds more galaxies"),
        (spoil("stellar_sfr", 5, 2**63 - 1), "stellar_sfr holds more galaxies"),
        (spoil("counts", 2, 0), "centrals and satellites are not all galaxies"),
        (spoil("sfr_cumulative", 0, 10**6), "sfr_cumulative holds more galaxies"),
        (spoil("sfr_cumulative", 85, 10**6), "sfr_cumulative rises"),
        (spoil("power_modes", 0, 40), "power_modes are not those of the shells"),
        (spoil("power_k_hmpc", 2, 0.0), "power_k_hmpc does not rise"),
        (spoil("power_k_hmpc", 15, np.inf), "power_k_hmpc does not rise"),
        (spoil("power_mpch3", 7, np.nan), "power_mpch3 is not finite"),
        (spoil("shot_noise_mpch3", 0, 1.0), "shot_noise_mpch3 is not volume over number"),
    ],
)
def test_arrays_that_no_catalogue_has_are_refused(
    change: Callable[[dict[str, Any]], None], what: str
) -> None:
    arrays = draw(1).to_arrays()
    CatalogueStatistics.from_arrays(arrays, "f.hdf5")
    change(arrays)
    with pytest.raises(InvalidInput, match=what):
        CatalogueStatistics.from_arrays(arrays, "f.hdf5")


def test_no_galaxies_have_no_power() -> None:
    arrays = compute_statistics(*make_box(3, 0)).to_arrays()
    arrays["power_mpch3"][:] = 1.0
    with pytest.raises(InvalidInput, match="power_mpch3 of no galaxies"):
        CatalogueStatistics.from_arrays(arrays)


@examples(200)
@given(data=st.data())
def test_any_value_is_accepted_or_refused_in_a_sentence(data: st.DataObject) -> None:
    arrays = draw(2).to_arrays()
    field = data.draw(st.sampled_from(bins.FIELDS))
    values = st.integers(-(2**63), 2**63 - 1) if field.kind == "int64" else st.floats(width=64)
    place = data.draw(st.integers(0, field.size - 1))
    arrays[field.name].flat[place] = data.draw(values)
    try:
        found = CatalogueStatistics.from_arrays(arrays)
    except InvalidInput:
        return
    assert (found.halo_counts >= 0).all()
    assert found.counts[2] + found.counts[3] == found.counts[1]
    assert np.isfinite(found.power_mpch3).all()
