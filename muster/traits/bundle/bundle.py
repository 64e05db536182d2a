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
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

import muster
from muster import storage
from muster.errors import InvalidInput
from muster.traits.bundle.manifest import (
    MANIFEST_NAME,
    MODEL_NAME,
    TRAINING_NAME,
    BundleManifest,
    check_manifest,
    check_predictors,
    fold_name,
    lightgbm_feature_name,
    read_feature_names,
    read_manifest,
)
from muster.traits.bundle.transform import NO_TRANSFORM, TargetTransform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from muster.traits.bundle.training_table import TrainingTable


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
    # PyArrow, which whoever reads a bundle may do without.
    from muster.traits.bundle.training_table import render_training_table

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
    storage.sweep_temporary_siblings(folder)
