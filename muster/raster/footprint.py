"""Where on Earth a raster lies: its outline in longitude and latitude, as GeoJSON has it.

Four corners are not enough: straight edges of a projected grid are curves in degrees, a grid may
reach over the antimeridian or hold a pole, and the corners of a world map may lie off the world.
So the outline is walked in short steps, its longitudes are laid out without a jump, and only then
is it cut at the antimeridian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from muster.errors import InvalidInput

if TYPE_CHECKING:
    from muster.raster.grid import Grid

STEPS_PER_EDGE = 64
"""How many straight pieces stand for an edge of the raster, before those in line are joined."""

_HALVINGS = 8
_LATTICE = 181
_BISECTIONS = 30
_DECIMALS = 9  # a tenth of a millimetre
_WIDEST_GAP_DEG = 15.0

Point = tuple[float, float]
Ring = list[Point]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Footprint:
    """Where a raster lies, in WGS 84.

    Attributes
    ----------
    geometry : dict
        GeoJSON Polygon, or MultiPolygon where the antimeridian cuts it; (longitude, latitude) in
        degrees, rings closed and counter-clockwise.
    bbox : tuple of float
        (west, south, east, north) in degrees; west is greater than east where the antimeridian
        lies between them (RFC 7946, 5.2).
    """

    geometry: dict[str, Any]
    bbox: tuple[float, float, float, float]


def find_footprint(grid: Grid) -> Footprint:
    """Find where a raster lies on Earth.

    Parameters
    ----------
    grid : Grid
        Its CRS may be any that leads to WGS 84.

    Returns
    -------
    Footprint
        The outline; where a part of it lies off the world (the corners of a Mollweide map), the
        rectangle around what lies on it.

    Raises
    ------
    InvalidInput
        When there is no way from the CRS to WGS 84, or no pixel lies on Earth.
    """
    world = _World(grid)
    lon, lat, known = world.to_degrees(_walk_outline(grid, world.poles_px))
    if not known.all():
        return _cover_samples(world)
    ring, turns = _unwrap(lon, lat)
    longitudes = [point[0] for point in ring]
    if turns:
        poles = world.poles_inside(strictly=True)
        if abs(turns) != 1 or len(poles) != 1:
            return _cover_samples(world)
        return _close_over_pole(ring, turns, poles[0])
    span = max(longitudes) - min(longitudes)
    # Grids of rounded numbers miss the antimeridian by a fraction of a pixel.
    half_pixel = min(0.5, span / max(grid.height, grid.width) / 2)
    if span >= 360 - half_pixel:
        latitudes = [point[1] for point in ring]
        return _make_rectangle(-180.0, min(latitudes), 180.0, max(latitudes))
    return _make_footprint(ring, half_pixel)


class _World:
    """A grid's way from pixels to degrees and back."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        try:
            self.crs = CRS.from_wkt(grid.crs.to_wkt())
            self._transformer = Transformer.from_crs(self.crs, "OGC:CRS84", always_xy=True)
            self.poles_px = self._locate_poles()
        except (CRSError, ProjError) as error:
            raise self._explain(error) from error
        self._pixel = math.hypot(grid.transform.a, grid.transform.d) + math.hypot(
            grid.transform.b, grid.transform.e
        )

    def _explain(self, reason: object) -> InvalidInput:
        return InvalidInput(
            "raster cannot be placed on Earth",
            got=f"{self.grid.describe()}: {reason}",
            expected="a coordinate reference system that leads to WGS 84",
            do="check the CRS and the geotransform of the predictors",
        )

    def off_earth(self) -> InvalidInput:
        """Make the error of a raster that has no pixel on Earth."""
        return self._explain("no pixel lies on Earth")

    def to_degrees(self, px: FloatArray) -> tuple[FloatArray, FloatArray, Any]:
        """Bring (point, (column, row)) to longitude and latitude, and say which are on Earth.

        A point is on Earth where the way back leads to it again: projections are also defined,
        and wrong, beyond the edge of their world.
        """
        t = self.grid.transform
        x, y = t.a * px[:, 0] + t.b * px[:, 1] + t.c, t.d * px[:, 0] + t.e * px[:, 1] + t.f
        try:
            lon, lat = self._transformer.transform(x, y)
            known = np.isfinite(lon) & np.isfinite(lat)
            if not self.crs.is_geographic:
                back_x, back_y = self._transformer.transform(lon, lat, direction="INVERSE")
                with np.errstate(invalid="ignore"):
                    known &= np.hypot(back_x - x, back_y - y) <= self._pixel
        except ProjError as error:
            raise self._explain(error) from error
        return lon, np.clip(lat, -90.0, 90.0), known

    def _locate_poles(self) -> dict[float, Point]:
        """Return latitude → (column, row) of the poles that the CRS can show."""
        if self.crs.is_geographic:
            return {}
        x, y = self._transformer.transform([0.0, 0.0], [90.0, -90.0], direction="INVERSE")
        back = ~self.grid.transform
        found = {}
        for latitude, px, py in zip((90.0, -90.0), x, y, strict=True):
            if math.isfinite(px) and math.isfinite(py):
                col, row = back @ (px, py)
                found[latitude] = (float(col), float(row))
        return found

    def poles_inside(self, *, strictly: bool) -> list[float]:
        """List the latitudes of the poles in the raster, those on its edge if not strictly."""
        margin = 1e-6 if strictly else -1e-6
        return [
            latitude
            for latitude, (col, row) in self.poles_px.items()
            if margin < col < self.grid.width - margin and margin < row < self.grid.height - margin
        ]


