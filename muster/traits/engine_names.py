"""The names of the engines, for whoever has to check one without a compute library at hand."""

from __future__ import annotations

import logging
from typing import Literal, get_args

log = logging.getLogger(__name__)

AUTO = "auto"

PredictionEngine = Literal["quantised", "lightgbm"]
AoaEngine = Literal["blocks", "tree", "cupy", "brute"]

PREDICTION_ENGINES: tuple[PredictionEngine, ...] = get_args(PredictionEngine)
AOA_ENGINES: tuple[AoaEngine, ...] = get_args(AoaEngine)

REMOVED_AOA_ENGINES = ("faiss",)
"""Engines of earlier versions; parameters and batches that name one run all the same."""

RECORDED_AOA_ENGINES = ("blocks", "tree", "faiss", "cupy", "brute")
"""Engines that bands were recorded under, all equal to the bit; the first stands for all now."""


def present_aoa_engine(engine: str) -> str:
    """Return an engine as it was asked for, or "auto" with a warning if it was removed."""
    if engine not in REMOVED_AOA_ENGINES:
        return engine
    log.warning("the engine %s was removed: auto takes its place, with the same result", engine)
    return AUTO
