"""The model bundle: everything that mapping a trait needs, in one folder, checked by sha256.

A bundle is written once and read on other machines, months later: so it holds LightGBM's own text
and Parquet (never a pickle), says how it was made, and is whole or not there at all.  Locally the
folder is made beside its place and renamed; on S3 the manifest is uploaded last, and a folder
without a manifest is no bundle.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

import muster
from muster import storage
from muster.errors import InvalidInput, MissingInput
from muster.jobs.model import Frozen
from muster.traits.training_table import RESERVED_COLUMNS, TrainingTable, render_training_table
from muster.traits.transform import NO_TRANSFORM, TargetTransform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FORMAT_VERSION = 1
MANIFEST_NAME = "bundle.json"
MODEL_NAME = "model.txt"
TRAINING_NAME = "training.parquet"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[float, Field(allow_inf_nan=False)]


class BundleManifest(Frozen):
    """bundle.json: what a bundle says of itself.

    Attributes
    ----------
    format_version : 1
        Raised when a reader of the former version would go wrong.
    trait, unit, description : str
        What is mapped, in which unit, in a sentence.
    predictors : tuple of str
        Band names in the model's order.
    transform : TargetTransform
        What the target went through before training.
    importance : tuple of float
        Importance of each predictor, in their order; may be negative.
    importance_method : str
        How that was measured, in a sentence.
    cv : dict of str to float
        Cross-validation metrics over held-out plots, in the trait's unit.
    crs : str or None
        CRS of the plots' x and y, as an authority code or WKT.
    seed : int
        Seed of the training.
    fold_count : int
        Number of fold models.
    settings : dict
        How the model was trained: LightGBM's parameters, the blocks, what was dropped.
    muster_version : str
        Version that wrote the bundle.
    sha256 : dict of str to str
        File name → sha256 of its content, for every file but the manifest.
    """

    format_version: Literal[1] = 1
    trait: Annotated[str, Field(min_length=1)]
    unit: str = ""
    description: str = ""
    predictors: Annotated[tuple[str, ...], Field(min_length=1)]
    transform: TargetTransform = TargetTransform()
    importance: tuple[Number, ...]
    importance_method: str = ""
    cv: Annotated[dict[str, Number], Field(default_factory=dict)]
    crs: str | None = None
    seed: int = 0
    fold_count: Annotated[int, Field(ge=0)]
    settings: Annotated[dict[str, Any], Field(default_factory=dict)]
    muster_version: str = ""
    sha256: dict[str, Sha256]


@dataclass(frozen=True)
class BundleContents:
    """What :func:`write_bundle` writes; the fields are those of :class:`BundleManifest`.

    Attributes
    ----------
    model_text : str
        LightGBM text of the model on all plots.
    fold_texts : tuple of str
        LightGBM text of each fold model, in the order of the folds' numbers.
    training : TrainingTable
        The plots that the model was trained on.
    """

    trait: str
    predictors: tuple[str, ...]
    importance: tuple[float, ...]
    model_text: str
    fold_texts: tuple[str, ...]
    training: TrainingTable
    unit: str = ""
    description: str = ""
    transform: TargetTransform = NO_TRANSFORM
    importance_method: str = ""
    cv: Mapping[str, float] = field(default_factory=dict)
    crs: str | None = None
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and checked; its files lie at local paths.

    Attributes
    ----------
    uri : str
        Where it was read from.
    trait, unit, description, predictors, transform, importance, cv, crs, seed
        As in :class:`BundleManifest`.
    model_path, fold_paths, training_path : Path
        Local copies, or the files themselves where the bundle is local.
    model_sha256 : str
        sha256 of model.txt.
    file_sha256 : mapping of str to str
        File name → sha256, of every file but the manifest.
    sha256 : str
        sha256 of bundle.json, and so of everything in the bundle.
    """

    uri: str
    trait: str
    unit: str
    description: str
    predictors: tuple[str, ...]
    transform: TargetTransform
    model_path: Path
    fold_paths: tuple[Path, ...]
    model_sha256: str
    file_sha256: Mapping[str, str]
    sha256: str
    importance: tuple[float, ...]
    importance_method: str
    cv: Mapping[str, float]
    training_path: Path
    crs: str | None
    seed: int
    settings: Mapping[str, Any]


def fold_name(index: int) -> str:
    """Name of a fold model's file in a bundle."""
    return f"fold_{index}.txt"


def lightgbm_feature_name(predictor: str) -> str:
    """Spell a predictor's name as LightGBM accepts it in a feature list.

    LightGBM refuses characters that mean something in JSON and turns white space into "_"; the
    manifest keeps the true name.
    """
    return "".join("_" if c.isspace() or c in '",:[]{}' else c for c in predictor)


