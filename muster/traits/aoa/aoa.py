"""The area of applicability: where a model may be believed, by the distance to what it has seen.

The method is that of Meyer & Pebesma (2021, Methods in Ecology and Evolution 12, 1620-1633), with
the local point density of Schumacher et al. (2024), as the R package CAST 1.1.0 computes them;
tests compare every pixel with CAST's own output.  Arrays in, arrays out; the step at the end reads
and writes rasters window by window.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import InvalidInput
from muster.model.step import StepContext
from muster.raster.grid import Band
from muster.traits.aoa.neighbours import (
    FloatArray,
    IntArray,
    Nearness,
    Neighbours,
    check_engine,
    distances,
    open_neighbours,
    single_threaded_blas,
    summarise_pairs,
)
from muster.traits.band_raster import AOA_DESCRIPTION, BandRaster, write_band_raster
from muster.traits.bundle.bundle import read_bundle
from muster.traits.bundle.training_table import NEVER_HELD_OUT, read_training_table

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class AreaOfApplicability:
    """A training set's dissimilarity index, and the threshold up to which a model applies.

    Attributes
    ----------
    mean, sd : ndarray, (predictor,), float64
        Of the training plots, sd with ddof=1, in the predictors' own units.
    weights : ndarray, (predictor,), float64
        Importance with negatives set to zero; predictors of weight zero play no part.
    folds : ndarray, (plot,), int64
        Which plots were held out together; -1 for never.
    mean_training_distance : float
        Mean distance of all pairs of plots in the weighted, standardised space.
    train_di : ndarray, (plot,), float64
        Dissimilarity index of each plot to the plots outside its fold; NaN for one never held out.
    threshold : float
        min(Q75 + 1.5 IQR, max) of the training DI, quantiles of type 7.
    neighbours : Neighbours
        The plots in the weighted, standardised space.
    """

    mean: FloatArray
    sd: FloatArray
    weights: FloatArray
    folds: IntArray
    mean_training_distance: float
    train_di: FloatArray
    threshold: float
    neighbours: Neighbours

    def dissimilarity(self, pixels: FloatArray) -> FloatArray:
        """Dissimilarity index of pixels.

        Parameters
        ----------
        pixels : ndarray, (pixel, predictor), float64
            In the predictors' own units; NaN where a predictor is missing.

        Returns
        -------
        ndarray, (pixel,), float64
            Distance to the nearest plot over the mean training distance: 0 for a duplicate of a
            plot, NaN where any predictor is missing.  Inside means ``<= threshold``.
        """
        valid = np.isfinite(pixels).all(axis=1)
        index = np.full(len(pixels), np.nan)
        index[valid] = self.neighbours.nearest(self._scale(pixels[valid]))
        return index / self.mean_training_distance

    def local_point_density(self, pixels: FloatArray) -> IntArray:
        """Count the plots nearer to each pixel than the threshold.

        Parameters
        ----------
        pixels : ndarray, (pixel, predictor), float64
            In the predictors' own units; NaN where a predictor is missing.

        Returns
        -------
        ndarray, (pixel,), int64
            From 0; -1 where any predictor is missing.
        """
        return self.dissimilarity_and_density(pixels)[1]

    def dissimilarity_and_density(self, pixels: FloatArray) -> tuple[FloatArray, IntArray]:
        """Both in one search, which costs little more than the dissimilarity index alone.

        Parameters
        ----------
        pixels : ndarray, (pixel, predictor), float64
            In the predictors' own units; NaN where a predictor is missing.

        Returns
        -------
        index : ndarray, (pixel,), float64
            As :meth:`dissimilarity`.
        density : ndarray, (pixel,), int64
            As :meth:`local_point_density`.
        """
        valid = np.isfinite(pixels).all(axis=1)
        index = np.full(len(pixels), np.nan)
        density = np.full(len(pixels), -1, dtype=np.int64)
        index[valid], density[valid] = self.neighbours.nearest_and_count(
            self._scale(pixels[valid]), self._near
        )
        return index / self.mean_training_distance, density

    def training_local_point_density(self) -> IntArray:
        """Count, for each plot, the plots of other folds nearer than the threshold.

        Returns
        -------
        ndarray, (plot,), int64
            From 0; -1 for a plot that was never held out.
        """
        points = self.neighbours.points
        density = np.full(len(points), -1, dtype=np.int64)
        for i in np.flatnonzero(self.folds != NEVER_HELD_OUT):
            others = points[self.folds != self.folds[i]]
            density[i] = np.count_nonzero(self._near.holds(distances(points[i], others)))
        return density

    @property
    def _near(self) -> Nearness:
        return Nearness(self.mean_training_distance, self.threshold)

    def _scale(self, values: FloatArray) -> FloatArray:
        return scale_predictors(values, self.mean, self.sd, self.weights)


def fit_aoa(
    training: FloatArray,
    weights: FloatArray,
    folds: IntArray,
    *,
    names: Sequence[str] | None = None,
    threads: int = 1,
    engine: str = "auto",
) -> AreaOfApplicability:
    """Learn the area of applicability from the plots that a model was trained on.

    Parameters
    ----------
    training : ndarray, (plot, predictor), float64
        Predictor values in their own units, finite.
    weights : ndarray, (predictor,), float64
        Importance of the predictors; negatives count as zero.
    folds : ndarray, (plot,), int
        Which plots were held out together, -1 for never.  Without cross-validation each plot is
        a fold of its own.
    names : sequence of str, optional
        The predictors' names, for messages.
    threads : int
        Threads to learn with; pixels are asked about by whichever threads there are.
    engine : str
        As :func:`muster.traits.aoa.neighbours.open_neighbours` takes it; no result depends on it.

    Returns
    -------
    AreaOfApplicability
        Ready for pixels.

    Raises
    ------
    InvalidInput
        When no weight is positive, a weighted predictor does not vary, a value is missing, no plot
        was held out with another left to compare it to, or all plots are alike.
    ConfigError
        When there is no such engine, or it cannot be used here.
    """
    engine = check_engine(engine)
    training = np.ascontiguousarray(training, dtype=np.float64)
    positive = np.maximum(np.asarray(weights, dtype=np.float64), 0.0)
    groups = np.asarray(folds, dtype=np.int64)
    labels = list(names) if names is not None else [f"#{i}" for i in range(len(positive))]
    problems = check_training(training, positive, groups, labels)
    if problems:
        raise InvalidInput(
            "no area of applicability can be learnt from these plots",
            got="; ".join(problems),
            do="look at the training table and the importance in the model bundle",
        )
    mean = training.mean(axis=0)
    sd = training.std(axis=0, ddof=1)
    scaled = scale_predictors(training, mean, sd, positive)
    pairs = summarise_pairs(scaled, groups, threads=threads)
    if not pairs.mean_distance > 0:
        raise InvalidInput(
            "no area of applicability can be learnt from these plots", got="all plots are alike"
        )
    train_di = pairs.nearest / pairs.mean_distance
    train_di[groups == NEVER_HELD_OUT] = np.nan
    known = train_di[np.isfinite(train_di)]
    lower, upper = np.quantile(known, [0.25, 0.75])
    return AreaOfApplicability(
        mean=mean,
        sd=sd,
        weights=positive,
        folds=groups,
        mean_training_distance=pairs.mean_distance,
        train_di=train_di,
        threshold=float(min(upper + 1.5 * (upper - lower), known.max())),
        neighbours=open_neighbours(scaled, engine=engine),
    )


def check_training(
    training: FloatArray, weights: FloatArray, folds: IntArray, names: Sequence[str]
) -> list[str]:
    """List, in sentences, why plots cannot give an area of applicability.

    Parameters
    ----------
    training : ndarray, (plot, predictor), float64
        Predictor values.
    weights : ndarray, (predictor,), float64
        Not negative.
    folds : ndarray, (plot,), int
        -1 for never held out.
    names : sequence of str
        The predictors' names.
    """
    problems = []
    if len(training) < 2:
        return [f"{len(training)} plots, where at least two are needed"]
    if not np.isfinite(training).all():
        problems.append("predictor values are missing")
    if not np.isfinite(weights).all() or not (weights > 0).any():
        problems.append(
            "no predictor has an importance above zero, so that none says what is similar"
        )
    used = np.flatnonzero(weights > 0)
    constant = [names[int(i)] for i in used if np.ptp(training[:, i]) == 0]
    if constant:
        problems.append(f"predictors do not vary among the plots: {', '.join(constant)}")
    if not (folds != NEVER_HELD_OUT).any():
        problems.append("no plot was ever held out, so that there is no training dissimilarity")
    elif (folds == folds[0]).all():
        problems.append("all plots are in one fold, so that there is nothing to compare them with")
    return problems


def scale_predictors(
    values: FloatArray, mean: FloatArray, sd: FloatArray, weights: FloatArray
) -> FloatArray:
    """Bring predictors into the space that distances are measured in.

    Parameters
    ----------
    values : ndarray, (row, predictor), float64
        In the predictors' own units.
    mean, sd, weights : ndarray, (predictor,), float64
        As in :class:`AreaOfApplicability`.

    Returns
    -------
    ndarray, (row, weighted predictor), float64
        Standardised and weighted; predictors of weight zero are left out.
    """
    used = weights > 0
    return np.ascontiguousarray((values[:, used] - mean[used]) / sd[used] * weights[used])


def calculate_aoa_trait(
    *,
    bundle: str,
    predictors: list[str],
    aoa: Path,
    local_point_density: bool = False,
    fingerprint: str = "",
    window_px: int | None = None,
    engine: str = "auto",
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Map the dissimilarity index of a trait's predictors and the area where its model applies.

    Parameters
    ----------
    bundle : str
        URI of the model bundle; its training table and importance are used.
    predictors : list of str
        URIs of the predictor rasters, matched to the model by band name.
    aoa : Path
        The band raster to write: dissimilarity index, area of applicability (1 inside, 0
        outside), and the local point density where asked for; nodata where any predictor is.
    local_point_density : bool
        Whether to count the plots near each pixel as well.
    fingerprint : str
        Of everything that the raster is made from; recorded in it.
    window_px : int, optional
        Longest side of a window, in pixels; the result does not depend on it.
    engine : str
        Which engine finds the nearest plots (``auto``, or one of
        :data:`muster.traits.engine_names.AOA_ENGINES`); the result does not depend on it.
    context : StepContext
        Threads, memory, scratch folder, progress.

    Returns
    -------
    dict
        As :func:`muster.traits.band_raster.write_band_raster`, and ``threshold``,
        ``mean_training_distance``, ``plots``, ``pixels_inside``, ``engine``.

    Raises
    ------
    InvalidInput
        When bundle, predictors or output are wrong, or the plots give no area of applicability.
    ConfigError
        When there is no such engine, or it cannot be used here.
    MissingInput
        When bundle or predictors are not there.
    Transient
        When there is no space, or the network failed.
    """
    model = read_bundle(bundle, context.scratch)
    table = read_training_table(model.training_path, model.predictors)
    area = fit_aoa(
        table.values,
        np.array(model.importance),
        table.fold.astype(np.int64),
        names=model.predictors,
        threads=context.threads,
        engine=engine,
    )
    inside = 0
    counting = Lock()

    def compute(values: FloatArray) -> FloatArray:
        nonlocal inside
        density = []
        if local_point_density:
            index, counts = area.dissimilarity_and_density(values)
            density.append(counts.astype(np.float64))
        else:
            index = area.dissimilarity(values)
        applies = index <= area.threshold
        with counting:
            inside += int(np.count_nonzero(applies))
        return np.stack([index, applies.astype(np.float64), *density])

    bands = [Band("dissimilarity index", unit="1"), Band(AOA_DESCRIPTION, unit="1")]
    if local_point_density:
        bands.append(Band("local point density", unit="plots"))
    used = int(np.count_nonzero(area.weights > 0))
    stage = BandRaster(aoa, tuple(bands), fingerprint, work_values=3 * used + 8)
    with single_threaded_blas():
        facts = write_band_raster(
            stage, compute, predictors, model.predictors, window_px=window_px, context=context
        )
    return {
        **facts,
        "threshold": area.threshold,
        "mean_training_distance": area.mean_training_distance,
        "plots": len(table.target),
        "pixels_inside": inside,
        "engine": area.neighbours.engine,
    }
