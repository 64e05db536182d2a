import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from muster import storage
from muster.errors import InvalidInput, MissingInput
from muster.storage.temporaries import temporary_sibling
from muster.traits.bundle.bundle import BundleContents, read_bundle, write_bundle
from muster.traits.bundle.manifest import lightgbm_feature_name, read_feature_names
from muster.traits.bundle.training_table import TrainingTable, read_training_table
from muster.traits.bundle.transform import TargetTransform
from tests.s3_server import empty_bucket

PREDICTORS = ("mean temp", "NDRE.Sd")


def model_text(predictors: tuple[str, ...] = PREDICTORS, mark: str = "") -> str:
    names = " ".join(map(lightgbm_feature_name, predictors))
    return f"tree\nversion=v4\nfeature_names={names}\n{mark}\nTree=0\nend of trees\n"


def contents(**changes: object) -> BundleContents:
    table = TrainingTable(
        values=np.array([[1.0, 2.0], [3.0, 4.5], [5.0, -6.0]]),
        fold=np.array([0, 1, -1], dtype=np.int32),
        target=np.array([10.0, 20.0, 30.0]),
        x=np.array([-70.5, -71.0, -72.0]),
        y=np.array([-33.0, -34.0, -35.0]),
    )
    made = BundleContents(
        trait="X50",
        unit="mm",
        predictors=PREDICTORS,
        importance=(0.5, -0.01),
        model_text=model_text(),
        fold_texts=(model_text(mark="a"), model_text(mark="b")),
        training=table,
        transform=TargetTransform(kind="yeo-johnson", lambda_=0.25),
        cv={"r2": 0.5},
        crs="EPSG:4326",
        seed=7,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_bundle_is_read_as_it_was_written(tmp_path: Path) -> None:
    sha256 = write_bundle(str(tmp_path / "a" / "X50"), contents())
    bundle = read_bundle((tmp_path / "a" / "X50").as_uri(), tmp_path / "scratch")

    assert bundle.sha256 == sha256
    assert (bundle.trait, bundle.unit, bundle.seed, bundle.crs) == ("X50", "mm", 7, "EPSG:4326")
    assert bundle.predictors == PREDICTORS
    assert bundle.importance == (0.5, -0.01)
    assert bundle.transform == TargetTransform(kind="yeo-johnson", lambda_=0.25)
    assert [path.read_text() for path in bundle.fold_paths] == list(contents().fold_texts)
    assert storage.sha256(str(bundle.model_path)) == bundle.model_sha256
    table = read_training_table(bundle.training_path, bundle.predictors)
    for field in dataclasses.fields(table):
        np.testing.assert_array_equal(
            getattr(table, field.name), getattr(contents().training, field.name)
        )
    assert table.fold.dtype == np.int32
    assert not (tmp_path / "scratch").exists(), "a local bundle is not copied"
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["X50"]


def test_same_contents_give_the_same_bundle_to_the_byte(tmp_path: Path) -> None:
    assert write_bundle(str(tmp_path / "a"), contents()) == write_bundle(
        str(tmp_path / "b"), contents()
    )


def test_bundle_on_s3_style_storage_is_fetched_and_checked(tmp_path: Path, s3_server: str) -> None:
    with empty_bucket(s3_server, "models"):
        sha256 = write_bundle("s3://models/X50", contents())
        bundle = read_bundle("s3://models/X50", tmp_path)
        assert bundle.sha256 == sha256
        assert bundle.model_path.read_text() == model_text()
        storage.write_bytes("s3://models/X50/fold_1.txt", b"changed")
        with pytest.raises(InvalidInput, match=r"fold_1\.txt"):
            read_bundle("s3://models/X50", tmp_path / "again")


def test_absent_bundle_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"no model bundle.*nowhere.*muster traits train"):
        read_bundle(str(tmp_path / "nowhere"), tmp_path)


@pytest.mark.parametrize("name", ["model.txt", "fold_1.txt", "training.parquet"])
def test_changed_or_absent_file_is_found(tmp_path: Path, name: str) -> None:
    write_bundle(str(tmp_path / "b"), contents())
    path = tmp_path / "b" / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InvalidInput, match=rf"{name}.*sha256"):
        read_bundle(str(tmp_path / "b"), tmp_path)
    path.unlink()
    with pytest.raises(MissingInput, match=name):
        read_bundle(str(tmp_path / "b"), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "colour"),
        ({"format_version": 2}, "format_version 2.*expected: format_version 1"),
        ({"importance": [1.0]}, "1 importances for 2 predictors"),
        ({"fold_count": 1}, "where the files are"),
        ({"sha256": {"../../etc/passwd": "0" * 64}}, "where the files are"),
        ({"transform": {"kind": "exp"}}, "transform.kind"),
    ],
)
def test_manifest_that_does_not_hold_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    write_bundle(str(tmp_path / "b"), contents())
    path = tmp_path / "b" / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InvalidInput, match=message):
        read_bundle(str(tmp_path / "b"), tmp_path)


def test_manifest_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("{")
    with pytest.raises(InvalidInput, match="not JSON"):
        read_bundle(str(tmp_path), tmp_path)


def test_bundle_is_replaced_only_when_asked(tmp_path: Path) -> None:
    uri = str(tmp_path / "b")
    write_bundle(uri, contents())
    with pytest.raises(InvalidInput, match="bundle already"):
        write_bundle(uri, contents(unit="m"))
    assert read_bundle(uri, tmp_path).unit == "mm"
    write_bundle(uri, contents(unit="m", fold_texts=(model_text(),)), overwrite=True)
    bundle = read_bundle(uri, tmp_path)
    assert (bundle.unit, len(bundle.fold_paths)) == ("m", 1)
    assert not (tmp_path / "b" / "fold_1.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(InvalidInput, match="no bundle"):
        write_bundle(str(tmp_path), contents(), overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "three years"


def test_the_folder_of_a_killed_training_is_removed_by_the_next(tmp_path: Path) -> None:
    living = temporary_sibling(tmp_path / "X50")
    killed = living.with_name(living.name.replace(f"-{os.getpid()}.", f"-{2**30}."))
    for folder in (living, killed):
        folder.mkdir()
        (folder / "fold-0.txt").write_text("half")
    write_bundle(str(tmp_path / "X50"), contents())
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "X50", living])


def test_place_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be read or written"):
        write_bundle(str(tmp_path / "file" / "X50"), contents())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_model_with_other_features_is_refused(tmp_path: Path) -> None:
    swapped = model_text(PREDICTORS[::-1])
    with pytest.raises(InvalidInput, match=r"fold_1\.txt.*NDRE\.Sd mean_temp"):
        write_bundle(str(tmp_path / "b"), contents(fold_texts=(model_text(), swapped)))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("names", [("a", "target"), ("a b", "a_b"), ("a", "a")])
def test_predictor_names_that_clash_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(InvalidInput, match="predictor"):
        write_bundle(str(tmp_path / "b"), contents(predictors=names))


def test_pickle_is_no_model() -> None:
    with pytest.raises(InvalidInput, match="never as a pickle"):
        read_feature_names("\x80\x04\x95")
