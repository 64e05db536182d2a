"""Prediction engines: all give LightGBM's own answer, to the bit, and the choice is a good one."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import pytest

from muster.errors import ConfigError, InvalidInput
from muster.traits.bundle.training_table import (
    TrainingTable,
    read_training_sample,
    render_training_table,
)
from muster.traits.engine_names import PREDICTION_ENGINES, PredictionEngine
from muster.traits.predicting.engine import choose_prediction_engine, load_model, prefer
from muster.traits.predicting.quantised import BLOCK_PIXELS, compile_ensemble
from muster.traits.predicting.trees import read_trees

if TYPE_CHECKING:
    from pathlib import Path

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def make_table(kind: str, rows: int = 900) -> tuple[FloatArray, FloatArray]:
    """Make predictors of a kind, (row, predictor), and a target that depends on all of them."""
    rng = np.random.default_rng(11)
    columns = {"one predictor": 1, "150 predictors": 150}.get(kind, 6)
    values = rng.normal(size=(rows, columns))
    if kind == "integer codes":
        values = rng.integers(0, 9, size=(rows, columns)).astype(np.float64)
    elif kind == "duplicates":
        values = np.repeat(values[: rows // 10], 10, axis=0)
    elif kind == "constant predictor":
        values[:, 2] = 4.5
    elif kind == "tiny and huge":
        values *= 10.0 ** np.array([-200, -36, -5, 0, 36, 200])
    elif kind == "zeros":
        values[rng.random(values.shape) < 0.6] = 0.0
    scaled = values / np.maximum(np.abs(values).max(axis=0), 1e-300)
    target = np.sin(4 * scaled).sum(axis=1) + scaled[:, 0] * scaled[:, -1]
    return values, target + 0.1 * rng.normal(size=rows)


def train(values: FloatArray, target: FloatArray, rounds: int = 40, **own: Any) -> str:
    parameters = {
        "objective": "regression",
        "num_leaves": 31,
        "min_data_in_leaf": 3,
        "learning_rate": 0.1,
        "num_threads": 1,
        "deterministic": True,
        "seed": 3,
        "verbosity": -1,
        **own,
    }
    categorical = parameters.pop("categorical", "auto")
    data = lightgbm.Dataset(
        values, target, categorical_feature=categorical, params={"verbosity": -1}
    )
    text: str = lightgbm.train(parameters, data, rounds).model_to_string()
    return text


def answers(text: str, values: FloatArray) -> FloatArray:
    booster = lightgbm.Booster(model_str=text)
    return np.asarray(booster.predict(values, num_threads=1))


def around_thresholds(text: str, values: FloatArray) -> FloatArray:
    """Make pixels at every threshold of a model, and at the next doubles on both sides."""
    trees, _ = read_trees(text)
    rows = []
    for tree in trees[:8]:
        for feature, threshold in zip(tree.feature, tree.threshold, strict=True):
            for value in (
                threshold,
                np.nextafter(threshold, np.inf),
                np.nextafter(threshold, -np.inf),
            ):
                row = values[len(rows) % len(values)].copy()
                row[feature] = value
                rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(
    "kind",
    [
        "random",
        "one predictor",
        "150 predictors",
        "integer codes",
        "duplicates",
        "constant predictor",
        "tiny and huge",
        "zeros",
    ],
)
def test_quantised_equals_lightgbm_to_the_bit(kind: str) -> None:
    values, target = make_table(kind)
    text = train(values, target)
    ensemble = compile_ensemble(text, values.shape[1])
    beyond = np.random.default_rng(5).normal(size=(2 * BLOCK_PIXELS + 77, values.shape[1])) * 3
    signed_zeros = np.zeros((2, values.shape[1]))
    signed_zeros[1] = -0.0
    for pixels in (values, beyond, around_thresholds(text, values), signed_zeros):
        np.testing.assert_array_equal(ensemble.predict(pixels), answers(text, pixels))


@pytest.mark.parametrize(
    "own",
    [
        {"num_leaves": 2},
        {"num_leaves": 256},
        {"num_leaves": 600, "min_data_in_leaf": 1},
        {"max_bin": 2000, "min_data_in_bin": 1, "num_leaves": 400, "min_data_in_leaf": 1},
        {"objective": "huber"},
        {"objective": "regression_l1"},
        {"linear_tree": False, "extra_trees": True},
        {"max_depth": 3},
    ],
    ids=str,
)
def test_every_shape_of_tree_equals_lightgbm(own: dict[str, Any]) -> None:
    values, target = make_table("random", rows=3000)
    text = train(values, target, rounds=30, **own)
    ensemble = compile_ensemble(text, values.shape[1])
    np.testing.assert_array_equal(ensemble.predict(values), answers(text, values))


def test_wide_models_need_two_bytes() -> None:
    values, target = make_table("random", rows=3000)
    own = {"max_bin": 2000, "min_data_in_bin": 1, "num_leaves": 600, "min_data_in_leaf": 1}
    text = train(values, target, rounds=5, **own)
    ensemble = compile_ensemble(text, values.shape[1])
    assert ensemble.rank_dtype == np.uint16
    assert ensemble.leaf_dtype == np.uint16


def test_a_tree_of_one_leaf_is_a_constant() -> None:
    values = np.random.default_rng(1).normal(size=(50, 3))
    text = train(values, np.full(50, 2.5), rounds=3)
    ensemble = compile_ensemble(text, 3)
    np.testing.assert_array_equal(ensemble.predict(values), answers(text, values))


def test_a_pixel_does_not_depend_on_the_others() -> None:
    values, target = make_table("random", rows=5000)
    ensemble = compile_ensemble(train(values, target), values.shape[1])
    whole = ensemble.predict(values)
    parts = [ensemble.predict(values[a:b]) for a, b in ((0, 1), (1, 4), (4, 4), (4, 5000))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("engine", PREDICTION_ENGINES)
def test_several_threads_may_ask_one_model(tmp_path: Path, engine: PredictionEngine) -> None:
    values, target = make_table("random", rows=20_000)
    path = tmp_path / "model.txt"
    path.write_text(train(values, target))
    predict = load_model(path, values.shape[1], 1, engine)
    parts = [values[start::8] for start in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(predict, parts))
    for part, got in zip(parts, found, strict=True):
        np.testing.assert_array_equal(got, answers(path.read_text(), part))


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        ({"categorical": [0]}, "categorical splits"),
        ({"linear_tree": True}, "linear models"),
        ({"zero_as_missing": True}, "zero for a missing value"),
        ({"objective": "poisson"}, "objective poisson"),
        ({"objective": "regression", "reg_sqrt": True}, "sqrt"),
        (
            {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1},
            "averages its trees",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_no_plain_sum_of_leaves_is_left_to_lightgbm(
    tmp_path: Path, own: dict[str, Any], reason: str
) -> None:
    values, target = make_table("integer codes")
    path = tmp_path / "model.txt"
    path.write_text(train(values, np.abs(target) + 1, **own))
    with pytest.raises(ConfigError, match=reason):
        load_model(path, values.shape[1], 1, "quantised")
    choice = choose_prediction_engine([path], values, 10**9)
    assert choice.engine == "lightgbm"
    assert reason in choice.reason
    predict = load_model(path, values.shape[1], 1, choice.engine)
    np.testing.assert_array_equal(predict(values), answers(path.read_text(), values))


def test_the_usual_engine_is_taken_unless_another_saves_much(tmp_path: Path) -> None:
    values, target = make_table("random")
    path = tmp_path / "model.txt"
    path.write_text(train(values, target))
    choice = choose_prediction_engine([path] * 5, values, 1000)
    assert choice.engine == "quantised"
    assert "1000 pixels: quantised" in choice.reason
    for costs, expected in (
        ({"a": 100.0, "b": 49.0}, "b"),
        ({"a": 100.0, "b": 51.0}, "a"),
        ({"a": 12.0, "b": 1.9}, "b"),
        ({"a": 9.0, "b": 0.1}, "a"),
        ({"b": 3.0, "c": 2.0}, "c"),
    ):
        assert prefer("a", costs, "so").engine == expected


def test_an_engine_that_answers_otherwise_is_never_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, target = make_table("random")
    path = tmp_path / "model.txt"
    path.write_text(train(values, target))
    monkeypatch.setattr(
        "muster.traits.predicting.quantised.Ensemble.predict", lambda _, v: np.zeros(len(v)) + 1e-9
    )
    choice = choose_prediction_engine([path], values, 10**9)
    assert choice.engine == "lightgbm"
    assert "LightGBM's answer" in choice.reason


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    values, target = make_table("random")
    path = tmp_path / "model.txt"
    text = train(values, target)
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"unknown prediction engine; .*quantised, lightgbm"):
        load_model(path, 6, 1, "fastest")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="do not fit the model"):
        compile_ensemble(text, 6).predict(values[:, :5])
    with pytest.raises(InvalidInput, match="feature 5"):
        compile_ensemble(text, 5)
    for broken in ("tree\nno trees", text.replace("leaf_value=", "leaf_value=x "), text[:900]):
        with pytest.raises(InvalidInput):
            compile_ensemble(broken, 6)


def break_text(text: str, pattern: str, by: str) -> str:
    """Change a model's text, with the sizes of its trees as they are then."""
    broken = re.sub(pattern, by, text, count=1, flags=re.MULTILINE)
    assert broken != text
    header, _, body = broken.partition("\nTree=0\n")
    trees = re.split(r"(?=^Tree=)", f"Tree=0\n{body.partition('end of trees')[0]}", flags=re.M)[1:]
    sizes = " ".join(str(len(tree)) for tree in trees)
    return f"{re.sub('tree_sizes=.*', f'tree_sizes={sizes}', header)}\nTree=0\n{body}"


