"""Fingerprints: what a band was made from, in one sha256, so that nothing is computed twice.

A band is computed again exactly when something that its values depend on has changed: the models,
the predictors, a parameter, or our own method.  What they do not depend on (threads, windows,
memory, the place of the output) stays out.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal

from muster.traits.manifest import MODEL_NAME, TRAINING_NAME, fold_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.traits.bundle import Bundle

BandName = Literal["prediction", "cov", "aoa"]

METHODS: dict[BandName, str] = {
    "prediction": "lightgbm/1",
    "cov": "std-ddof1-over-mean/1",
    "aoa": "cast-1.1.0/1",
}
"""Raised when the same inputs would give another band; all such bands are then made anew."""


def fingerprint_band(
    band: BandName,
    bundle: Bundle,
    predictors: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Any],
) -> str:
    """Put everything that a band depends on into one sha256.

    Parameters
    ----------
    band : {"prediction", "cov", "aoa"}
        Which band.
    bundle : Bundle
        The trait's bundle; only the files that this band uses count.
    predictors : sequence of mapping
        ``uri``, ``bytes`` and ``version`` of each predictor file.
    parameters : mapping of str to JSON value
        The step's parameters that change values.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    used = {
        "prediction": [MODEL_NAME],
        "cov": [fold_name(i) for i in range(len(bundle.fold_paths))],
        "aoa": [TRAINING_NAME],
    }[band]
    parts: dict[str, Any] = {
        "method": METHODS[band],
        "trait": bundle.trait,
        "unit": bundle.unit,
        "names": bundle.predictors,
        "files": [bundle.file_sha256[name] for name in used],
        "predictors": [dict(predictor) for predictor in predictors],
        "parameters": dict(parameters),
    }
    if band == "aoa":
        parts["importance"] = bundle.importance
    else:
        parts["transform"] = bundle.transform.model_dump(mode="json")
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
