"""bundle.json: what a model bundle says of itself, and the checks that it must pass.

The manifest alone answers what a plan asks of a bundle, so it is read without the models.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from muster import storage
from muster.errors import InvalidInput, MissingInput
from muster.frozen import Frozen
from muster.traits.bundle.transform import TargetTransform

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT_VERSION = 1
MANIFEST_NAME = "bundle.json"
MODEL_NAME = "model.txt"
TRAINING_NAME = "training.parquet"

RESERVED_COLUMNS = ("fold", "target", "x", "y")
"""Columns of training.parquet that are no predictors; no predictor may have these names."""

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
