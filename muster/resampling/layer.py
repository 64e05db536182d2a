"""What a resampled dataset is, once it is decided on: its grid, its type, and where it may be read.

A layer says enough to be read by windows without asking anybody else: merge, ``read`` and whoever
comes next take one, whether its pixels lie in Postgres, in a COG, or still in its source.
Importable without any compute package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import Field

from muster.frozen import Frozen
from muster.resampling.config.datasets import Dataset
from muster.resampling.config.methods import Dtype, PlanKind
from muster.store.datasets import DatasetRow

if TYPE_CHECKING:
    import numpy as np

    from muster.raster.grid import Grid, Window

FINGERPRINT_TAG = "MUSTER_FINGERPRINT"
"""Where a COG says what it was made from."""

TILE_PX = 256
"""Side of a tile, in cells; rows are loaded by bands of as many rows."""


class GridSpec(Frozen):
    """A grid as JSON has it.

    Attributes
    ----------
    crs : str
        WKT2, or "EPSG:4326".
    transform : tuple of float
        a, b, c, d, e, f of ``affine.Affine``.
    height, width : int
        In cells.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]

    @classmethod
    def of(cls, grid: Grid) -> GridSpec:
        """Say a grid in JSON's types."""
        t = grid.transform
        return cls(
            crs=grid.crs.to_wkt(version="WKT2_2019"),
            transform=(t.a, t.b, t.c, t.d, t.e, t.f),
            height=grid.height,
            width=grid.width,
        )

    def to_grid(self) -> Grid:
        """Return the grid; imports rasterio."""
        from rasterio.crs import CRS
        from rasterio.transform import Affine

        from muster.raster.grid import Grid

        return Grid(CRS.from_user_input(self.crs), Affine(*self.transform), self.height, self.width)


class Layer(Frozen):
    """A dataset on the target grid.

    Attributes
    ----------
    key : str
        Name in the store: the dataset's name, with ``@2024-03`` where it is of a month.
    dataset : Dataset
        As configured, placeholders filled.
    sources : tuple of str
        URIs of the files, one or those of a mosaic, sorted.
    versions : tuple of str
        What the files, and those that they draw on, were when the run was planned; none where
        nobody has looked.
    grid : GridSpec
        The target grid.
    dtype : str
        Of the values; never "auto".
    nodata : float or None
        Stands for no value; None stands for NaN, which JSON cannot say.
    kind : {"passthrough", "block", "warp"}
        How the result comes about.
    reason : str
        Why, in a sentence.
    tolerance_px : float
        How far the source's pixels may lie off the grid and count as aligned, in source pixels.
    fingerprint : str
        Of everything that the values are made from.
    cog : str or None
        URI of its COG, where it has or is to have one.
    table : str or None
        Name of its table of rows, likewise.
    tiles : bool
        Whether it lies, or is to lie, in tiles.
    registered : bool
        Whether it is read from its sources.
    """

    key: str
    dataset: Dataset
    sources: tuple[str, ...]
    versions: tuple[str, ...] = ()
    grid: GridSpec
    dtype: Dtype
    nodata: float | None = None
    kind: PlanKind
    reason: str
    tolerance_px: float = 1e-3
    fingerprint: str
    cog: str | None = None
    table: str | None = None
    tiles: bool = False
    registered: bool = False

    @property
    def nodata_value(self) -> float:
        """What stands for no value; NaN for floating-point layers."""
        return float("nan") if self.nodata is None else self.nodata

    def to_row(self) -> DatasetRow:
        """Return the layer in the store's columns."""
        return DatasetRow(
            key=self.key,
            name=self.dataset.name,
            interval_label=self.key.removeprefix(self.dataset.name).removeprefix("@") or None,
            # Pydantic's own JSON has null for NaN, which Postgres's does not know.
            document=self.model_dump_json(),
            fingerprint=self.fingerprint,
            kind=self.kind,
            reason=self.reason,
            method=self.dataset.method,
            crs=self.grid.crs,
            transform=self.grid.transform,
            height=self.grid.height,
            width=self.grid.width,
            dtype=self.dtype,
            nodata=self.nodata,
        )


class LayerReader(Protocol):
    """An open layer.  Threads need one each."""

    @property
    def grid(self) -> Grid:
        """The grid."""

    def read(self, window: Window) -> np.ndarray[Any, Any]:
        """Read a window of the grid: (row, col), the layer's dtype and nodata."""
