"""Training: a table of plots becomes a model bundle for each trait.

A bundle needs more than a model: fold models for the coefficient of variation, held-out errors to
say how good it is, held-out importance and the training table for the area of applicability.  All
are made here in one go, from the same plots and the same folds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from muster import storage
from muster.errors import ConfigError, InvalidInput, MusterError
from muster.frozen import Frozen
from muster.model.step import StepContext
from muster.traits.bundle.bundle import BundleContents, write_bundle
from muster.traits.bundle.location import locate_bundle
from muster.traits.bundle.manifest import MANIFEST_NAME
from muster.traits.bundle.training_table import TrainingTable
from muster.traits.bundle.transform import Kind, fit_transform
from muster.traits.lightgbm_alone import lightgbm
from muster.traits.predicting.boosting import choose_parameters, fit_booster, open_booster
from muster.traits.training.blocks import assign_blocks, assign_folds, choose_block_size
from muster.traits.training.importance import IMPORTANCE_METHOD, measure_importance
from muster.traits.training.plot_predictors import PlotPredictors, PredictorSource, take_predictors
from muster.traits.training.plots import Coordinates, PlotTable, read_plots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from muster.traits.aoa.neighbours import FloatArray, IntArray

FEWEST_PLOTS = 20
_FEWEST_PLOTS_A_FOLD = 4


class TrainSettings(Frozen):
    """How models are trained.

    Attributes
    ----------
    transform : {"none", "log", "yeo-johnson"}
        What the target goes through before training.
    fold_count : int
        Number of spatial folds, where there is no fold column.
    block_size : float or None
        Side of a spatial block, in the unit of the plots' coordinates (degrees for lon and lat);
        None chooses one.
    fold_column : str or None
        Column of the plots that says which are held out together; an empty cell is never held out.
    seed : int
        Of the folds, the models and the importance.
    importance_repeats : int
        How often each predictor is shuffled.
    lightgbm : dict
        LightGBM parameters, under their canonical names, that replace the defaults.
    units, descriptions : dict of str to str
        Trait → unit, and a sentence.
    """

    transform: Kind = "none"
    fold_count: Annotated[int, Field(ge=2)] = 5
    block_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    fold_column: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    importance_repeats: Annotated[int, Field(ge=1)] = 5
    lightgbm: dict[str, Any] = {}
    units: dict[str, str] = {}
    descriptions: dict[str, str] = {}


def train_traits(
    plots: Path,
    traits: Sequence[str],
    output: str,
    *,
    source: PredictorSource,
    coordinates: Coordinates | None = None,
    settings: TrainSettings | None = None,
    overwrite: bool = False,
    context: StepContext | None = None,
) -> dict[str, dict[str, Any]]:
    """Train a model bundle for each trait.

    Parameters
    ----------
    plots : Path
        Table of plots (CSV, or Parquet): coordinates, trait columns, perhaps predictor columns.
        A trait's empty cells are left out for that trait.
    traits : sequence of str
        Columns to train on.
    output : str
        Where bundles go, as :func:`muster.traits.bundle.location.locate_bundle` reads it.
    source : PredictorSource
        Where the predictors come from.
    coordinates : Coordinates, optional
        Columns and CRS of the coordinates; ``lon`` and ``lat`` in degrees by default.
    settings : TrainSettings, optional
        How to train.
    overwrite : bool
        Whether bundles that are there may be replaced.
    context : StepContext, optional
        Threads, memory and progress; the seed is that of the settings.

    Returns
    -------
    dict of str to dict
        Trait → bundle's URI, numbers of plots used and dropped, CV metrics.

    Raises
    ------
    InvalidInput
        When the table, the predictors or a trait cannot be used.  Traits that can be are trained
        all the same; the message names those that were not.
    """
    settings = settings or TrainSettings()
    context = context or StepContext()
    columns = coordinates or Coordinates()
    if not traits or len(set(traits)) != len(traits):
        raise ConfigError("traits are none, or named twice", got=", ".join(traits) or "none")
    targets = {trait: locate_bundle(output, trait) for trait in traits}
    _refuse_existing(targets, overwrite)
    table = read_plots(plots)
    table.check_columns(traits, "traits")
    predictors = take_predictors(
        table, source, columns, context, blocks=settings.fold_column is None
    )
    clash = sorted(set(traits) & set(predictors.names))
    if clash:
        raise ConfigError("a trait cannot be its own predictor", got=", ".join(clash))
    trained: dict[str, dict[str, Any]] = {}
    failed: dict[str, MusterError] = {}
    for number, trait in enumerate(traits):
        context.progress(number / len(traits), f"training {trait}")
        try:
            contents = train_trait(trait, table, predictors, settings, threads=context.threads)
        except ConfigError:
            raise  # it would be wrong for every trait
        except InvalidInput as error:
            if len(traits) == 1:
                raise
            failed[trait] = error
            continue
        write_bundle(targets[trait], contents, overwrite=overwrite)
        trained[trait] = {
            "bundle": targets[trait],
            "cv": dict(contents.cv),
            **contents.settings["plots"],
            "dropped_predictors": contents.settings["dropped_predictors"],
        }
    if failed:
        raise InvalidInput(
            f"{len(failed)} of {len(traits)} traits were not trained",
            where=plots,
            got="; ".join(f"{trait}: {error}" for trait, error in failed.items()),
        )
    context.progress(1.0, "trained")
    return trained


def train_trait(
    trait: str,
    table: PlotTable,
    predictors: PlotPredictors,
    settings: TrainSettings,
    *,
    threads: int = 1,
) -> BundleContents:
    """Train one trait.

    Parameters
    ----------
    trait : str
        Column of the plots.
    table : PlotTable
        The plots.
    predictors : PlotPredictors
        Predictors at all of them.
    settings : TrainSettings
        How to train.
    threads : int
        Threads to use; the result does not depend on it.

    Returns
    -------
    BundleContents
        Ready to be written.

    Raises
    ------
    InvalidInput
        When too few plots are left, target or predictors do not vary, or folds cannot be made.
    """
    everything = table.numbers(trait)
    with_target = np.isfinite(everything)
    usable = with_target & np.isfinite(predictors.values).all(axis=1)
    if predictors.coordinates is not None and settings.fold_column is None:
        usable &= np.isfinite(predictors.coordinates[0]) & np.isfinite(predictors.coordinates[1])
    target = everything[usable]
    facts = {
        **predictors.facts,
        "rows": len(table),
        "without_target": int(np.count_nonzero(~with_target)),
        "used": len(target),
    }
    _check_target(trait, target, facts, settings)
    values, names, dropped = _drop_constant(trait, predictors.values[usable], predictors.names)
    folds, fold_facts = _make_folds(table, usable, predictors, settings)
    try:
        transform = fit_transform(settings.transform, target)
    except InvalidInput as error:
        raise InvalidInput(f"trait {trait}", got=error) from error
    scaled = transform.forward(target)
    parameters = choose_parameters(len(target), settings.lightgbm, settings.seed)
    model_text = fit_booster(values, scaled, names, parameters, threads)
    fold_texts = tuple(
        fit_booster(values[folds != fold], scaled[folds != fold], names, parameters, threads)
        for fold in range(int(folds.max()) + 1)
    )
    models = [open_booster(text) for text in fold_texts]
    predicted = np.full(len(target), np.nan)
    for fold, model in enumerate(models):
        held_out = folds == fold
        predicted[held_out] = transform.inverse(
            model.predict(values[held_out], num_threads=threads)
        )
    importance = measure_importance(
        models,
        values,
        scaled,
        folds,
        repeats=settings.importance_repeats,
        seed=settings.seed,
        threads=threads,
    )
    x, y = (None, None)
    if predictors.coordinates is not None:
        x, y = (axis[usable] for axis in predictors.coordinates)
    return BundleContents(
        trait=trait,
        unit=settings.units.get(trait, ""),
        description=settings.descriptions.get(trait, ""),
        predictors=names,
        transform=transform,
        importance=tuple(map(float, importance)),
        importance_method=f"{IMPORTANCE_METHOD} ({settings.importance_repeats})",
        cv=measure_errors(target[folds >= 0], predicted[folds >= 0]),
        crs=predictors.crs,
        seed=settings.seed,
        model_text=model_text,
        fold_texts=fold_texts,
        training=TrainingTable(values, folds.astype(np.int32), target, x, y),
        settings={
            "lightgbm": parameters,
            "lightgbm_version": lightgbm.__version__,
            "folds": fold_facts,
            "plots": facts,
            "dropped_predictors": dropped,
        },
    )


def measure_errors(truth: FloatArray, predicted: FloatArray) -> dict[str, float]:
    """Measure how well held-out plots were predicted.

    Parameters
    ----------
    truth, predicted : ndarray, (plot,), float64
        In the trait's unit; plots whose prediction is NaN are left out.

    Returns
    -------
    dict of str to float
        ``r2`` (1 - SSE / SST about the mean), ``rmse`` and ``mae`` in the trait's unit, ``nrmse``
        (rmse over the range between the 1st and 99th percentile of the truth), ``n``.
    """
    known = np.isfinite(predicted)
    truth, error = truth[known], predicted[known] - truth[known]
    spread = float(np.sum((truth - truth.mean()) ** 2)) if len(truth) else 0.0
    if spread == 0:
        raise InvalidInput("held-out plots do not vary, so that no error can be measured")
    low, high = np.quantile(truth, [0.01, 0.99])
    rmse = float(np.sqrt(np.mean(error**2)))
    metrics = {
        "r2": float(1 - np.sum(error**2) / spread),
        "rmse": rmse,
        "mae": float(np.mean(np.abs(error))),
        "n": float(len(truth)),
    }
    if high > low:
        metrics["nrmse"] = rmse / float(high - low)
    return metrics


def _refuse_existing(targets: Mapping[str, str], overwrite: bool) -> None:
    there = [uri for uri in targets.values() if storage.exists(storage.join(uri, MANIFEST_NAME))]
    if there and not overwrite:
        raise InvalidInput(
            "there are bundles already",
            where=", ".join(there),
            do="choose another place, or ask to overwrite",
        )


def _check_target(
    trait: str, target: FloatArray, facts: Mapping[str, Any], settings: TrainSettings
) -> None:
    fewest = FEWEST_PLOTS
    if settings.fold_column is None:
        fewest = max(fewest, _FEWEST_PLOTS_A_FOLD * settings.fold_count)
    if len(target) < fewest:
        raise InvalidInput(
            f"too few plots for trait {trait}",
            where=facts["table"],
            got=f"{len(target)} of {facts['rows']} rows are left ({facts['without_target']} "
            f"without a value, {facts['dropped_outside']} outside the predictors, "
            f"{facts['dropped_nodata']} where a predictor is missing)",
            expected=f"at least {fewest}",
        )
    if np.ptp(target) == 0:
        raise InvalidInput(
            f"trait {trait} does not vary",
            where=facts["table"],
            got=f"{target[0]:g} in every plot",
        )


def _drop_constant(
    trait: str, values: FloatArray, names: Sequence[str]
) -> tuple[FloatArray, tuple[str, ...], list[str]]:
    """Leave out predictors that are the same in all plots: no model and no distance uses them."""
    varies = np.ptp(values, axis=0) > 0
    if not varies.any():
        raise InvalidInput(f"no predictor varies among the plots of trait {trait}")
    kept = tuple(name for name, use in zip(names, varies, strict=True) if use)
    dropped = [name for name, use in zip(names, varies, strict=True) if not use]
    return np.ascontiguousarray(values[:, varies]), kept, dropped


def _make_folds(
    table: PlotTable, usable: Any, predictors: PlotPredictors, settings: TrainSettings
) -> tuple[IntArray, dict[str, Any]]:
    if settings.fold_column is not None:
        table.check_columns([settings.fold_column], "folds")
        given = table.folds(settings.fold_column)[usable]
        present = np.unique(given[given >= 0])
        if len(present) < 2:
            raise InvalidInput(
                "fewer than two folds",
                where=f"{table.path}, column {settings.fold_column}",
                got=f"{len(present)} among the {len(given)} plots that can be used",
            )
        # Numbered anew, since a fold may have lost all its plots.
        folds = np.where(given >= 0, np.searchsorted(present, given), -1).astype(np.int64)
        return folds, {"column": settings.fold_column, "sizes": _sizes(folds)}
    if predictors.coordinates is None:
        raise ConfigError("spatial folds need coordinates", do="name a fold column instead")
    x, y = (axis[usable] for axis in predictors.coordinates)
    size = settings.block_size or choose_block_size(x, y, settings.fold_count)
    folds = assign_folds(assign_blocks(x, y, size), settings.fold_count, settings.seed)
    return folds, {"block_size": size, "sizes": _sizes(folds)}


def _sizes(folds: IntArray) -> list[int]:
    return [int(n) for n in np.bincount(folds[folds >= 0])]
