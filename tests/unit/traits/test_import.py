from __future__ import annotations

import dataclasses
import pickle
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from muster.errors import InvalidInput, MissingInput
from muster.traits.aoa.aoa import fit_aoa
from muster.traits.bundle.bundle import read_bundle
from muster.traits.bundle.training_table import read_training_table
from muster.traits.bundle.transform import TargetTransform
from muster.traits.training.import_models import (
    ModelFiles,
    TrainingColumns,
    TraitLabel,
    import_models,
)

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("mean temp", "soil:ph", "elev")
LABEL = TraitLabel("X50", unit="MPa", transform=TargetTransform(kind="log"))
COLUMNS = TrainingColumns(target="x50", fold="fold")
FOLDS = ("a", "b", "c")


def fit(values: Any, target: Any, names: list[str] | str = "auto", **params: Any) -> Any:
    settings = {"num_leaves": 8, "min_data_in_leaf": 5, "num_threads": 1, "verbosity": -1}
    data = lightgbm.Dataset(values, label=target, feature_name=names)
    return lightgbm.train({**settings, **params}, data, num_boost_round=25)


@pytest.fixture
def foreign(tmp_path: Path) -> ModelFiles:
    """Models of somebody else's: their own names for files, their own order of columns."""
    rng = np.random.default_rng(4)
    values = rng.normal(size=(240, 3))
    target = np.exp(values[:, 0] + 0.4 * values[:, 2])
    fold = rng.integers(0, 3, 240)
    spelt = ["mean_temp", "soil_ph", "elev"]
    fit(values, np.log(target), spelt).save_model(tmp_path / "all.txt")
    for number, label in enumerate(FOLDS):
        kept = fold != number
        model = fit(values[kept], np.log(target[kept]), spelt)
        model.save_model(tmp_path / f"without_{label}.txt")
    table = {
        "elev": values[:, 2],
        "plot": np.arange(240),
        "fold": np.array(FOLDS)[fold],
        "soil:ph": values[:, 1],
        "x50": target,
        "mean temp": values[:, 0],
    }
    pa.csv.write_csv(pa.table(table), tmp_path / "train.csv")
    pa.parquet.write_table(pa.table(table), tmp_path / "train.parquet")
    return ModelFiles(
        model=tmp_path / "all.txt",
        training=tmp_path / "train.csv",
        folds=tuple(tmp_path / f"without_{label}.txt" for label in FOLDS),
    )


def test_models_are_taken_as_they_are_and_judged(foreign: ModelFiles, tmp_path: Path) -> None:
    facts = import_models(str(tmp_path / "X50"), LABEL, foreign, COLUMNS)
    bundle = read_bundle(str(tmp_path / "X50"), tmp_path)

    assert bundle.predictors == NAMES
    assert (bundle.trait, bundle.unit, bundle.transform.kind) == ("X50", "MPa", "log")
    assert bundle.model_path.read_bytes() == foreign.model.read_bytes()
    assert [p.read_bytes() for p in bundle.fold_paths] == [p.read_bytes() for p in foreign.folds]
    table = read_training_table(bundle.training_path, bundle.predictors)
    assert np.bincount(table.fold).sum() == 240
    # Held out by their own labels the errors are honest; by others they would be near zero.
    predicted = np.empty(240)
    for number, path in enumerate(foreign.folds):
        held_out = table.fold == number
        predicted[held_out] = lightgbm.Booster(model_file=str(path)).predict(table.values[held_out])
    rmse = np.sqrt(np.mean((np.exp(predicted) - table.target) ** 2))
    assert bundle.cv["rmse"] == pytest.approx(rmse)
    assert facts["cv"] == bundle.cv
    temp, ph, elev = bundle.importance
    assert temp > elev > abs(ph)
    fit_aoa(table.values, np.array(bundle.importance), table.fold.astype(np.int64))


def test_parquet_gives_the_same_bundle(foreign: ModelFiles, tmp_path: Path) -> None:
    parquet = dataclasses.replace(foreign, training=tmp_path / "train.parquet")
    import_models(str(tmp_path / "a"), LABEL, foreign, COLUMNS)
    import_models(str(tmp_path / "b"), LABEL, parquet, COLUMNS)
    a, b = read_bundle(str(tmp_path / "a"), tmp_path), read_bundle(str(tmp_path / "b"), tmp_path)
    assert dict(a.file_sha256) == dict(b.file_sha256)


def test_given_importance_is_matched_by_name(foreign: ModelFiles, tmp_path: Path) -> None:
    # As AutoGluon writes it: names in a first column without a header.
    path = tmp_path / "importance.csv"
    path.write_text(",importance,stddev\nelev,0.5,0.1\nmean temp,2.5,0.1\nsoil:ph,-0.1,0.1\n")
    files = dataclasses.replace(foreign, importance=path)
    import_models(str(tmp_path / "a"), LABEL, files, COLUMNS)
    bundle = read_bundle(str(tmp_path / "a"), tmp_path)
    assert bundle.importance == (2.5, -0.1, 0.5)
    assert bundle.importance_method == "given, from importance.csv"


def test_model_alone_makes_a_bundle_in_which_all_predictors_count_alike(
    foreign: ModelFiles, tmp_path: Path
) -> None:
    files = dataclasses.replace(foreign, folds=())
    import_models(str(tmp_path / "a"), LABEL, files, TrainingColumns(target="x50"))
    bundle = read_bundle(str(tmp_path / "a"), tmp_path)
    assert bundle.importance == (1.0, 1.0, 1.0)
    assert "none was measured" in bundle.importance_method
    assert (dict(bundle.cv), bundle.fold_paths) == ({}, ())
    table = read_training_table(bundle.training_path, bundle.predictors)
    np.testing.assert_array_equal(table.fold, np.arange(240))


