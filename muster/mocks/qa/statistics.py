"""Statistics of one catalogue: small enough to keep of every box, and enough to judge an ensemble.

They are taken while the galaxies are in memory and lie in the catalogue's own file, so that nobody
has to open 40,000 catalogues again.  Arrays that are read back are checked as strictly as any other
file's: :func:`find_bad_rows` says of many catalogues at once which of them cannot be.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import InvalidInput
from muster.mocks.errors import ModelError
from muster.mocks.qa.bins import (
    COARSE_HALO_MASS,
    COARSE_SFR,
    COARSE_STELLAR_MASS,
    COUNTS,
    FIELDS,
    HALO_MASS,
    SFR,
    STELLAR_MASS,
    VERSION,
)
from muster.mocks.qa.power import count_modes, measure_power

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from muster.mocks.galaxies.catalog import GalaxyCatalog
    from muster.mocks.halos.catalog import HaloCatalog
    from muster.mocks.qa.bins import Bins, FloatArray, IntArray

CENTRAL = -1
"""``upid`` of a central galaxy."""

_SINGLE = frozenset({"box_size_mpch", "redshift", "shot_noise_mpch3"})
NEEDED = ("logsm_t_obs", "logssfr_t_obs", "upid")
"""Properties of galaxies that statistics are computed from."""


@dataclass(frozen=True)
class CatalogueStatistics:
    """Statistics of one catalogue; bins and units are those of :mod:`muster.mocks.qa.bins`.

    Attributes
    ----------
    box_size_mpch, redshift : float
        Of the box.
    counts : array of int64, shape (4,)
        Number of haloes, galaxies, central and satellite galaxies.
    halo_counts : array of int64, shape (60,)
        Haloes by log10 mass.
    stellar_counts : array of int64, shape (70,)
        Galaxies by log10 stellar mass.
    sfr_cumulative : array of int64, shape (86,)
        Galaxies with a star-formation rate above each threshold.
    halo_stellar : array of int64, shape (24, 28)
        Galaxies by mass of their halo and stellar mass.
    stellar_sfr : array of int64, shape (28, 34)
        Galaxies by stellar mass and star-formation rate.
    power_k_hmpc, power_mpch3 : array of float64, shape (16,)
        Mean |k| in h/Mpc, and P(k) in (Mpc/h)³ with its shot noise; NaN without galaxies.
    power_modes : array of int64, shape (16,)
        N_k, k and −k both counted.
    shot_noise_mpch3 : float
        Volume over number of galaxies; NaN without galaxies.
    """

    box_size_mpch: float
    redshift: float
    counts: IntArray
    halo_counts: IntArray
    stellar_counts: IntArray
    sfr_cumulative: IntArray
    halo_stellar: IntArray
    stellar_sfr: IntArray
    power_k_hmpc: FloatArray
    power_mpch3: FloatArray
    power_modes: IntArray
    shot_noise_mpch3: float

    @property
    def halos(self) -> int:
        """Number of haloes."""
        return int(self.counts[0])

    @property
    def galaxies(self) -> int:
        """Number of galaxies."""
        return int(self.counts[1])

    @property
    def centrals(self) -> int:
        """Number of central galaxies."""
        return int(self.counts[2])

    @property
    def satellites(self) -> int:
        """Number of satellite galaxies."""
        return int(self.counts[3])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, as a file holds them (at most 64 KB together)."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        values["version"] = VERSION
        return {
            field.name: np.array(values[field.name], field.kind).reshape(field.shape)
            for field in FIELDS
        }

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], where: object = None
    ) -> CatalogueStatistics:
        """Make them from arrays of a file, which may hold anything.

        Parameters
        ----------
        arrays : mapping of str to array
            As :meth:`to_arrays` gives them.
        where : object, optional
            Their file, for the message.

        Raises
        ------
        InvalidInput
            When a name, type, shape or value is not what it should be.
        """
        values = check_arrays(arrays, where)
        problem = find_bad_rows({name: value[None] for name, value in values.items()})
        if problem:
            raise InvalidInput(
                "statistics cannot be true",
                where=where,
                got=problem[0],
                do="make the catalogue again",
            )
        given: dict[str, Any] = {
            name: float(value[0]) if name in _SINGLE else value
            for name, value in values.items()
            if name != "version"
        }
        return cls(**given)


def compute_statistics(
    galaxies: GalaxyCatalog, halos: HaloCatalog, *, workers: int = 1
) -> CatalogueStatistics:
    """Compute the statistics of a box.

    Parameters
    ----------
    galaxies : GalaxyCatalog
        Of the whole box, with ``logsm_t_obs``, ``logssfr_t_obs`` and ``upid``.
    halos : HaloCatalog
        That the galaxies were made from.
    workers : int
        Threads of the power spectrum, whose values do not depend on them.

    Returns
    -------
    CatalogueStatistics
        Values outside the bins are in no bin; counts hold them.

    Raises
    ------
    ModelError
        When the galaxies lack a property, name haloes that there are not, or have positions that
        are not finite.
    """
    _check_galaxies(galaxies, len(halos))
    box_size_mpch = float(halos.metadata.box_size_mpch)
    with np.errstate(divide="ignore"):
        log_halo_mass = np.log10(np.asarray(halos.masses, np.float64))
    log_stellar_mass = np.asarray(galaxies.properties["logsm_t_obs"])
    log_sfr = log_stellar_mass + galaxies.properties["logssfr_t_obs"]
    coarse_halo = COARSE_HALO_MASS.find(log_halo_mass)[galaxies.parent_halos]
    coarse_stellar = COARSE_STELLAR_MASS.find(log_stellar_mass)
    centrals = int(np.count_nonzero(np.asarray(galaxies.properties["upid"]) == CENTRAL))
    power = measure_power(galaxies.positions, box_size_mpch, workers=workers)
    return CatalogueStatistics(
        box_size_mpch=box_size_mpch,
        redshift=float(halos.metadata.redshift),
        counts=np.array([len(halos), len(galaxies), centrals, len(galaxies) - centrals]),
        halo_counts=_count(HALO_MASS, log_halo_mass),
        stellar_counts=_count(STELLAR_MASS, log_stellar_mass),
        sfr_cumulative=_count_above(SFR, log_sfr),
        halo_stellar=_count_pairs(
            (COARSE_HALO_MASS, coarse_halo), (COARSE_STELLAR_MASS, coarse_stellar)
        ),
        stellar_sfr=_count_pairs(
            (COARSE_STELLAR_MASS, coarse_stellar), (COARSE_SFR, COARSE_SFR.find(log_sfr))
        ),
        power_k_hmpc=power.k_hmpc,
        power_mpch3=power.power_mpch3,
        power_modes=power.modes,
        shot_noise_mpch3=power.shot_noise_mpch3,
    )


def _check_galaxies(galaxies: GalaxyCatalog, n_halos: int) -> None:
    lacking = [name for name in NEEDED if name not in galaxies.properties]
    if lacking:
        raise ModelError(
            "galaxies lack what their statistics need",
            got=f"no {', '.join(lacking)}",
            expected=", ".join(NEEDED),
            do="mend the galaxy model: it makes these",
        )
    parents = galaxies.parent_halos
    if len(parents) and not (parents.min() >= 0 and parents.max() < n_halos):
        raise ModelError(
            "galaxies lie in haloes that there are not",
            got=f"halo {parents.min()} to {parents.max()}",
            expected=f"0 to {n_halos - 1}",
            do="mend the galaxy model: parent_halos counts in the haloes that it was given",
        )
    if not np.isfinite(galaxies.positions).all():
        raise ModelError("positions of galaxies are not finite", do="mend the galaxy model")


def _count(bins: Bins, values: NDArray[Any]) -> IntArray:
    found = bins.find(values)
    return np.bincount(found[found >= 0], minlength=bins.count).astype(np.int64)


def _count_above(bins: Bins, values: NDArray[Any]) -> IntArray:
    """Count the values above each lower edge; NaN is above none."""
    ordered = np.sort(values[~np.isnan(values)])
    return len(ordered) - np.searchsorted(ordered, bins.edges[:-1], side="right").astype(np.int64)


def _count_pairs(
    rows: tuple[Bins, NDArray[np.int32]], columns: tuple[Bins, NDArray[np.int32]]
) -> IntArray:
    shape = (rows[0].count, columns[0].count)
    inside = (rows[1] >= 0) & (columns[1] >= 0)
    places = rows[1][inside] * shape[1] + columns[1][inside]
    return np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)


def check_arrays(
    arrays: Mapping[str, NDArray[Any]], where: object = None
) -> dict[str, NDArray[Any]]:
    """Check names, version, types and shapes of arrays of a file; values are not looked at.

    Raises
    ------
    InvalidInput
        When one is not as :mod:`muster.mocks.qa.bins` says.
    """
    names = {field.name for field in FIELDS}
    if set(arrays) != names:
        raise InvalidInput(
            "statistics have other arrays",
            where=where,
            got=f"without {sorted(names - set(arrays))}, beside {sorted(set(arrays) - names)[:10]}",
            expected=", ".join(sorted(names)),
            do="make the catalogue again with this version of Muster",
        )
    values = {}
    for field in FIELDS:
        value = arrays[field.name]
        got = f"{getattr(value, 'dtype', type(value).__name__)} {getattr(value, 'shape', '')}"
        if not isinstance(value, np.ndarray) or got != f"{field.kind} {field.shape}":
            raise InvalidInput(
                f"{field.name} of the statistics is of another kind",
                where=where,
                got=got,
                expected=f"{field.kind} {field.shape}",
                do="make the catalogue again with this version of Muster",
            )
        values[field.name] = value
    if values["version"][0] != VERSION:
        raise InvalidInput(
            "statistics of another version",
            where=where,
            got=int(values["version"][0]),
            expected=VERSION,
            do="make the catalogue again, or read it with the Muster that made it",
        )
    return values


def find_bad_rows(rows: Mapping[str, NDArray[Any]]) -> dict[int, str]:
    """Find statistics that no catalogue can have.

    Parameters
    ----------
    rows : mapping of str to array, (rows, …)
        Every array of many catalogues, one row each, of the right types and shapes.

    Returns
    -------
    dict of int to str
        Number of a row → what is wrong with it first; empty where all can be true.
    """
    with np.errstate(all="ignore"):  # hostile values overflow
        checks = _check_rows(rows)
    found: dict[int, str] = {}
    for problem, good in checks:
        for row in np.flatnonzero(~good):
            found.setdefault(int(row), problem)
    return found


def _check_rows(rows: Mapping[str, NDArray[Any]]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return what may be wrong, and for each row whether it is right."""
    n_halos, n_galaxies, n_centrals, n_satellites = (
        rows["counts"][:, number] for number in range(len(COUNTS))
    )
    volume = rows["box_size_mpch"][:, 0] ** 3
    empty = n_galaxies == 0
    cumulative = rows["sfr_cumulative"]
    power, shot_noise = rows["power_mpch3"], rows["shot_noise_mpch3"][:, 0]
    counted = [field.name for field in FIELDS if field.kind == "int64"]
    return [
        ("version", rows["version"][:, 0] == VERSION),
        ("box_size_mpch is no length", _is_between(rows["box_size_mpch"][:, 0], 1e-3, 1e6)),
        ("redshift is none", _is_between(rows["redshift"][:, 0], -1e-3, 1e4)),
        *((f"{name} holds a negative number", _all(rows[name] >= 0)) for name in counted),
        ("centrals and satellites are not all galaxies", n_centrals + n_satellites == n_galaxies),
        ("halo_counts holds more haloes than there are", _total(rows["halo_counts"]) <= n_halos),
        *(
            (f"{name} holds more galaxies than there are", _total(rows[name]) <= n_galaxies)
            for name in ("stellar_counts", "halo_stellar", "stellar_sfr")
        ),
        ("sfr_cumulative rises", _all(np.diff(cumulative) <= 0)),
        ("sfr_cumulative holds more galaxies than there are", cumulative[:, 0] <= n_galaxies),
        ("power_modes are not those of the shells", _all(rows["power_modes"] == count_modes())),
        ("power_k_hmpc does not rise from 0", _rises(rows["power_k_hmpc"])),
        ("power_mpch3 is not finite", _all(np.isfinite(power)) | empty),
        ("power_mpch3 of no galaxies", _all(np.isnan(power)) | ~empty),
        (
            "shot_noise_mpch3 is not volume over number",
            np.where(
                empty, np.isnan(shot_noise), np.isclose(shot_noise * n_galaxies, volume, rtol=1e-6)
            ),
        ),
    ]


def _all(good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    every: NDArray[np.bool_] = np.all(good, axis=tuple(range(1, good.ndim)))
    return every


def _total(counts: IntArray) -> FloatArray:
    # As floating point: a sum of hostile counts must not wrap to a small one.
    total: FloatArray = counts.sum(axis=tuple(range(1, counts.ndim)), dtype=np.float64)
    return total


def _is_between(values: FloatArray, low: float, high: float) -> NDArray[np.bool_]:
    return (values >= low) & (values <= high)


def _rises(k_hmpc: FloatArray) -> NDArray[np.bool_]:
    return _all(np.isfinite(k_hmpc)) & _all(np.diff(k_hmpc, prepend=0.0) > 0)
