"""What a raster lies on, in frozen types: the grid, a window of it, and what is said of a band.

Rows and columns swapped are the classic raster bug, so nothing here is a bare pair of numbers: a
window has a row, a column, a height and a width, by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import pyproj
from pyproj.exceptions import CRSError

from muster.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rasterio.crs import CRS
    from rasterio.transform import Affine

ALIGNMENT_TOLERANCE_PX = 1e-3
"""How far, in pixels, corners may lie apart before two grids count as different."""


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels.

    Attributes
    ----------
    row, col : int
        The upper left pixel.
    height, width : int
        Numbers of rows and columns, at least 1.
    """

    row: int
    col: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def ranges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """((row start, row stop), (column start, column stop)), as rasterio takes a window."""
        return (self.row, self.row + self.height), (self.col, self.col + self.width)


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a raster lie.

    Attributes
    ----------
    crs : rasterio.crs.CRS
        Coordinate reference system.
    transform : affine.Affine
        From (column, row) of pixel corners to (x, y) in the CRS's units.
    height, width : int
        Numbers of rows and columns.
    """

    crs: CRS
    transform: Affine
    height: int
    width: int

    @classmethod
    def from_dataset(cls, dataset: Any, where: object = None) -> Grid:
        """Take the grid of an open rasterio dataset.

        Parameters
        ----------
        dataset : rasterio.DatasetReader
            Any open dataset.
        where : object, optional
            How the file is called in messages; the dataset's own name by default.

        Raises
        ------
        InvalidInput
            When the file has no CRS or no geotransform.
        """
        where = dataset.name if where is None else where
        if dataset.crs is None:
            raise InvalidInput(
                "raster has no coordinate reference system",
                where=where,
                do="assign one, for example with: rio edit-info --crs EPSG:6933 FILE",
            )
        if dataset.transform.is_identity:
            raise InvalidInput(
                "raster has no geotransform",
                where=where,
                expected="an origin and a pixel size",
                do="assign them, for example with: rio edit-info --transform '[…]' FILE",
            )
        return cls(dataset.crs, dataset.transform, dataset.height, dataset.width)

    @property
    def whole(self) -> Window:
        """The window of all pixels."""
        return Window(0, 0, self.height, self.width)

    def describe(self) -> str:
        """Say size, pixel size, origin and CRS in one line, for messages."""
        t = self.transform
        name = self.crs.to_string()
        crs = name if len(name) < 40 else f"{name[:37]}…"
        return (
            f"{self.height} rows × {self.width} columns of {t.a:g} × {t.e:g} "
            f"from ({t.c:.10g}, {t.f:.10g}) in {crs}"
        )


def same_crs(crs: CRS, other: CRS) -> bool:
    """Say whether x and y mean the same place in two reference systems.

    Names and the order of axes do not count, as rasterio counts x before y in all of them: an ESRI
    ``.prj`` and OGC:CRS84 are EPSG:4326.  Datums do, and an unknown one is no other.

    Parameters
    ----------
    crs, other : rasterio.crs.CRS
        Of two rasters, or of a raster and a target.
    """
    if crs == other:
        return True
    texts = (one.to_wkt(version="WKT2_2019") for one in (crs, other))
    return _mean_the_same(*texts)


@lru_cache(maxsize=256)
def _mean_the_same(wkt: str, other_wkt: str) -> bool:
    try:
        crs, other = pyproj.CRS.from_wkt(wkt), pyproj.CRS.from_wkt(other_wkt)
    except CRSError:
        return False
    if crs.equals(other, ignore_axis_order=True):
        return True
    # PROJ ignores the order of axes in geographic systems alone: the others by their parts.
    if {crs.type_name, other.type_name} != {"Projected CRS"}:
        return False
    base, other_base = crs.geodetic_crs, other.geodetic_crs
    return (
        base is not None
        and other_base is not None
        and base.equals(other_base, ignore_axis_order=True)
        and crs.coordinate_operation == other.coordinate_operation
        and _axes(crs) == _axes(other)
    )


def _axes(crs: pyproj.CRS) -> list[tuple[str, float]]:
    return sorted((axis.direction, axis.unit_conversion_factor) for axis in crs.axis_info)


def check_same_grid(grid: Grid, other: Grid) -> list[str]:
    """List in which respects two grids differ.

    Parameters
    ----------
    grid, other : Grid
        Corners may lie up to ``ALIGNMENT_TOLERANCE_PX`` pixels apart.

    Returns
    -------
    list of str
        "CRS", "size" and "alignment", as they apply; empty for one and the same grid.
    """
    problems = []
    if not same_crs(grid.crs, other.crs):
        problems.append("CRS")
    if (grid.height, grid.width) != (other.height, other.width):
        problems.append("size")
    if _greatest_shift_px(grid, other) > ALIGNMENT_TOLERANCE_PX:
        problems.append("alignment")
    return problems


def _greatest_shift_px(grid: Grid, other: Grid) -> float:
    if grid.transform.is_degenerate or other.transform.is_degenerate:
        return 0.0 if grid.transform == other.transform else float("inf")
    to_px = ~grid.transform @ other.transform
    corners = [(0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height)]
    shifts = []
    for corner in corners:
        col, row = to_px @ corner
        shifts += [abs(float(col) - corner[0]), abs(float(row) - corner[1])]
    return max(shifts)


@dataclass(frozen=True)
class Band:
    """What a raster that is written says of one of its bands.

    Attributes
    ----------
    description : str
        The band's name.
    unit : str
        Unit of the values that scale and offset give; "1" for a ratio.
    scale, offset : float
        value = stored × scale + offset.
    overview : {"average", "mode"}
        How overviews are made: average for values, mode for classes.
    tags : mapping of str to str
        The band's own metadata.
    """

    description: str
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    overview: Literal["average", "mode"] = "average"
    tags: Mapping[str, str] = field(default_factory=dict)