@pytest.mark.parametrize(
    ("pattern", "by", "got"),
    [
        ("^max_feature_idx=.*\n", "", "its header lacks max_feature_idx"),
        ("^num_class=.*\n", "", "its header lacks num_class"),
        ("^label_index=.*\n", "", "its header lacks label_index"),
        ("^feature_names=.*\n", "", "its header lacks feature_names"),
        ("^feature_infos=.*\n", "", "its header lacks feature_infos"),
        ("^max_feature_idx=.*", "max_feature_idx=0_5", "max_feature_idx of its header is '0_5'"),
        ("^num_tree_per_iteration=.*", "num_tree_per_iteration=x", "per_iteration of its header"),
        ("^feature_names=.*", "feature_names=a b", "it has 6 predictors and 2 feature_names"),
        ("^feature_infos=.*", "feature_infos=none", "it has 6 predictors and 1 feature_infos"),
    ],
)
def test_a_header_that_lightgbm_refuses_is_refused_by_every_engine(
    tmp_path: Path, pattern: str, by: str, got: str
) -> None:
    path = tmp_path / "model.txt"
    path.write_text(break_text(train(*make_table("random"), rounds=2), pattern, by))
    for engine in PREDICTION_ENGINES:
        with pytest.raises(InvalidInput, match="cannot be loaded") as refused:
            load_model(path, 6, 1, engine)
        assert got in str(refused.value)
        assert f"where: {path}" in str(refused.value)


