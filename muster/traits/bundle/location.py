"""Where the model bundles of traits lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.locations import fill_location, find_placeholders

if TYPE_CHECKING:
    from collections.abc import Mapping


def locate_bundle(models: str, trait: str, values: Mapping[str, str | None] | None = None) -> str:
    """Say where a trait's bundle lies.

    Parameters
    ----------
    models : str
        Location of all bundles; where it does not hold ``{trait}``, the trait is the folder's
        name below it.
    trait : str
        The trait.
    values : mapping of str to str or None, optional
        Of the other placeholders.
    """
    if "trait" not in find_placeholders(models):
        models = models.rstrip("/") + "/{trait}"
    return fill_location(models, {**(values or {}), "trait": trait})