def read_feature_names(model_text: str) -> tuple[str, ...]:
    """Find the feature names in LightGBM's text, without LightGBM.

    Raises
    ------
    InvalidInput
        When the text is not LightGBM's.
    """
    header, _, _ = model_text.partition("\nTree=0")
    for line in header.splitlines():
        if line.startswith("feature_names="):
            return tuple(line.removeprefix("feature_names=").split(" "))
    raise InvalidInput(
        "not a LightGBM text model",
        got=repr(model_text[:40]),
        expected="a file written by Booster.save_model",
        do="export the model as text (docs/traits.md), never as a pickle",
    )


def check_predictors(predictors: Sequence[str]) -> list[str]:
    """List what is wrong with a set of predictor names, in sentences."""
    problems = [
        f"predictor {name!r} has the name of a column of its own in training.parquet"
        for name in predictors
        if name in RESERVED_COLUMNS
    ]
    seen: dict[str, str] = {}
    for name in predictors:
        spelt = lightgbm_feature_name(name)
        if spelt in seen:
            problems.append(f"predictors {seen[spelt]!r} and {name!r} are one to LightGBM")
        seen[spelt] = name
    return problems


def write_bundle(uri: str, contents: BundleContents, *, overwrite: bool = False) -> str:
    """Write a bundle, whole or not at all.

    Parameters
    ----------
    uri : str
        Folder of the bundle: a path, ``file://`` or ``s3://``.
    contents : BundleContents
        What to write.
    overwrite : bool
        Whether a bundle that is there may be replaced.

    Returns
    -------
    str
        sha256 of the manifest.

    Raises
    ------
    InvalidInput
        When the contents do not fit together, or a bundle is there and may not be replaced.
    Transient
        When the disk is full or the storage does not answer.
    """
    problems = check_predictors(contents.predictors)
    if problems:
        raise InvalidInput("predictor names cannot be used", where=uri, got="; ".join(problems))
    files = {MODEL_NAME: contents.model_text.encode()}
    for index, text in enumerate(contents.fold_texts):
        files[fold_name(index)] = text.encode()
    files[TRAINING_NAME] = render_training_table(contents.training, contents.predictors)
    manifest = _make_manifest(contents, files)
    for name in (MODEL_NAME, *map(fold_name, range(manifest.fold_count))):
        _check_features(files[name].decode(), contents.predictors, f"{uri}: {name}")
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
    manifest_bytes = text.encode()
    if not overwrite and storage.exists(storage.join(uri, MANIFEST_NAME)):
        raise InvalidInput(
            "there is a bundle already", where=uri, do="choose another place, or ask to overwrite"
        )
    folder = storage.local_path(uri)
    if folder is None:
        _upload(uri, files, manifest_bytes)
    else:
        _replace_folder(folder, {**files, MANIFEST_NAME: manifest_bytes})
    return hashlib.sha256(manifest_bytes).hexdigest()


def read_manifest(uri: str) -> tuple[BundleManifest, str]:
    """Read and check bundle.json alone.

    Returns
    -------
    manifest : BundleManifest
        What it says.
    sha256 : str
        sha256 of the manifest's bytes.

    Raises
    ------
    MissingInput
        When there is no bundle.
    InvalidInput
        When the manifest is no manifest, or of a format that this version does not read.
    """
    where = storage.join(uri, MANIFEST_NAME)
    if not storage.exists(where):
        raise MissingInput(
            "no model bundle",
            where=uri,
            expected=f"a folder with {MANIFEST_NAME}",
            do="train one with 'muster traits train', or import one with 'muster traits import'",
        )
    data = storage.read_bytes(where)
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise InvalidInput("bundle manifest is not JSON", where=where, got=error) from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        raise InvalidInput(
            "bundle has a format that this version does not read",
            where=where,
            got=f"format_version {version!r}",
            expected=f"format_version {FORMAT_VERSION}",
            do="train the bundle again, or use the Muster that made it",
        )
    try:
        manifest = BundleManifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            "bundle manifest is not valid",
            where=f"{where}: {'.'.join(map(str, first['loc']))}",
            got=first["msg"],
            do="make the bundle again",
        ) from error
    problems = check_manifest(manifest)
    if problems:
        raise InvalidInput("bundle manifest is not valid", where=where, got="; ".join(problems))
    return manifest, hashlib.sha256(data).hexdigest()


