"""Footprint: a place lies in the outline exactly when its pixel lies in the raster."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pyproj import CRS as ProjCRS
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.errors import InvalidInput
from muster.raster.footprint import find_footprint
from muster.raster.grid import Grid

if TYPE_CHECKING:
    from muster.raster.footprint import Footprint

SINUSOIDAL = "+proj=sinu +R=6371007.181 +units=m"


def make_grid(crs: str, transform: Affine, height: int, width: int) -> Grid:
    return Grid(CRS.from_user_input(crs), transform, height, width)


def centred(size: float, x: float, y: float) -> Affine:
    """A transform of square pixels from an upper left corner."""
    return Affine(size, 0, x, 0, -size, y)


GRIDS = {
    "small": make_grid("EPSG:6933", Affine(1000, 0, -7_000_000, 0, -500, 3_000_000), 700, 1100),
    "utm": make_grid("EPSG:32719", centred(3000, 300_000, 6_200_000), 300, 190),
    "rotated": make_grid(
        "EPSG:6933", centred(1000, -7_000_000, 3_000_000) @ Affine.rotation(30), 300, 190
    ),
    "south up": make_grid("EPSG:4326", Affine(0.5, 0, 10, 0, 0.5, -5), 30, 70),
    "lambert": make_grid("EPSG:3035", centred(1000, 2_500_000, 5_500_000), 4000, 5000),
    "global equal area": make_grid(
        "EPSG:6933", centred(36032.220840584, -17367530.445161, 7314540.830638), 406, 964
    ),
    "global equal area, past the seam": make_grid(
        "EPSG:6933", centred(100_000, -17_400_000, 7_300_000), 146, 348
    ),
    "global degrees": make_grid("EPSG:4326", centred(0.5, -180, 90), 360, 720),
    "global Pacific": make_grid("EPSG:3832", centred(100_000, -20_100_000, 8_000_000), 160, 402),
    "antimeridian, degrees past 180": make_grid("EPSG:4326", centred(0.5, 160, 10), 40, 90),
    "antimeridian, zone 1": make_grid("EPSG:32601", centred(3000, 100_000, 7_200_000), 100, 250),
    "antimeridian, twice by one edge": make_grid(
        "EPSG:32601", centred(10_000, 180_000, 3_000_000), 600, 60
    ),
    "antimeridian, polar": make_grid(
        "EPSG:3413", centred(25_000, -2_500_000, 2_500_000), 40, 60
    ),
    "around the north pole": make_grid(
        "EPSG:3413", centred(25_000, -3_850_000, 5_850_000), 448, 304
    ),
    "around the south pole": make_grid(
        "EPSG:3031", centred(25_000, -3_950_000, 4_350_000), 332, 316
    ),
    "pole on an edge": make_grid("EPSG:3413", centred(25_000, -2_500_000, 0), 90, 200),
    "pole on a corner": make_grid("EPSG:3413", centred(25_000, 0, 0), 90, 200),
    "pole on a corner, over the antimeridian": make_grid(
        "EPSG:3413", centred(25_000, -2_250_000, 5_000_000), 200, 90
    ),
    "pole just outside": make_grid("EPSG:3413", centred(25_000, -2_510_000, -12_000), 90, 200),
    "pole just inside": make_grid("EPSG:3413", centred(25_000, -2_510_000, 12_000), 90, 200),
    "over the pole, transverse": make_grid(
        "EPSG:32632", centred(5000, 100_000, 10_100_000), 300, 190
    ),
    "over the edge of the world": make_grid(
        "EPSG:6933", centred(9000, 9_000_000, 3_000_000), 190, 932
    ),
    "Mollweide world": make_grid("ESRI:54009", centred(100_000, -18_100_000, 9_100_000), 182, 362),
}  # fmt: skip

DISC = make_grid(
    "+proj=geos +h=35785831 +lon_0=0 +sweep=y +datum=WGS84",
    centred(30_000, -5_570_000, 5_570_000),
    372,
    372,
)


def rings_of(footprint: Footprint) -> list[np.ndarray[Any, Any]]:
    """Check what GeoJSON demands of all polygons, and give their outer rings."""
    geometry = footprint.geometry
    coordinates = geometry["coordinates"]
    polygons = {"Polygon": [coordinates], "MultiPolygon": coordinates}[geometry["type"]]
    rings = []
    for polygon in polygons:
        assert len(polygon) == 1
        ring = np.array(polygon[0])
        assert len(ring) >= 4
        assert (ring[0] == ring[-1]).all()
        assert (ring[1:] != ring[:-1]).any(axis=1).all()
        assert np.abs(ring).max(axis=0).tolist() <= [180, 90]
        assert np.abs(ring[:, 1]).max() <= 90
        x, y = ring.T
        assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0, "clockwise"
        rings.append(ring)
    return rings


def count_rings_around(footprint: Footprint, lon: Any, lat: Any) -> Any:
    """Count for each place the polygons that it lies in."""
    total = np.zeros(len(lon), dtype=int)
    for ring in rings_of(footprint):
        odd = np.zeros(len(lon), dtype=bool)
        for (x0, y0), (x1, y1) in itertools.pairwise(ring):
            if y0 != y1:
                crosses = (y0 > lat) != (y1 > lat)
                odd ^= crosses & (lon < (x1 - x0) * (lat - y0) / (y1 - y0) + x0)
        total += odd
    return total


def draw_places(grid: Grid) -> tuple[Any, Any, Any, Any]:
    """Draw places in and around a raster: longitude, latitude, column and row.

    The pixel is found from the place, not the other way round, so that there is one for each.
    """
    rng = np.random.default_rng(1)
    way = Transformer.from_crs("OGC:CRS84", ProjCRS.from_wkt(grid.crs.to_wkt()), always_xy=True)
    col = rng.uniform(-0.2 * grid.width, 1.2 * grid.width, 6000)
    row = rng.uniform(-0.2 * grid.height, 1.2 * grid.height, 6000)
    x, y = grid.transform @ (col, row)
    lon, lat = way.transform(x, y, direction="INVERSE")
    real = np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) < 90)
    lon = np.append((lon[real] + 180) % 360 - 180, rng.uniform(-180, 180, 4000))
    lat = np.append(lat[real], rng.uniform(-90, 90, 4000))
    x, y = way.transform(lon, lat)
    if grid.crs.is_geographic:
        x = np.where(x < grid.transform.c, x + 360, x)
    with np.errstate(invalid="ignore"):
        col, row = ~grid.transform @ (x, y)
    return lon, lat, col, row


@pytest.mark.parametrize("name", GRIDS)
def test_holds_what_the_raster_holds(name: str) -> None:
    grid = GRIDS[name]
    footprint = find_footprint(grid)
    lon, lat, col, row = draw_places(grid)
    inside = (col > 0) & (col < grid.width) & (row > 0) & (row < grid.height)
    assert inside.sum() > 500
    # An edge is a curve of which there are 64 pieces: nearer than this it is not decided.
    margin = max(grid.height, grid.width) / 1000
    near = np.minimum(np.abs(col), np.abs(col - grid.width)) < margin
    near |= np.minimum(np.abs(row), np.abs(row - grid.height)) < margin
    around = count_rings_around(footprint, lon, lat)
    wrong = (around != inside) & ~near
    assert not wrong.any(), np.stack([lon, lat, col, row], axis=1)[wrong][:5]
    west, south, east, north = footprint.bbox
    between = (lon >= west) & (lon <= east) if west <= east else (lon >= west) | (lon <= east)
    assert (between & (lat >= south) & (lat <= north))[inside & ~near].all()


@pytest.mark.parametrize("name", GRIDS)
def test_the_box_is_that_of_the_outline(name: str) -> None:
    footprint = find_footprint(GRIDS[name])
    west, south, east, north = footprint.bbox
    assert -180 <= west <= 180
    assert -180 <= east <= 180
    points = np.concatenate(rings_of(footprint))
    assert (south, north) == (points[:, 1].min(), points[:, 1].max())
    if west <= east:
        assert (west, east) == (points[:, 0].min(), points[:, 0].max())
    else:
        assert footprint.geometry["type"] == "MultiPolygon"
        assert west == points[:, 0][points[:, 0] > 0].min()
        assert east == points[:, 0][points[:, 0] < 0].max()


@pytest.mark.parametrize(
    ("name", "bbox"),
    [
        ("south up", (10, -5, 45, 10)),
        ("global equal area", (-180, -85.0445664, 180, 85.0445664)),
        ("global degrees", (-180, -90, 180, 90)),
        ("antimeridian, degrees past 180", (160, -10, -155, 10)),
        ("around the north pole", (-180, 30.98, 180, 90)),
        ("around the south pole", (-180, -90, 180, -39.36)),
        ("pole on a corner", (-45, 42.24, 45, 90)),
        ("pole on a corner, over the antimeridian", (135, 42.24, -135, 90)),
        ("Mollweide world", (-180, -90, 180, 90)),
        ("Earth from a satellite", (-81.30, -81.33, 81.30, 81.33)),
    ],
)
def test_known_boxes(name: str, bbox: tuple[float, ...]) -> None:
    grid = {**GRIDS, "Earth from a satellite": DISC}[name]
    assert find_footprint(grid).bbox == pytest.approx(bbox, abs=0.01)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4269", "EPSG:4322"])
def test_pixels_centred_on_poles_and_meridian_are_the_whole_world(crs: str) -> None:
    footprint = find_footprint(make_grid(crs, centred(0.25, -0.125, 90.125), 721, 1440))
    assert footprint.bbox == (-180, -90, 180, 90)
    assert footprint.geometry["coordinates"] == [
        [[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]
    ]


@pytest.mark.parametrize(
    ("width", "west", "east"),
    [
        (43200, -180, 180),
        (12000, -180, -80.000139),
        (43199, -180, 179.991526),
        (43000, -180, 178.333195),
    ],
)
@pytest.mark.parametrize("turn", [0, 360])
def test_a_grid_that_misses_the_antimeridian_by_less_than_half_a_pixel_begins_there(
    width: int, west: float, east: float, turn: int
) -> None:
    # As CHELSA's files have it.
    grid = make_grid(
        "EPSG:4326", centred(0.0083333333, turn - 180.000138888, 83.9998611), 20880, width
    )
    footprint = find_footprint(grid)
    assert footprint.geometry["type"] == "Polygon"
    assert footprint.bbox == pytest.approx((west, -90, east, 83.9998611), abs=1e-5)
    assert footprint.bbox[0] == west


def test_a_grid_that_reaches_the_antimeridian_from_the_west_ends_there() -> None:
    grid = make_grid("EPSG:4326", centred(0.0083333333, 79.9998611, 10), 100, 12000)
    assert find_footprint(grid).bbox == pytest.approx((79.9998611, 9.16667, 179.99986, 10))
    grid = make_grid("EPSG:4326", centred(0.0083333333, 80.001, 10), 100, 12000)
    assert find_footprint(grid).bbox[2] == 180
    # More than half a pixel is a pixel on the other side.
    grid = make_grid("EPSG:4326", centred(0.0083333333, 80.006, 10), 100, 12000)
    assert find_footprint(grid).bbox[2] == pytest.approx(-179.994)


def test_straight_edges_need_no_more_than_corners() -> None:
    ring = find_footprint(make_grid("EPSG:4326", centred(0.1, -70, -20), 30, 50)).geometry
    assert ring["coordinates"] == [[[-70, -23], [-65, -23], [-65, -20], [-70, -20], [-70, -23]]]


def test_an_edge_that_crosses_the_antimeridian_twice_leaves_three_parts() -> None:
    assert len(rings_of(find_footprint(GRIDS["antimeridian, twice by one edge"]))) == 3


@pytest.mark.parametrize(
    ("top", "bbox"),
    [
        (20_400, (-180, 0, 180, 90)),
        (0, (-90, 0, 90, 90)),
        (-500_000, (-85.5038, 0, 85.5038, 85.5038)),
    ],
    ids=["pole inside", "pole on the edge", "pole outside"],
)
def test_half_a_disc_has_the_pole_or_not(top: int, bbox: tuple[float, ...]) -> None:
    crs = "+proj=ortho +lat_0=90 +lon_0=0 +R=6378137"
    grid = make_grid(crs, centred(68_000, -6_696_000, top), 107, 197)
    found = find_footprint(grid).bbox
    assert found == pytest.approx(bbox, abs=1e-3)
    assert (found[3] == 90) == (bbox[3] == 90)


def test_a_tile_half_off_the_world_is_boxed_by_its_land_half() -> None:
    # MODIS tile h11v02: its upper left lies beyond the antimeridian of the sinusoidal world.
    tile = 1_111_950.5
    grid = make_grid(SINUSOIDAL, centred(tile / 240, -7 * tile, 7 * tile), 240, 240)
    assert find_footprint(grid).bbox == pytest.approx((-180, 60, -120, 70), abs=0.05)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ('LOCAL_CS["site",UNIT["metre",1]]', centred(1, 3, 4)),
        ("IAU_2015:30100", centred(1, 3, 4)),
        ("EPSG:6933", centred(1, 5e7, 4e7)),
        ("EPSG:32719", centred(1, 5e8, 4e8)),
    ],
    ids=["local", "moon", "off the equal-area world", "off the zone"],
)
def test_what_is_not_on_earth_is_refused(crs: str, transform: Affine) -> None:
    with pytest.raises(InvalidInput, match="cannot be placed on Earth") as caught:
        find_footprint(make_grid(crs, transform, 5, 6))
    assert "5 rows × 6 columns" in str(caught.value)
