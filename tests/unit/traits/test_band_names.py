"""Band names: two kinds of products, in any order, and nothing else."""

from __future__ import annotations

import pytest

from muster.traits.band_names import recognise_bands
from muster.traits.band_raster import AOA_DESCRIPTION, COV_DESCRIPTION

OURS = ("X50 prediction", COV_DESCRIPTION, AOA_DESCRIPTION)
OLDER = ("X50 (mean)", "Coefficient of Variation", "Area of Applicability mask")


def test_our_own_products_are_recognised() -> None:
    found = recognise_bands(OURS, "X50")
    assert found is not None
    assert (found.kind, found.trait, found.outside_value) == ("muster", "X50", 0)
    assert found.bands == {"prediction": 1, "cov": 2, "aoa": 3}
    assert found.statistic == ""


def test_older_products_are_recognised_and_their_mask_is_the_other_way_round() -> None:
    found = recognise_bands(OLDER, "X50")
    assert found is not None
    assert (found.kind, found.trait, found.outside_value) == ("older", "X50", 1)
    assert found.bands == {"prediction": 1, "cov": 2, "aoa": 3}
    assert found.statistic == "mean"


@pytest.mark.parametrize("names", [OURS, OLDER])
def test_bands_may_come_in_any_order_and_some_may_be_absent(names: tuple[str, ...]) -> None:
    found = recognise_bands([names[2], names[0]])
    assert found is not None
    assert list(found.bands.items()) == [("prediction", 2), ("aoa", 1)]
    assert found.trait == "X50"
    found = recognise_bands([names[1]], "X50")
    assert found is not None
    assert found.bands == {"cov": 1}
    assert found.trait == "X50"
    found = recognise_bands([names[1]])
    assert found is not None
    assert found.trait is None


@pytest.mark.parametrize(
    ("description", "kind", "trait"),
    [
        ("leaf area prediction", "muster", "leaf area"),
        ("prediction prediction", "muster", "prediction"),
        ("X50 (mean) prediction", "muster", "X50 (mean)"),
        ("X50 prediction (mean)", "older", "X50 prediction"),
        ("X50 (dry) (q95)", "older", "X50 (dry)"),
        ("é (median)", "older", "é"),
    ],
)
def test_a_trait_may_be_called_anything(description: str, kind: str, trait: str) -> None:
    found = recognise_bands([description])
    assert found is not None
    assert (found.kind, found.trait) == (kind, trait)
    assert recognise_bands([description], trait) == found
    assert recognise_bands([description], f"{trait}x") is None


@pytest.mark.parametrize(
    "descriptions",
    [
        (),
        ("",),
        (None,),
        ("X50",),
        ("prediction",),
        (" prediction",),
        ("X50  prediction",),
        ("X50 prediction ",),
        ("X50 Prediction",),
        ("X50\nX51 prediction",),
        ("(mean)",),
        ("X50 (mode)",),
        ("X50(mean)",),
        (*OURS, "dissimilarity index"),
        (*OURS, None),
        (*OURS, OURS[1]),
        (*OURS, "X51 prediction"),
        (OURS[0], OLDER[1]),
        (OLDER[0], OURS[2]),
        ("Area of applicability",),
        ("Area of Applicability",),
        ("dissimilarity index", AOA_DESCRIPTION),
    ],
)
def test_what_is_not_known_is_not_guessed(descriptions: tuple[str | None, ...]) -> None:
    assert recognise_bands(descriptions) is None
    assert recognise_bands(descriptions, "X50") is None