def check_manifest(manifest: BundleManifest) -> list[str]:
    """List what does not fit together in a manifest, in sentences."""
    problems = check_predictors(manifest.predictors)
    if len(manifest.importance) != len(manifest.predictors):
        problems.append(
            f"{len(manifest.importance)} importances for {len(manifest.predictors)} predictors"
        )
    expected = {MODEL_NAME, TRAINING_NAME, *map(fold_name, range(manifest.fold_count))}
    if set(manifest.sha256) != expected:
        problems.append(
            f"sha256 of {', '.join(sorted(manifest.sha256))} where the files are "
            f"{', '.join(sorted(expected))}"
        )
    return problems


def read_bundle(uri: str, scratch: Path) -> Bundle:
    """Read a bundle and check every file of it.

    Parameters
    ----------
    uri : str
        Folder of the bundle.
    scratch : Path
        Folder that a remote bundle's files are fetched to; local ones are used where they lie.

    Returns
    -------
    Bundle
        With local paths.

    Raises
    ------
    MissingInput
        When the bundle, or a file of it, is not there.
    InvalidInput
        When a file's sha256 differs from the manifest's, or a model has other features.
    """
    manifest, sha256 = read_manifest(uri)
    folder = storage.local_path(uri)
    if folder is None:
        folder = scratch / f"bundle-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        for name in manifest.sha256:
            storage.fetch(storage.join(uri, name), folder / name)
    for name, expected in manifest.sha256.items():
        got = storage.sha256(str(folder / name))
        if got != expected:
            raise InvalidInput(
                "file of a bundle is not the one that was written",
                where=storage.join(uri, name),
                got=f"sha256 {got}",
                expected=f"sha256 {expected}",
                do="copy the bundle again, or train it again",
            )
    fold_paths = tuple(folder / fold_name(i) for i in range(manifest.fold_count))
    for path in (folder / MODEL_NAME, *fold_paths):
        _check_features(path.read_text(), manifest.predictors, storage.join(uri, path.name))
    return Bundle(
        uri=uri,
        trait=manifest.trait,
        unit=manifest.unit,
        description=manifest.description,
        predictors=manifest.predictors,
        transform=manifest.transform,
        model_path=folder / MODEL_NAME,
        fold_paths=fold_paths,
        model_sha256=manifest.sha256[MODEL_NAME],
        file_sha256=manifest.sha256,
        sha256=sha256,
        importance=manifest.importance,
        importance_method=manifest.importance_method,
        cv=manifest.cv,
        training_path=folder / TRAINING_NAME,
        crs=manifest.crs,
        seed=manifest.seed,
        settings=manifest.settings,
    )


def _make_manifest(contents: BundleContents, files: Mapping[str, bytes]) -> BundleManifest:
    try:
        manifest = BundleManifest(
            trait=contents.trait,
            unit=contents.unit,
            description=contents.description,
            predictors=contents.predictors,
            transform=contents.transform,
            importance=contents.importance,
            importance_method=contents.importance_method,
            cv=dict(contents.cv),
            crs=contents.crs,
            seed=contents.seed,
            fold_count=len(contents.fold_texts),
            settings=dict(contents.settings),
            muster_version=muster.__version__,
            sha256={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            "bundle cannot be made of this",
            where=f"{contents.trait}: {'.'.join(map(str, first['loc']))}",
            got=first["msg"],
        ) from error
    problems = check_manifest(manifest)
    if problems:
        raise InvalidInput("bundle cannot be made of this", got="; ".join(problems))
    return manifest


def _check_features(model_text: str, predictors: Sequence[str], where: str) -> None:
    got = read_feature_names(model_text)
    expected = tuple(map(lightgbm_feature_name, predictors))
    if got != expected:
        raise InvalidInput(
            "model has other features than the bundle has predictors",
            where=where,
            got=" ".join(got),
            expected=" ".join(expected),
            do="make the bundle again",
        )


def _upload(uri: str, files: Mapping[str, bytes], manifest: bytes) -> None:
    # Without its manifest a folder is no bundle, so it goes first and comes back last.
    storage.delete(storage.join(uri, MANIFEST_NAME))
    for name, data in files.items():
        storage.write_bytes(storage.join(uri, name), data)
    storage.write_bytes(storage.join(uri, MANIFEST_NAME), manifest)


def _replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    if folder.exists() and not (folder / MANIFEST_NAME).is_file() and any(folder.iterdir()):
        raise InvalidInput(
            "folder holds something that is no bundle",
            where=folder,
            do="choose a folder that is not there yet",
        )
    fresh = storage.temporary_sibling(folder)
    former = storage.temporary_sibling(folder)
    try:
        fresh.mkdir(parents=True)
        for name, data in files.items():
            with (fresh / name).open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        if folder.exists():
            folder.rename(former)
        fresh.rename(folder)
    except OSError as error:
        if former.exists() and not folder.exists():
            former.rename(folder)
        raise storage.explain_os_error(error, folder) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(former, ignore_errors=True)