def _walk_outline(grid: Grid, poles: dict[float, Point]) -> FloatArray:
    """Walk once around a raster: (point, (column, row)), not closed.

    Where an edge comes nearest to a pole there is a point too, with ever smaller steps around it:
    it decides on the greatest latitude, and the longitude turns fastest there.
    """
    cols = _steps(grid.width, [pole[0] for pole in poles.values()])
    rows = _steps(grid.height, [pole[1] for pole in poles.values()])
    bottom = [(col, float(grid.height)) for col in cols[:-1]]
    right = [(float(grid.width), row) for row in rows[:0:-1]]
    top = [(col, 0.0) for col in cols[:0:-1]]
    left = [(0.0, row) for row in rows[:-1]]
    return np.array(bottom + right + top + left, dtype=np.float64)


def _steps(length: int, more: list[float]) -> list[float]:
    steps = {length * step / STEPS_PER_EDGE for step in range(STEPS_PER_EDGE + 1)}
    near = [length / STEPS_PER_EDGE / 2**halvings for halvings in range(_HALVINGS)]
    around = {place + sign * step for place in more for step in (0, *near) for sign in (1, -1)}
    return sorted(steps | {place for place in around if 0 < place < length})


def _unwrap(lon: FloatArray, lat: FloatArray) -> tuple[Ring, int]:
    """Lay out the longitudes of a closed outline without jumps.

    Returns
    -------
    ring : list of (longitude, latitude)
        Closed; longitudes may lie outside of ±180.
    turns : int
        How often the outline goes around a pole, eastwards counted positive.
    """
    points: Ring = []
    at_pole = np.abs(lat) > 90 - 1e-9
    count = len(lon)
    for i in range(count):
        before, after = i - 1, (i + 1) % count
        if at_pole[i] and not at_pole[before] and not at_pole[after]:
            # The pole itself has all longitudes: come by one meridian, leave by the other.
            points += [(lon[before], lat[i]), (lon[after], lat[i])]
        else:
            points.append((lon[i], lat[i]))
    points.append(points[0])
    ring: Ring = []
    laid = float(points[0][0])
    previous = laid
    for longitude, latitude in points:
        step = float(longitude) - previous
        laid += step - 360 * round(step / 360)
        previous = float(longitude)
        ring.append((round(laid, _DECIMALS), round(float(latitude), _DECIMALS)))
    return ring, round((ring[-1][0] - ring[0][0]) / 360)