@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        (r"^left_child=\S+", "left_child=0"),
        (r"^left_child=\S+", "left_child=-77"),
        (r"^right_child=\S+", "right_child=77"),
        (r"^split_feature=\S+", "split_feature=99999999999999999999"),
    ],
)
def test_trees_that_lead_nowhere_are_refused(tmp_path: Path, pattern: str, by: str) -> None:
    path = tmp_path / "model.txt"
    path.write_text(break_text(train(*make_table("random"), rounds=2), pattern, by))
    with pytest.raises(InvalidInput, match=f"where: {path}; got: .*tree 0"):
        load_model(path, 6, 1, "quantised")


def test_sample_of_plots_is_even_and_bounded(tmp_path: Path) -> None:
    names = ("a", "b")
    values = np.column_stack([np.arange(1000.0), -np.arange(1000.0)])
    table = TrainingTable(values, np.zeros(1000, np.int32), values[:, 0])
    path = tmp_path / "training.parquet"
    path.write_bytes(render_training_table(table, names))
    np.testing.assert_array_equal(read_training_sample(path, names, 1000), values)
    np.testing.assert_array_equal(read_training_sample(path, names, 300), values[::4])
    np.testing.assert_array_equal(read_training_sample(path, ("b",), 1), values[:1, 1:])
    for broken in (b"no parquet", path.read_bytes()[:200]):
        (tmp_path / "broken").write_bytes(broken)
        with pytest.raises(InvalidInput, match="training table cannot be read"):
            read_training_sample(tmp_path / "broken", names, 10)
    with pytest.raises(InvalidInput, match="training table cannot be read"):
        read_training_sample(path, ("absent",), 10)
