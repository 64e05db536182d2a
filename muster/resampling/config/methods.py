"""The names of the resampling methods, and which of them make sense for what.

docs/resampling.md defines each; importable without any compute package.
"""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["nearest", "bilinear", "cubic", "average", "sum", "min", "max", "median", "mode"]
METHODS: tuple[Method, ...] = get_args(Method)

KERNEL_METHODS: tuple[Method, ...] = ("bilinear", "cubic")
"""A weighted mean by a kernel around the centre of the target cell."""

AREA_METHODS: tuple[Method, ...] = ("average", "sum", "min", "max", "median", "mode")
"""Of all source pixels that a target cell overlaps."""

CATEGORY_METHODS: tuple[Method, ...] = ("nearest", "mode")
"""Give only values that the source holds, and compare no class with another."""

Weights = Literal["planar", "spherical"]

Sink = Literal["register", "tiles", "rows", "cog"]
SINKS: tuple[Sink, ...] = get_args(Sink)

Dtype = Literal["auto", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]

PlanKind = Literal["passthrough", "block", "warp"]
