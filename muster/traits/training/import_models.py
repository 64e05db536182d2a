"""Bundles from models trained elsewhere: LightGBM text, and the table that it was trained on.

Many groups have models already, from AutoGluon or their own scripts.  They are taken as they are;
what Muster can measure of them (held-out errors, held-out importance) it measures, and what does
not fit together is said with the names on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from muster import storage
from muster.errors import InvalidInput, MissingInput
from muster.traits.bundle.bundle import BundleContents, write_bundle
from muster.traits.bundle.manifest import lightgbm_feature_name, read_feature_names
from muster.traits.bundle.training_table import TrainingTable
from muster.traits.bundle.transform import NO_TRANSFORM, TargetTransform
from muster.traits.lightgbm_alone import lightgbm
from muster.traits.predicting.boosting import open_booster
from muster.traits.predicting.trees import check_model_text
from muster.traits.training.importance import IMPORTANCE_METHOD, measure_importance, read_importance
from muster.traits.training.plots import PlotTable, read_plots
from muster.traits.training.train import measure_errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from muster.traits.aoa.neighbours import FloatArray, IntArray

_REPEATS = 5
_NO_IMPORTANCE = "none was measured: all predictors count alike"


@dataclass(frozen=True)
class ModelFiles:
    """What was trained elsewhere.

    Attributes
    ----------
    model : Path
        LightGBM text of the model on all plots.
    folds : tuple of Path
        LightGBM text of the fold models, in the order of the fold column's sorted labels.
    training : Path
        Table (CSV or Parquet) of the plots that the models were trained on: a column for each
        predictor, the target, the fold.
    importance : Path or None
        Table of two columns, predictor and ``importance``.
    """

    model: Path
    training: Path
    folds: tuple[Path, ...] = ()
    importance: Path | None = None


@dataclass(frozen=True)
class TrainingColumns:
    """What the columns of the training table are called.

    Attributes
    ----------
    target : str
        The trait, in its own unit.
    fold : str or None
        Which fold model left the plot out; an empty cell for none.  Without it each plot counts
        as a fold of its own, as CAST does without cross-validation.
    predictors : tuple of str or None
        Columns in the order of the model's features; needed only where the model does not know
        their names ("Column_0").
    x, y, crs : str or None
        Coordinates, where they are to be kept.
    """

    target: str
    fold: str | None = None
    predictors: tuple[str, ...] | None = None
    x: str | None = None
    y: str | None = None
    crs: str | None = None


@dataclass(frozen=True)
class TraitLabel:
    """What a trait is called, and what its models' target went through.

    Attributes
    ----------
    name, unit, description : str
        As they shall stand in products.
    transform : TargetTransform
        What the target went through before training.
    """

    name: str
    unit: str = ""
    description: str = ""
    transform: TargetTransform = NO_TRANSFORM


def import_models(
    uri: str,
    label: TraitLabel,
    files: ModelFiles,
    columns: TrainingColumns,
    *,
    seed: int = 0,
    overwrite: bool = False,
    threads: int = 1,
) -> dict[str, Any]:
    """Make a bundle of LightGBM models that were trained elsewhere.

    Parameters
    ----------
    uri : str
        Folder of the bundle.
    label : TraitLabel
        What is mapped.
    files : ModelFiles
        Models and training table.
    columns : TrainingColumns
        What the table's columns are.
    seed : int
        Of the held-out permutation importance, which is measured where there are fold models and
        no importance is given.
    overwrite : bool
        Whether a bundle that is there may be replaced.
    threads : int
        Threads to use.

    Returns
    -------
    dict
        ``bundle``, ``predictors``, ``plots``, ``dropped``, ``folds``, ``cv``,
        ``importance_method``.

    Raises
    ------
    InvalidInput
        When a file is no LightGBM text, or models and table do not fit together.
    MissingInput
        When a file is not there.
    """
    model_text = _read_model(files.model)
    fold_texts = tuple(map(_read_model, files.folds))
    features = read_feature_names(model_text)
    for path, text in zip(files.folds, fold_texts, strict=True):
        _check_same_features(features, read_feature_names(text), path, files.model)
    table = read_plots(files.training)
    predictors = match_predictors(features, table, columns)
    training, dropped = _take_training(table, predictors, columns, label.transform)
    _check_folds(training.fold, len(fold_texts), table, columns)
    cv, importance, method = _judge(
        training, fold_texts, label.transform, seed=seed, threads=threads
    )
    if files.importance is not None:
        importance = read_importance(files.importance, predictors)
        method = f"given, from {files.importance.name}"
    contents = BundleContents(
        trait=label.name,
        unit=label.unit,
        description=label.description,
        predictors=predictors,
        transform=label.transform,
        importance=importance,
        importance_method=method,
        cv=cv,
        crs=columns.crs,
        seed=seed,
        model_text=model_text,
        fold_texts=fold_texts,
        training=training,
        settings={
            "imported": {
                "model": files.model.name,
                "folds": [path.name for path in files.folds],
                "training": files.training.name,
                "training_sha256": storage.sha256(str(files.training)),
                "dropped": dropped,
            }
        },
    )
    write_bundle(uri, contents, overwrite=overwrite)
    return {
        "bundle": uri,
        "predictors": list(predictors),
        "plots": len(training.target),
        "dropped": dropped,
        "folds": len(fold_texts),
        "cv": cv,
        "importance_method": method,
    }


def match_predictors(
    features: Sequence[str], table: PlotTable, columns: TrainingColumns
) -> tuple[str, ...]:
    """Find the table's column for each of a model's features.

    Parameters
    ----------
    features : sequence of str
        As the model's text spells them.
    table : PlotTable
        The training table.
    columns : TrainingColumns
        ``predictors`` says the columns in the model's order, where names do not help.

    Returns
    -------
    tuple of str
        Column names in the model's order.

    Raises
    ------
    InvalidInput
        When a feature has no column, or the given columns are of another number.
    """
    if columns.predictors is not None:
        table.check_columns(columns.predictors, "predictors")
        if len(columns.predictors) != len(features):
            raise InvalidInput(
                "model has another number of features than predictors were named",
                got=f"{len(columns.predictors)} predictors",
                expected=f"{len(features)}: {' '.join(features)}",
            )
        return columns.predictors
    by_spelling: dict[str, list[str]] = {}
    for name in table.names:
        by_spelling.setdefault(lightgbm_feature_name(name), []).append(name)
    absent = [feature for feature in features if feature not in by_spelling]
    if absent:
        numbered = all(feature.startswith("Column_") for feature in features)
        raise InvalidInput(
            f"training table lacks columns for the model's features: {', '.join(absent)}",
            where=table.path,
            got=", ".join(table.names),
            expected=" ".join(features),
            do="name the predictors' columns in the order that the model was trained on"
            if numbered
            else "rename the columns as they were when the model was trained",
        )
    for feature in features:
        if len(by_spelling[feature]) > 1:
            raise InvalidInput(
                "several columns are one to LightGBM",
                where=table.path,
                got=", ".join(by_spelling[feature]),
                do="name the predictors' columns in the model's order",
            )
    return tuple(by_spelling[feature][0] for feature in features)


def _read_model(path: Path) -> str:
    if not path.is_file():
        raise MissingInput("no model file", where=path)
    got: object = None
    try:
        text = path.read_text()
        features = read_feature_names(text)
        got = "; ".join(check_model_text(text)) or None
        model = None if got else open_booster(text)
    except UnicodeDecodeError:
        got = "binary data"
    except (InvalidInput, lightgbm.basic.LightGBMError) as error:
        got = error
    if got is not None or model is None:
        raise InvalidInput(
            "not a LightGBM text model",
            where=path,
            got=got,
            expected="a file written by Booster.save_model",
            do="export the model as text (docs/traits.md), never as a pickle",
        )
    if model.num_model_per_iteration() != 1 or model.num_feature() != len(features):
        raise InvalidInput(
            "model is no regression with one value",
            where=path,
            got=f"{model.num_model_per_iteration()} values, {model.num_feature()} features",
        )
    return text


def _check_same_features(
    expected: Sequence[str], got: Sequence[str], path: Path, model: Path
) -> None:
    if tuple(got) == tuple(expected):
        return
    absent = sorted(set(expected) - set(got))
    unknown = sorted(set(got) - set(expected))
    raise InvalidInput(
        "fold model has other features than the model",
        where=path,
        got=f"absent {absent}, unknown {unknown}" if absent or unknown else "another order",
        expected=f"those of {model}: {' '.join(expected)}",
        do="train all models on the same columns in the same order",
    )


def _take_training(
    table: PlotTable,
    predictors: tuple[str, ...],
    columns: TrainingColumns,
    transform: TargetTransform,
) -> tuple[TrainingTable, int]:
    wanted = [columns.target, *(name for name in (columns.fold, columns.x, columns.y) if name)]
    table.check_columns(wanted, "the training table")
    values = np.column_stack([table.numbers(name) for name in predictors])
    target = table.numbers(columns.target)
    # As many folds as plots is how CAST sees a model without cross-validation.
    fold = table.folds(columns.fold) if columns.fold else np.arange(len(table), dtype=np.int64)
    known = np.isfinite(values).all(axis=1) & np.isfinite(target)
    if np.count_nonzero(known) < 2:
        raise InvalidInput(
            "too few plots in the training table",
            where=table.path,
            got=f"{np.count_nonzero(known)} of {len(table)} with target and all predictors",
            expected="at least 2",
        )
    transform.forward(target[known])
    x, y = (table.numbers(name)[known] if name else None for name in (columns.x, columns.y))
    return (
        TrainingTable(values[known], fold[known].astype(np.int32), target[known], x, y),
        int(np.count_nonzero(~known)),
    )


def _check_folds(fold: Any, fold_count: int, table: PlotTable, columns: TrainingColumns) -> None:
    if columns.fold is None:
        if fold_count:
            raise InvalidInput(
                "fold models without a fold column",
                where=table.path,
                got=f"{fold_count} fold models",
                do="name the column that says which plots each of them left out",
            )
        return
    present = len(np.unique(fold[fold >= 0]))
    if present < 2 or (fold_count and present != fold_count):
        raise InvalidInput(
            "fold column does not fit the fold models",
            where=f"{table.path}, column {columns.fold}",
            got=f"{present} folds, {fold_count} fold models",
            expected="as many of one as of the other, at least 2",
        )


def _judge(
    training: TrainingTable,
    fold_texts: Sequence[str],
    transform: TargetTransform,
    *,
    seed: int,
    threads: int,
) -> tuple[dict[str, float], tuple[float, ...], str]:
    """Measure held-out errors and importance, where there are models that held plots out."""
    if not fold_texts:
        return {}, (1.0,) * training.values.shape[1], _NO_IMPORTANCE
    folds: IntArray = training.fold.astype(np.int64)
    models = [open_booster(text) for text in fold_texts]
    predicted: FloatArray = np.full(len(folds), np.nan)
    for fold, model in enumerate(models):
        held_out = folds == fold
        if held_out.any():
            predicted[held_out] = transform.inverse(
                np.asarray(model.predict(training.values[held_out], num_threads=threads))
            )
    importance = measure_importance(
        models,
        training.values,
        transform.forward(training.target),
        folds,
        repeats=_REPEATS,
        seed=seed,
        threads=threads,
    )
    held_out = folds >= 0
    return (
        measure_errors(training.target[held_out], predicted[held_out]),
        tuple(map(float, importance)),
        f"{IMPORTANCE_METHOD} ({_REPEATS})",
    )
