"""Statistics of an ensemble of boxes: means, bands, covariance, and whether they can be trusted.

One statistic is in memory at a time, of all boxes.  The covariance is that of two passes (mean
first), the inverse is unbiased by Hartlap's factor (Hartlap, Simon & Schneider 2007, A&A 464, 399).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.counts import count_of
from muster.mocks.qa.bins import HALO_MASS, SFR, STELLAR_MASS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from muster.mocks.qa.bins import FloatArray
    from muster.mocks.qa.collect import CampaignStatistics

QUANTILES = (0.025, 0.16, 0.84, 0.975)
"""Of the bands that hold 95 and 68 % of the boxes: outer, inner, inner, outer."""


@dataclass(frozen=True)
class Statistic:
    """One statistic of an ensemble: how an array of the catalogues becomes a vector a box.

    Attributes
    ----------
    name : str
        In summaries and file names.
    column : str
        Array of the catalogues' statistics.
    title, x_label, y_label : str
        For people, with units.
    x : array or None
        Where the values are; None where the catalogues say it themselves (k).
    per_volume : float
        A count over the volume and this is the value; 0 for what is none.
    log_x : bool
        Whether x is shown on a logarithmic axis.
    """

    name: str
    column: str
    title: str
    x_label: str
    y_label: str
    x: FloatArray | None
    per_volume: float
    log_x: bool = False

    def scale(self, box_size_mpch: float) -> float:
        """Return what turns a value of the column into one of the statistic."""
        return 1.0 / (box_size_mpch**3 * self.per_volume) if self.per_volume else 1.0


_DENSITY = "(h/Mpc)³"
STATISTICS: tuple[Statistic, ...] = (
    Statistic(
        "power", "power_mpch3", "Power spectrum of galaxies, monopole", "k [h/Mpc]",
        "P(k) [(Mpc/h)³]", None, 0.0, log_x=True,
    ),
    Statistic(
        "halo_mass_function", "halo_counts", "Halo mass function", HALO_MASS.unit,
        f"dn/dlog10M [{_DENSITY}/dex]", HALO_MASS.centres, HALO_MASS.width,
    ),
    Statistic(
        "stellar_mass_function", "stellar_counts", "Stellar mass function", STELLAR_MASS.unit,
        f"dn/dlog10M* [{_DENSITY}/dex]", STELLAR_MASS.centres, STELLAR_MASS.width,
    ),
    Statistic(
        "sfr_function", "sfr_cumulative", "Galaxies above a star-formation rate", SFR.unit,
        f"n(>SFR) [{_DENSITY}]", SFR.edges[:-1], 1.0,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Covariance:
    """Covariance of p bins over N boxes, and its inverse.

    Attributes
    ----------
    bins : array of int, shape (p,)
        The bins, those that vary at all.
    boxes : int
        N.
    covariance, correlation : array, shape (p, p)
        Unbiased (N − 1); NaN for fewer than two boxes.
    precision : array, shape (p, p), or None
        Inverse of the covariance times ``hartlap``; None where there is no inverse.
    hartlap : float or None
        (N − p − 2)/(N − 1), where N > p + 2.
    rank : int
        Of the correlation matrix.
    warnings : tuple of str
        Why there is no inverse.
    """

    bins: NDArray[np.int64]
    boxes: int
    covariance: FloatArray
    correlation: FloatArray
    precision: FloatArray | None
    hartlap: float | None
    rank: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class EnsembleStatistic:
    """One statistic of the boxes of one redshift.

    Attributes
    ----------
    statistic : Statistic
    redshift : float
    boxes : int
        N.
    x, mean : array, shape (bins,)
    quantiles : array, shape (4, bins)
        At :data:`QUANTILES`.
    covariance : Covariance
    gaussian_ratio : float or None
        Of the power spectrum: mean over its shells of variance over 2P²/N_k, which is 1 for a
        Gaussian field (N_k counts k and −k).
    warnings : tuple of str
    """

    statistic: Statistic
    redshift: float
    boxes: int
    x: FloatArray
    mean: FloatArray
    quantiles: FloatArray
    covariance: Covariance
    gaussian_ratio: float | None
    warnings: tuple[str, ...]


def hartlap_factor(boxes: int, bins: int) -> float | None:
    """Return (N − p − 2)/(N − 1), or None where N ≤ p + 2: then no inverse is unbiased."""
    return (boxes - bins - 2) / (boxes - 1) if boxes > bins + 2 else None


def estimate_covariance(values: FloatArray) -> Covariance:
    """Estimate the covariance of bins over boxes, and its unbiased inverse.

    Parameters
    ----------
    values : array, shape (N, bins)
        A row a box; finite.

    Returns
    -------
    Covariance
        Of the bins that vary; with warnings where there is no inverse.
    """
    boxes = len(values)
    if boxes < 2:
        nothing = np.full((0, 0), np.nan)
        none = np.zeros(0, np.int64)
        said = (f"{count_of(boxes, 'box', 'boxes')}: a covariance needs 2",)
        return Covariance(none, boxes, nothing, nothing, None, None, 0, said)
    bins = np.flatnonzero(np.ptp(values, axis=0) > 0)
    centred = values[:, bins] - values[:, bins].mean(axis=0)
    covariance = centred.T @ centred / (boxes - 1)
    sigma = np.sqrt(np.diag(covariance))
    correlation = np.clip(covariance / np.outer(sigma, sigma), -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    rank = int(np.linalg.matrix_rank(correlation, hermitian=True)) if len(bins) else 0
    hartlap = hartlap_factor(boxes, len(bins))
    warnings = []
    if hartlap is None:
        warnings.append(f"{boxes} boxes for {len(bins)} bins: an inverse needs more than p + 2")
    if rank < len(bins):
        warnings.append(f"the covariance has rank {rank} of {len(bins)}: it has no inverse")
    precision = None
    if not warnings and len(bins):
        # Correlations are inverted, as variances differ by many orders of magnitude.
        precision = hartlap * np.linalg.inv(correlation) / np.outer(sigma, sigma)
    return Covariance(
        bins, boxes, covariance, correlation, precision, hartlap, rank, tuple(warnings)
    )


def summarise(
    statistic: Statistic,
    redshift: float,
    values: NDArray[Any],
    *,
    box_size_mpch: float,
    k_hmpc: FloatArray | None = None,
    modes: NDArray[Any] | None = None,
) -> EnsembleStatistic:
    """Summarise one statistic of the boxes of one redshift.

    Parameters
    ----------
    statistic : Statistic
        Which.
    redshift : float
        Of the boxes.
    values : array, shape (N, bins)
        As the catalogues' statistics hold them.  Boxes with a value that is not finite (the power
        spectrum of no galaxies) are left out, with a warning.
    box_size_mpch : float
        Side of the boxes.
    k_hmpc, modes : array, shape (bins,), optional
        Of the power spectrum: mean |k|, and N_k.

    Returns
    -------
    EnsembleStatistic
        With NaN where there is no box.
    """
    finite = np.isfinite(values).all(axis=1)
    vectors = values[finite].astype(np.float64) * statistic.scale(box_size_mpch)
    bins = values.shape[1]
    warnings = []
    if not finite.all():
        left = count_of(int((~finite).sum()), "box", "boxes")
        warnings.append(f"left out: {left} without galaxies")
    covariance = estimate_covariance(vectors)
    x = statistic.x if statistic.x is not None else k_hmpc
    mean = vectors.mean(axis=0) if len(vectors) else np.full(bins, np.nan)
    ratio = None
    if modes is not None and len(covariance.bins):
        used = covariance.bins
        gaussian = 2 * mean[used] ** 2 / modes[used]
        ratio = float(np.mean(np.diag(covariance.covariance) / gaussian))
    return EnsembleStatistic(
        statistic=statistic,
        redshift=redshift,
        boxes=len(vectors),
        x=np.arange(bins, dtype=np.float64) if x is None else x,
        mean=mean,
        quantiles=(
            np.quantile(vectors, QUANTILES, axis=0)
            if len(vectors)
            else np.full((len(QUANTILES), bins), np.nan)
        ),
        covariance=covariance,
        gaussian_ratio=ratio,
        warnings=(*warnings, *covariance.warnings),
    )


def summarise_campaign(
    campaign: CampaignStatistics,
    visit: Callable[[EnsembleStatistic, NDArray[np.int64], NDArray[Any]], None] | None = None,
) -> list[EnsembleStatistic]:
    """Summarise every statistic at every redshift of a campaign.

    Parameters
    ----------
    campaign : CampaignStatistics
        See :func:`muster.mocks.qa.collect.read_campaign`.
    visit : callable, optional
        Given each statistic, the numbers of its catalogues and their values as stored, so that
        others (outliers) need not read them again.

    Returns
    -------
    list of EnsembleStatistic
        By statistic, then redshift.
    """
    if not len(campaign):
        return []
    found = []
    for statistic in STATISTICS:
        values = campaign.read(statistic.column)
        k_hmpc, modes = _read_shells(campaign) if statistic.x is None else (None, None)
        for redshift in campaign.redshifts:
            mine = campaign.at(redshift)
            of_redshift = summarise(
                statistic,
                redshift,
                values[mine],
                box_size_mpch=campaign.box_size_mpch,
                k_hmpc=k_hmpc,
                modes=modes,
            )
            found.append(of_redshift)
            if visit is not None:
                visit(of_redshift, mine, values[mine])
    return found


def average_histogram(campaign: CampaignStatistics, name: str) -> dict[float, FloatArray]:
    """Return the mean over boxes of a two-dimensional histogram, by redshift."""
    sums: dict[float, FloatArray] = {}
    for mine, columns in campaign.read_parts(name):
        for redshift in np.unique(campaign.redshift[mine]):
            part = columns[name][campaign.redshift[mine] == redshift].sum(axis=0, dtype=np.float64)
            sums[float(redshift)] = sums.get(float(redshift), 0.0) + part
    return {z: sums[z] / len(campaign.at(z)) for z in campaign.redshifts}


def _read_shells(campaign: CampaignStatistics) -> tuple[FloatArray, NDArray[np.int64]]:
    """Read the shells of one box; all boxes of one size have the same."""
    _, columns = next(campaign.read_parts("power_k_hmpc", "power_modes"))
    return columns["power_k_hmpc"][0], columns["power_modes"][0]
