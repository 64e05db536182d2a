"""The table in docs/resampling.md as a brute force: float64, one cell and one pixel at a time.

Nothing here is shared with the code that is tested, so that both are wrong only if the table is
misread twice.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

SNAP = 1e-6


def snap(x: float) -> float:
    return float(round(x)) if abs(x - round(x)) <= SNAP else x


def extent(low: float, high: float, latitudes: tuple[float, float] | None) -> float:
    if latitudes is None:
        return high - low
    top, height = latitudes

    def sine(row: float) -> float:
        return math.sin(math.radians(min(90.0, max(-90.0, top - row * height))))

    return sine(low) - sine(high)


def taps(method: str, low: float, high: float, scale: float, latitudes=None):
    """List (pixel, weight) of one cell along one axis."""
    low, high = snap(low), snap(high)
    if method == "nearest":
        return [(math.floor(snap((low + high) / 2)), 1.0)]
    if method in ("bilinear", "cubic"):
        centre = snap(low + high) / 2
        wide = max(1.0, scale)
        found = []
        for pixel in range(math.floor(centre - 2 * wide) - 1, math.ceil(centre + 2 * wide) + 2):
            d = abs(pixel + 0.5 - centre) / wide
            if method == "bilinear":
                w = max(0.0, 1 - d)
            elif d <= 1:
                w = 1.5 * d**3 - 2.5 * d**2 + 1
            elif d < 2:
                w = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
            else:
                w = 0.0
            if abs(w) > 1e-12:
                found.append((pixel, w))
        return found
    found = []
    for pixel in range(math.floor(low), max(math.ceil(high), math.floor(low) + 1)):
        a, b = max(low, pixel), min(high, pixel + 1)
        w = extent(a, b, latitudes)
        if method == "sum" and latitudes is not None:
            whole = extent(pixel, pixel + 1, latitudes)
            w = w / whole if whole > 0 else b - a
        found.append((pixel, w))
    return found


def resample(
    values: np.ndarray[Any, Any],
    row_edges: np.ndarray[Any, Any],
    col_edges: np.ndarray[Any, Any],
    method: str,
    *,
    least_fraction: float = 0.0,
    latitudes: tuple[float, float] | None = None,
    period: int | None = None,
) -> np.ndarray[Any, Any]:
    """Resample; NaN is no value, both in the source and in the result."""
    height, width = values.shape

    def at(row: int, col: int) -> float:
        if period is not None:
            col %= period
        if 0 <= row < height and 0 <= col < width:
            return float(values[row, col])
        return math.nan

    rows, cols = len(row_edges) - 1, len(col_edges) - 1
    scales = ((row_edges[-1] - row_edges[0]) / rows, (col_edges[-1] - col_edges[0]) / cols)
    result = np.full((rows, cols), np.nan)

    def cell(name: str, i: int, j: int):
        down = taps(name, row_edges[i], row_edges[i + 1], scales[0], latitudes)
        across = taps(name, col_edges[j], col_edges[j + 1], scales[1])
        return [(at(r, c), a * b) for r, a in down for c, b in across]

    for i in range(rows):
        for j in range(cols):
            pixels = cell(method, i, j)
            if method == "cubic" and any(math.isnan(v) for v, _ in pixels):
                pixels = cell("bilinear", i, j)
            total = math.fsum(w for _, w in pixels)
            there = [(v, w) for v, w in pixels if not math.isnan(v)]
            weight = math.fsum(w for _, w in there)
            if not there or weight <= 0 or weight / total < least_fraction - 1e-9:
                continue
            if method in ("bilinear", "cubic"):
                ((r, _),) = taps("nearest", row_edges[i], row_edges[i + 1], 1)
                ((c, _),) = taps("nearest", col_edges[j], col_edges[j + 1], 1)
                if math.isnan(at(r, c)):
                    continue
            result[i, j] = combine(method, there, weight)
    return result


def combine(method: str, there: list[tuple[float, float]], weight: float) -> float:
    if method == "sum":
        return math.fsum(v * w for v, w in there)
    if method == "min":
        return min(v for v, _ in there)
    if method == "max":
        return max(v for v, _ in there)
    if method == "median":
        below = 0.0
        there = sorted(there)
        for k, (v, w) in enumerate(there):
            below += w
            if abs(below - weight / 2) <= 1e-9 * weight and k + 1 < len(there):
                return (v + there[k + 1][0]) / 2
            if below >= weight / 2:
                return v
    if method == "mode":
        classes: dict[float, list[float]] = {}
        for v, w in there:
            classes.setdefault(v, []).append(w)
        weights = {v: math.fsum(w) for v, w in classes.items()}
        most = max(weights.values())
        return min(v for v, w in weights.items() if w >= most - 1e-9 * weight)
    return math.fsum(v * w for v, w in there) / weight


def edges(offset: float, ratio: float, count: int) -> np.ndarray[Any, Any]:
    """Edges of cells in source pixels."""
    return np.array([offset + ratio * k for k in range(count + 1)])
