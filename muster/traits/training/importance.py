"""How much each predictor matters to what a model says of places it has not seen.

Importance within the training plots rewards predictors that let a model memorise them, and the
area of applicability would then measure distance along noise.  So each fold model is asked about
its own held-out plots, with one predictor shuffled at a time (Breiman 2001, Machine Learning 45).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import InvalidInput
from muster.traits.training.plots import read_plots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from muster.traits.aoa.neighbours import FloatArray, IntArray

IMPORTANCE_METHOD = (
    "drop of R² over all held-out plots, on the model's scale, when the predictor is shuffled "
    "among the plots of a fold; mean over repeats"
)
MOST_PLOTS = 10_000
"""More held-out plots of one fold than this are not asked: a drawn sample of them is."""


def measure_importance(
    models: Sequence[Any],
    values: FloatArray,
    target: FloatArray,
    folds: IntArray,
    *,
    repeats: int,
    seed: int,
    threads: int,
) -> FloatArray:
    """Measure held-out permutation importance.

    Parameters
    ----------
    models : sequence of lightgbm.Booster
        One a fold, trained without that fold.
    values : ndarray, (plot, predictor), float64
        Predictor values.
    target : ndarray, (plot,), float64
        On the model's scale.
    folds : ndarray, (plot,), int64
        Which model held a plot out; -1 for none.
    repeats : int
        Number of shuffles of each predictor, at least 1.
    seed : int
        Of the shuffles.
    threads : int
        Threads to predict with.

    Returns
    -------
    ndarray, (predictor,), float64
        Sum of the squared errors' increase over the sum of squares about the mean: 0 for a
        predictor that does not matter, negative where shuffling it helped by chance.
    """
    increase = np.zeros(values.shape[1])
    asked: list[FloatArray] = []
    for fold, model in enumerate(models):
        rng = np.random.default_rng([seed, fold])
        held_out = np.flatnonzero(folds == fold)
        if len(held_out) > MOST_PLOTS:
            held_out = np.sort(rng.choice(held_out, MOST_PLOTS, replace=False))
        truth = target[held_out]
        asked.append(truth)
        work = values[held_out].copy()
        error = np.sum((model.predict(work, num_threads=threads) - truth) ** 2)
        for predictor in range(values.shape[1]):
            kept = work[:, predictor].copy()
            for _ in range(repeats):
                work[:, predictor] = rng.permutation(kept)
                shuffled = model.predict(work, num_threads=threads)
                increase[predictor] += (np.sum((shuffled - truth) ** 2) - error) / repeats
            work[:, predictor] = kept
    truth = np.concatenate(asked)
    return np.asarray(increase / np.sum((truth - truth.mean()) ** 2))


def read_importance(path: Path, predictors: Sequence[str]) -> tuple[float, ...]:
    """Read a table of importances.

    Parameters
    ----------
    path : Path
        CSV or Parquet with a column ``importance``; the predictors' names are in a column
        ``predictor`` or ``feature``, or in the first one (as AutoGluon's table has it).
    predictors : sequence of str
        The model's predictors, in its order.

    Returns
    -------
    tuple of float
        In the order of the predictors.

    Raises
    ------
    InvalidInput
        When a predictor is absent or there twice, or something else is there.
    """
    table = read_plots(path)
    table.check_columns(["importance"], "importance")
    key = next((name for name in ("predictor", "feature") if name in table.names), table.names[0])
    names = [str(name) for name in table.columns.column(key).to_pylist()]
    values = dict(zip(names, map(float, table.numbers("importance")), strict=True))
    if len(values) != len(names) or set(values) != set(predictors):
        absent = sorted(set(predictors) - set(values))
        unknown = sorted(set(values) - set(predictors))
        raise InvalidInput(
            "importance is not that of the model's predictors",
            where=path,
            got=f"absent {absent}, unknown {unknown}, {len(names) - len(values)} twice",
            expected=", ".join(predictors),
        )
    if not np.isfinite(list(values.values())).all():
        raise InvalidInput("importance has no value for a predictor", where=path)
    return tuple(values[name] for name in predictors)
