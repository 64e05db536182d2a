"""The names of the engines, for whoever has to check one without a compute library at hand."""

from __future__ import annotations

from typing import Literal, get_args

PredictionEngine = Literal["quantised", "lightgbm"]
AoaEngine = Literal["tree", "blocks", "faiss", "cupy", "brute"]

PREDICTION_ENGINES: tuple[PredictionEngine, ...] = get_args(PredictionEngine)
AOA_ENGINES: tuple[AoaEngine, ...] = get_args(AoaEngine)