def test_nameless_model_needs_the_order_of_its_columns(foreign: ModelFiles, tmp_path: Path) -> None:
    table = pa.csv.read_csv(foreign.training)
    values = np.column_stack([table.column(name).to_numpy() for name in NAMES])
    model = fit(values, np.log(table.column("x50").to_numpy()))
    model.save_model(tmp_path / "nameless.txt")
    files = ModelFiles(tmp_path / "nameless.txt", foreign.training)
    columns = TrainingColumns(target="x50")
    with pytest.raises(InvalidInput, match=r"Column_0, Column_1, Column_2.*in the order"):
        import_models(str(tmp_path / "a"), LABEL, files, columns)
    with pytest.raises(InvalidInput, match=r"another number of features.*2 predictors"):
        import_models(
            str(tmp_path / "a"), LABEL, files, dataclasses.replace(columns, predictors=NAMES[:2])
        )


def test_pickled_or_broken_models_are_refused(foreign: ModelFiles, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": 1}))
    with pytest.raises(InvalidInput, match=r"not a LightGBM text model.*model\.pkl.*pickle"):
        import_models(str(tmp_path / "a"), LABEL, dataclasses.replace(foreign, model=path), COLUMNS)
    path.write_text(foreign.model.read_text()[:900])
    with pytest.raises(InvalidInput, match=r"not a LightGBM text model"):
        import_models(str(tmp_path / "a"), LABEL, dataclasses.replace(foreign, model=path), COLUMNS)
    with pytest.raises(MissingInput, match=r"absent\.txt"):
        import_models(
            str(tmp_path / "a"),
            LABEL,
            dataclasses.replace(foreign, model=tmp_path / "absent.txt"),
            COLUMNS,
        )
    assert not (tmp_path / "a").exists()


def test_fold_model_of_other_features_names_them(foreign: ModelFiles, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(60, 3))
    fit(values, values[:, 0], ["mean_temp", "soil_ph", "slope"]).save_model(tmp_path / "odd.txt")
    files = dataclasses.replace(foreign, folds=(foreign.folds[0], tmp_path / "odd.txt"))
    with pytest.raises(InvalidInput, match=r"odd\.txt.*absent \['elev'\], unknown \['slope'\]"):
        import_models(str(tmp_path / "a"), LABEL, files, COLUMNS)
    fit(values, values[:, 0], ["elev", "mean_temp", "soil_ph"]).save_model(tmp_path / "odd.txt")
    with pytest.raises(InvalidInput, match=r"odd\.txt; got: another order"):
        import_models(str(tmp_path / "a"), LABEL, files, COLUMNS)


def test_model_of_several_classes_is_refused(foreign: ModelFiles, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(90, 3))
    labels = np.arange(90) % 3
    model = fit(values, labels, list("abc"), objective="multiclass", num_class=3)
    model.save_model(tmp_path / "classes.txt")
    files = ModelFiles(tmp_path / "classes.txt", foreign.training)
    with pytest.raises(InvalidInput, match="no regression with one value"):
        import_models(str(tmp_path / "a"), LABEL, files, COLUMNS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "X50"}, r"lack columns for the training table: X50"),
        ({"fold": None}, r"fold models without a fold column"),
        ({"fold": "plot"}, r"does not fit.*240 folds, 3 fold models"),
        ({"fold": "cluster"}, r"lack columns for the training table: cluster"),
        ({"predictors": ("elev", "slope", "x")}, r"lack columns for predictors: slope, x"),
    ],
)
def test_columns_that_do_not_fit(
    foreign: ModelFiles, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        import_models(str(tmp_path / "a"), LABEL, foreign, dataclasses.replace(COLUMNS, **changes))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("predictor,importance\nelev,1\nmean temp,1\n", r"absent \['soil:ph'\]"),
        ("predictor,importance\nelev,1\nmean temp,1\nsoil:ph,1\nx,1\n", r"unknown \['x'\]"),
        ("predictor,importance\nelev,1\nelev,1\nmean temp,1\nsoil:ph,1\n", r"1 twice"),
        ("predictor,importance\nelev,\nmean temp,1\nsoil:ph,1\n", r"no value"),
        ("predictor,gain\nelev,1\n", r"lack columns for importance"),
    ],
)
def test_importance_that_does_not_fit(
    foreign: ModelFiles, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "importance.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        import_models(
            str(tmp_path / "a"), LABEL, dataclasses.replace(foreign, importance=path), COLUMNS
        )


def test_rows_without_values_are_dropped_and_a_bundle_is_not_replaced(
    foreign: ModelFiles, tmp_path: Path
) -> None:
    table = pa.csv.read_csv(foreign.training).to_pydict()
    table["elev"][3] = None
    table["x50"][5] = None
    pa.csv.write_csv(pa.table(table), foreign.training)
    facts = import_models(str(tmp_path / "a"), LABEL, foreign, COLUMNS)
    assert (facts["plots"], facts["dropped"]) == (238, 2)
    with pytest.raises(InvalidInput, match="bundle already"):
        import_models(str(tmp_path / "a"), LABEL, foreign, COLUMNS)
