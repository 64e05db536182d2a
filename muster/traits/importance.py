"""How much each predictor matters to what a model says of places it has not seen.

Importance within the training plots rewards predictors that let a model memorise them, and the
area of applicability would then measure distance along noise.  So each fold model is asked about
its own held-out plots, with one predictor shuffled at a time (Breiman 2001, Machine Learning 45).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.traits.neighbours import FloatArray, IntArray

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