def _close_over_pole(ring: Ring, turns: int, pole: float) -> Footprint:
    """Close an outline around a pole along the antimeridian and the pole."""
    around = ring if turns > 0 else ring[::-1]
    # Begin where the outline crosses the antimeridian: then there is nothing to cut.
    seam = 360.0 * math.ceil((around[0][0] - 180) / 360) + 180
    index = next(i for i in range(1, len(around)) if around[i - 1][0] <= seam < around[i][0])
    latitude = _latitude_at(around[index - 1], around[index], seam)
    points = [(seam, latitude), *around[index:-1]]
    points += [(lon + 360, lat) for lon, lat in around[:index]]
    points += [(seam + 360, latitude), (seam + 360, pole), (seam, pole), (seam, latitude)]
    latitudes = [lat for _, lat in points]
    bbox = (-180.0, min(latitudes), 180.0, max(latitudes))
    return Footprint(_make_footprint(points).geometry, bbox)


def _latitude_at(start: Point, end: Point, longitude: float) -> float:
    if start[0] == end[0]:
        return end[1]
    share = (longitude - start[0]) / (end[0] - start[0])
    return round(start[1] + share * (end[1] - start[1]), _DECIMALS)


def _make_footprint(closed: Ring, slack: float = 0.0) -> Footprint:
    """Make a footprint of a closed ring of at most one turn, with longitudes laid out.

    What reaches over the antimeridian by no more than ``slack`` degrees is drawn back to it.
    """
    ring = _join_lines(closed[:-1])
    if _signed_area(ring) < 0:
        ring.reverse()
    shift = -360.0 * math.floor((min(lon for lon, _ in ring) + 180) / 360)
    if 180 - shift - min(lon for lon, _ in ring) <= slack:
        shift -= 360
    low, high = -180.0, max(lon for lon, _ in ring) + shift
    high = 180.0 if high <= 180 + slack else high
    ring = [(round(min(max(lon + shift, low), high), _DECIMALS), lat) for lon, lat in ring]
    if high <= 180:
        return Footprint({"type": "Polygon", "coordinates": [_close(ring)]}, _bounds([ring]))
    west = _cut(ring, east=False)
    east = [
        [(round(lon - 360, _DECIMALS), lat) for lon, lat in part] for part in _cut(ring, east=True)
    ]
    # Each part begins anew at the antimeridian, so the box goes over it: west > east.
    left, right = _bounds(west), _bounds(east)
    bbox = (left[0], min(left[1], right[1]), right[2], max(left[3], right[3]))
    parts = [[_close(part)] for part in (*west, *east)]
    return Footprint({"type": "MultiPolygon", "coordinates": parts}, bbox)


def _cut(ring: Ring, *, east: bool) -> list[Ring]:
    """Keep what lies west, or east, of longitude 180: rings, not closed."""
    chains: list[Ring] = []
    inside = [(lon > 180) == east for lon, _ in ring]
    start = next(i for i in range(len(ring)) if inside[i] and not inside[i - 1])
    for offset in range(len(ring)):
        i = (start + offset) % len(ring)
        if inside[i] != inside[i - 1]:
            crossing = (180.0, _latitude_at(ring[i - 1], ring[i], 180.0))
            if inside[i]:
                chains.append([crossing])
            else:
                chains[-1].append(crossing)
        if inside[i]:
            chains[-1].append(ring[i])
    # Along the meridian the polygon lies between the first and second crossing, the third and
    # fourth, and so on: that tells which chain follows which.
    ends = sorted(
        [(chain[0][1], number, True) for number, chain in enumerate(chains)]
        + [(chain[-1][1], number, False) for number, chain in enumerate(chains)]
    )
    follows = {}
    for one, other in zip(ends[::2], ends[1::2], strict=True):
        leaving, entering = (one, other) if other[2] else (other, one)
        follows[leaving[1]] = entering[1]
    rings = []
    while follows:
        number, following = follows.popitem()
        part = [*chains[number]]
        while following != number:
            part += chains[following]
            following = follows.pop(following)
        rings.append(_join_lines(part))
    return sorted(rings)


