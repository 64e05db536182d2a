"""LightGBM as Muster trains it: settings, one deterministic fit, and the text that is kept.

The text must be the same to the byte for the same plots and seed, on one thread or on sixteen,
since its sha256 decides what is computed again.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from muster.errors import ConfigError
from muster.traits.bundle.manifest import lightgbm_feature_name
from muster.traits.lightgbm_alone import lightgbm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.traits.aoa.neighbours import FloatArray

FIXED = ("deterministic", "force_row_wise", "num_threads", "seed", "verbosity")
"""What a user may not set: results would no longer be a function of plots and seed."""


def choose_parameters(plot_count: int, own: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Choose LightGBM's parameters for a number of plots.

    Parameters
    ----------
    plot_count : int
        Number of plots.
    own : mapping of str to Any
        The user's own parameters, under LightGBM's canonical names; they win.
    seed : int
        Seed of bagging and feature sampling.

    Returns
    -------
    dict
        Parameters for :func:`fit_booster`, ``num_iterations`` among them.

    Raises
    ------
    ConfigError
        When a parameter is set that belongs to Muster.
    """
    refused = sorted(set(own) & set(FIXED))
    if refused:
        raise ConfigError(
            "LightGBM parameter cannot be set",
            got=", ".join(refused),
            do="leave it out; the seed has an option of its own, threads are the step's",
        )
    return {
        "objective": "regression",
        "num_iterations": 300,
        "learning_rate": 0.05,
        "num_leaves": 31,
        # LightGBM's own 20 leaves a hundred plots with a stump.
        "min_data_in_leaf": max(3, min(20, plot_count // 40)),
        "feature_fraction": 0.8,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        **own,
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
        "verbosity": -1,
    }


def fit_booster(
    values: FloatArray,
    target: FloatArray,
    predictors: Sequence[str],
    parameters: Mapping[str, Any],
    threads: int,
) -> str:
    """Train a model and render it as text.

    Parameters
    ----------
    values : ndarray, (plot, predictor), float64
        Finite predictor values.
    target : ndarray, (plot,), float64
        On the scale that the model is to work on.
    predictors : sequence of str
        Names of the columns.
    parameters : mapping
        From :func:`choose_parameters`.
    threads : int
        Threads to use; the text does not depend on it.

    Returns
    -------
    str
        LightGBM's text.

    Raises
    ------
    ConfigError
        When LightGBM refuses a parameter.
    """
    settings = {**parameters, "num_threads": threads}
    rounds = settings.pop("num_iterations")
    try:
        with warnings.catch_warnings():
            # "Found `num_trees` in params": an alias that the user chose, and that wins.
            warnings.simplefilter("ignore", UserWarning)
            data = lightgbm.Dataset(
                values,
                label=target,
                feature_name=[lightgbm_feature_name(name) for name in predictors],
                params={"verbosity": -1, "num_threads": threads},
            )
            booster = lightgbm.train(settings, data, num_boost_round=rounds)
    except (lightgbm.basic.LightGBMError, TypeError, ValueError) as error:
        raise ConfigError("LightGBM refused to train", got=error, where=dict(parameters)) from error
    text: str = booster.model_to_string()
    # How many threads there were is no property of the model.
    return text.replace(f"\n[num_threads: {threads}]\n", "\n[num_threads: 0]\n")


def open_booster(text: str) -> Any:
    """Load a model from its text."""
    return lightgbm.Booster(model_str=text)
