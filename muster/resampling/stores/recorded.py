"""Layers in the store: recorded where they are read without a load, and read back by their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.resampling.layer import Layer
from muster.store.datasets import read_dataset, record_dataset

if TYPE_CHECKING:
    from muster.store.database import Database


def record_layer(db: Database, layer: Layer, run_id: str | None = None) -> None:
    """Record a layer, and that it is registered or lies in a COG where it says so.

    Parameters
    ----------
    layer : Layer
        Replaces what is recorded under its key.
    run_id : str, optional
        The run that made it; what is recorded stays where none is given.
    """
    places: dict[str, str] = {}
    if layer.registered:
        places["register"] = layer.dataset.path
    if layer.cog is not None:
        places["cog"] = layer.cog
    record_dataset(db, layer.to_row(), places, run_id)


def read_layer(db: Database, key: str) -> Layer:
    """Read a layer by its key.

    Raises
    ------
    MissingInput
        When the store knows none of that key; the message names those that are written alike.
    """
    return Layer.model_validate(read_dataset(db, key).document)