def _cover_samples(world: _World) -> Footprint:
    """Make the rectangle around those pixels that lie on Earth."""
    cols, rows = np.meshgrid(
        np.linspace(0, world.grid.width, _LATTICE), np.linspace(0, world.grid.height, _LATTICE)
    )
    lattice = np.stack([cols, rows], axis=-1)
    lon, lat, known = world.to_degrees(lattice.reshape(-1, 2))
    if not known.any():
        raise world.off_earth()
    limb_lon, limb_lat, on_earth = world.to_degrees(
        _approach_limb(world, lattice, known.reshape(cols.shape))
    )
    lon, lat = np.append(lon, limb_lon), np.append(lat, limb_lat)
    known = np.append(known, on_earth)
    lat, lon = np.round(lat[known], _DECIMALS), np.unique(np.round(lon[known], _DECIMALS))
    poles = world.poles_inside(strictly=False)
    south, north = min([float(lat.min()), *poles]), max([float(lat.max()), *poles])
    gaps = np.diff(lon, append=lon[0] + 360)
    widest = int(gaps.argmax())
    if world.poles_inside(strictly=True) or gaps[widest] < _WIDEST_GAP_DEG:
        return _make_rectangle(-180.0, south, 180.0, north)
    west = float(lon[(widest + 1) % len(lon)])
    east = float(lon[widest])
    return _make_rectangle(west, south, east if east >= west else east + 360, north)


def _approach_limb(world: _World, lattice: FloatArray, known: Any) -> FloatArray:
    """Find the last points on Earth between neighbours of which one is off it, by bisection."""
    pairs = []
    for one, other in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
    ):
        for inner, outer in ((one, other), (other, one)):
            at_limb = known[inner] & ~known[outer]
            pairs.append((lattice[inner][at_limb], lattice[outer][at_limb]))
    inside = np.concatenate([pair[0] for pair in pairs])
    outside = np.concatenate([pair[1] for pair in pairs])
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        on_earth = world.to_degrees(middle)[2][:, None]
        inside, outside = np.where(on_earth, middle, inside), np.where(on_earth, outside, middle)
    return inside


def _make_rectangle(west: float, south: float, east: float, north: float) -> Footprint:
    return _make_footprint(
        [(west, south), (east, south), (east, north), (west, north), (west, south)]
    )


def _join_lines(ring: Ring) -> Ring:
    """Leave out points that repeat the one before, or lie on the line between neighbours."""
    points = [point for i, point in enumerate(ring) if point != ring[i - 1]] or ring[:1]
    kept: Ring = []
    for i, (lon, lat) in enumerate(points):
        before = kept[-1] if kept else points[-1]
        after = points[(i + 1) % len(points)]
        width, height = after[0] - before[0], after[1] - before[1]
        cross = (lon - before[0]) * height - (lat - before[1]) * width
        if abs(cross) > 1e-9 * math.hypot(width, height):
            kept.append((lon, lat))
    return kept if len(kept) > 2 else points


def _signed_area(ring: Ring) -> float:
    return sum(
        (lon - ring[0][0]) * (ring[i - 1][1] - ring[0][1])
        - (ring[i - 1][0] - ring[0][0]) * (lat - ring[0][1])
        for i, (lon, lat) in enumerate(ring)
    ) / (-2)


def _close(ring: Ring) -> list[list[float]]:
    return [[lon + 0.0, lat + 0.0] for lon, lat in (*ring, ring[0])]


def _bounds(rings: list[Ring]) -> tuple[float, float, float, float]:
    lons = [lon + 0.0 for ring in rings for lon, _ in ring]
    lats = [lat + 0.0 for ring in rings for _, lat in ring]
    return min(lons), min(lats), max(lons), max(lats)
