"""Fingerprints: what a band was made from, in one sha256, so that nothing is computed twice.

A band is computed again exactly when something that its values depend on has changed: the models,
the predictors, a parameter, the engine, or our own method.  What they do not depend on (threads,
windows, memory, the place of the output) stays out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.hashing import hash_json
from muster.traits.bundle.manifest import MODEL_NAME, TRAINING_NAME, fold_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.traits.band_names import BandName
    from muster.traits.bundle.bundle import Bundle

METHODS: dict[BandName, str] = {
    "prediction": "lightgbm/1",
    "cov": "std-ddof1-over-mean/1",
    "aoa": "cast-1.1.0/1",
}
"""Raised when the same inputs would give another band; all such bands are then made anew."""

_PART_DIGITS = 12


@dataclass(frozen=True)
class Fingerprint:
    """What a band is made from.

    Attributes
    ----------
    sha256 : str
        Of all of it; 64 hexadecimal digits.
    parts : dict of str to str
        "model", "predictors", "parameters", "engine", "method" → the start of a sha256 of its own,
        by which it is told what has changed.
    """

    sha256: str
    parts: dict[str, str]

    def changes_since(self, parts: Mapping[str, str]) -> list[str]:
        """List the parts that differ from those of an earlier fingerprint."""
        return [name for name, digest in self.parts.items() if parts.get(name) != digest]


def fingerprint_band(
    band: BandName,
    bundle: Bundle,
    predictors: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Any],
    engine: str,
) -> Fingerprint:
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
    engine : str
        What computes it; for "aoa", whose engines are equal to the bit, what it is recorded under.
    """
    used = {
        "prediction": [MODEL_NAME],
        "cov": [fold_name(i) for i in range(len(bundle.fold_paths))],
        "aoa": [TRAINING_NAME],
    }[band]
    model: dict[str, Any] = {
        "trait": bundle.trait,
        "unit": bundle.unit,
        "names": bundle.predictors,
        "files": [bundle.file_sha256[name] for name in used],
    }
    if band == "aoa":
        model["importance"] = bundle.importance
    else:
        model["transform"] = bundle.transform.model_dump(mode="json")
    parts = {
        "model": hash_json(model),
        "predictors": hash_json([dict(predictor) for predictor in predictors]),
        "parameters": hash_json(dict(parameters)),
        "engine": hash_json(engine),
        "method": hash_json(METHODS[band]),
    }
    return Fingerprint(
        hash_json([band, parts]), {name: digest[:_PART_DIGITS] for name, digest in parts.items()}
    )
