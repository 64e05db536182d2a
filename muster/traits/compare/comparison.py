"""What a comparison of two products says: frozen types that JSON and texts are made from.

Nothing is computed here, so that what reads a comparison needs no raster library.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from muster.raster.compare.compared import CoverageFacts, ValueFacts

Alike = Literal["equal", "different", "unknown"]


@dataclass(frozen=True)
class ProductFacts:
    """What a product says of itself; empty texts for what it does not say.

    Attributes
    ----------
    uri : str
        As the user gave it.
    kind : {"muster", "older"}
        Whose names its bands have.
    trait, unit : str
        Of the prediction.
    bands : tuple of str
        "prediction", "cov", "aoa", those that there are.
    version : str
        Of Muster, that built it.
    model_sha256, bundle_sha256 : str
        Of the model and of its whole bundle.
    """

    uri: str
    kind: str
    trait: str
    unit: str
    bands: tuple[str, ...]
    version: str
    model_sha256: str
    bundle_sha256: str


@dataclass(frozen=True)
class BandComparison(CoverageFacts):
    """What is said of any band.

    Attributes
    ----------
    identical_bytes : bool
        Whether all pixels are stored alike, to the bit.
    made_from : {"equal", "different", "unknown"}
        Whether the fingerprints of what the bands were made from are equal.
    """

    identical_bytes: bool
    made_from: Alike


@dataclass(frozen=True)
class ValueComparison(ValueFacts, BandComparison):
    """How a band of values differs."""


@dataclass(frozen=True)
class ClassComparison(BandComparison):
    """How the areas of applicability differ; counts are pixels valid in both.

    Attributes
    ----------
    inside_inside, inside_outside, outside_inside, outside_outside : int
        Pixels of (class in A)_(class in B).
    agreement : float or None
        Share of the same class.
    inside_share_a, inside_share_b : float or None
        Share inside, of all pixels that the product has a value for.
    """

    inside_inside: int
    inside_outside: int
    outside_inside: int
    outside_outside: int
    agreement: float | None
    inside_share_a: float | None
    inside_share_b: float | None


@dataclass(frozen=True)
class Comparison:
    """How product B differs from product A.

    Attributes
    ----------
    a, b : ProductFacts
        The two.
    grid : str
        That both lie on.
    model : {"equal", "different", "unknown"}
        Whether they were predicted by the same model.
    bands : dict of str to BandComparison
        Of the bands that both have.
    notes : tuple of str
        What a reader must know to read the numbers.
    """

    a: ProductFacts
    b: ProductFacts
    grid: str
    model: Alike
    bands: dict[str, BandComparison]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return all that is known, as JSON says it."""
        return asdict(self)
