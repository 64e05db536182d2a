"""The picture of source and result: where they lie, what is nodata, one scale for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from matplotlib.image import imread
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.errors import InvalidInput, MissingInput
from muster.raster.categories import colour_classes
from muster.raster.grid import Band, Grid
from muster.raster.write.cog import CogFormat, write_cog
from muster.resampling import quicklook
from muster.resampling.quicklook import draw_quicklook
from tests.unit.resampling.layers import make_layer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from muster.resampling.layer import Layer

SOURCE = Affine(1, 0, -20, 0, -0.5, 60)
# Four source pixels to a cell across and down, of the source's middle.
TARGET = Grid(CRS.from_epsg(4326), Affine(4, 0, 0, 0, -2, 50), 8, 12)

Array = np.ndarray[Any, Any]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write (band, row, col) and return the path."""

    def make(name: str, values: Array, **profile: Any) -> str:
        profile = {"crs": "EPSG:4326", "transform": SOURCE, **profile}
        count, height, width = values.shape
        path = tmp_path / name
        with rasterio.open(
            path, "w", "GTiff", count=count, height=height, width=width, dtype=values.dtype,
            **profile,
        ) as data:  # fmt: skip
            data.write(values)
        return str(path)

    return make


@pytest.fixture
def field() -> Array:
    """Values from 0 in the west to 99 in the east, (1, row, col); −1 in the north."""
    values = np.tile(np.arange(100, dtype=np.float32), (1, 60, 1))
    values[:, :12] = -1
    return values


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is handed to the panels: rows, extent, title, notes."""
    calls: list[Any] = []

    def draw(rows: Any, extent: Any, title: str, notes: Any) -> Any:
        calls.append((rows[0], extent, title, notes))
        return real(rows, extent, title, notes)

    real = quicklook.draw_panels
    monkeypatch.setattr(quicklook, "draw_panels", draw)
    return calls


def layer_of(*sources: str, grid: Grid = TARGET, dtype: str = "float32", **more: Any) -> Layer:
    return make_layer("warm", grid, dtype, sources=sources, **more)


def blank(grid: Grid = TARGET, fill: float = 30.0) -> Callable[[int], tuple[Array, Grid]]:
    return lambda _: (np.full((grid.height, grid.width), fill, np.float32), grid)


def test_source_and_result_lie_where_they_are(
    write: Callable[..., str], field: Array, tmp_path: Path, drawn: list[Any]
) -> None:
    layer = layer_of(
        write("a.tif", field, nodata=-1),
        key="warm@2024-03",
        dataset={"description": "mean of the air"},
        kind="block",
        reason="whole blocks",
    )
    draw_quicklook(layer, blank(), tmp_path / "a.png")
    ((source, result), _, title, notes) = drawn[0]
    assert source.extent == (-20, 80, 30, 60)
    assert result.extent == (0, 48, 34, 50)
    assert np.isnan(source.values[:12]).all()
    np.testing.assert_array_equal(source.values[12:], field[0, 12:])
    np.testing.assert_allclose(np.nanmin(source.outline, axis=0), [0, 34])
    np.testing.assert_allclose(np.nanmax(source.outline, axis=0), [48, 50])
    # One scale, of the part that the result is made from: columns 20 to 67, a few left out.
    assert source.limits == result.limits
    assert source.limits[0] == pytest.approx(21, abs=1.5)
    assert source.limits[1] == pytest.approx(66, abs=1.5)
    assert title == "warm: mean of the air (2024-03)"
    assert notes[0] == "average, block: whole blocks"
    assert "a.tif, band 1" in notes[1]
    assert "longitude and latitude" in notes[1]
    assert imread(tmp_path / "a.png").std() > 0


def test_the_box_follows_the_targets_edge_into_the_sources_crs(
    write: Callable[..., str], field: Array, tmp_path: Path, drawn: list[Any]
) -> None:
    grid = Grid(CRS.from_epsg(3035), Affine(50_000, 0, 4_000_000, 0, -50_000, 3_500_000), 20, 30)
    draw_quicklook(layer_of(write("a.tif", field), grid=grid), blank(grid), tmp_path / "a.png")
    ((source, _), _, _, notes) = drawn[0]
    corners = source.outline[[0, 40, 80, 120]]
    expected = rasterio.warp.transform(
        grid.crs, "EPSG:4326", [4e6, 5.5e6, 5.5e6, 4e6], [3.5e6, 3.5e6, 2.5e6, 2.5e6]
    )
    np.testing.assert_allclose(corners, np.transpose(expected), rtol=1e-9)
    # Bent, not straight: halfway along the upper edge lies north of the line between its corners.
    assert source.outline[20, 1] > corners[:2, 1].mean() + 0.05
    assert "metre, EPSG:3035" in notes[2]


def test_the_datasets_own_rules_say_what_is_a_value(
    write: Callable[..., str], field: Array, tmp_path: Path, drawn: list[Any]
) -> None:
    uri = write("a.tif", np.concatenate([field, field + 1]), nodata=5)
    more = {"band": 2, "nodata": 0.0, "range": (10, 90)}
    draw_quicklook(layer_of(uri, dataset=more), blank(), tmp_path / "a.png")
    values = drawn[0][0][0].values
    expected = np.where((field + 1 >= 10) & (field + 1 <= 90), field + 1, np.nan)[0]
    np.testing.assert_array_equal(values, expected)


def test_a_mosaic_is_put_together(
    write: Callable[..., str], field: Array, tmp_path: Path, drawn: list[Any]
) -> None:
    west = write("w.tif", field[:, :, :30], nodata=-1)
    # The piece between is missing, and the eastern one begins further south.
    east = write(
        "e.tif", field[:, 20:, 60:], nodata=-1, transform=SOURCE @ Affine.translation(60, 20)
    )
    draw_quicklook(layer_of(east, west), blank(), tmp_path / "a.png")
    ((source, _), _, _, notes) = drawn[0]
    assert source.extent == (-20, 80, 30, 60)
    expected = np.where(field[0] == -1, np.nan, field[0])
    expected[:, 30:60] = np.nan
    expected[:20, 60:] = np.nan
    np.testing.assert_array_equal(source.values, expected)
    assert "e.tif and 1 more" in notes[1]


def test_classes_have_the_same_colours_on_both_sides(
    write: Callable[..., str], tmp_path: Path, drawn: list[Any]
) -> None:
    stored = np.tile(np.repeat(np.array([3, 7, 9, 200], np.uint8), 25), (1, 60, 1))
    layer = layer_of(
        write("a.tif", stored),
        dtype="uint8",
        nodata=255,
        dataset={"method": "mode", "categories": (3, 7, 9)},
    )
    result = np.full((8, 12), 9, np.uint8)
    result[0] = 255
    draw_quicklook(layer, lambda _: (result, TARGET), tmp_path / "a.png")
    source, brought = drawn[0][0]
    assert [category.label for category in source.categories] == ["3:", "7:", "9:"]
    assert brought.categories == source.categories
    assert source.values[0, [0, 30, 60]].tolist() == [0, 1, 2]
    assert np.isnan(source.values[:, 75:]).all()
    assert np.isnan(brought.values[0]).all()
    assert (brought.values[1:] == 2).all()


def test_sums_have_a_scale_of_their_own(
    write: Callable[..., str], field: Array, tmp_path: Path, drawn: list[Any]
) -> None:
    layer = layer_of(write("a.tif", field), dataset={"method": "sum"})
    draw_quicklook(layer, blank(fill=480.0), tmp_path / "a.png")
    source, result = drawn[0][0]
    assert source.limits is result.limits is None


def test_the_result_is_read_from_its_cog(
    write: Callable[..., str], field: Array, tmp_path: Path, drawn: list[Any]
) -> None:
    cog = tmp_path / "r.tif"
    values = np.arange(96, dtype=np.float32).reshape(1, 8, 12)
    values[0, 7] = np.nan
    with write_cog(cog, TARGET, [Band("warm")], CogFormat("float32", np.nan)) as writer:
        writer.write(TARGET.whole, values)
    layer = layer_of(write("a.tif", field))
    draw_quicklook(layer, cog, tmp_path / "a.png")
    ((_, result), _, _, _) = drawn[0]
    np.testing.assert_array_equal(result.values, values[0])
    assert result.extent == (0, 48, 34, 50)
    draw_quicklook(layer, cog, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("shape", [(1, 1), (2, 3000), (3000, 2), (700, 900)])
@pytest.mark.parametrize("fill", [-1, 7])
@pytest.mark.parametrize("method", ["average", "mode"])
def test_odd_rasters_are_drawn(
    write: Callable[..., str], tmp_path: Path, shape: tuple[int, int], fill: int, method: str
) -> None:
    height, width = shape
    transform = Affine(0.01, 0, 5, 0, -0.01, 50)
    grid = Grid(CRS.from_epsg(4326), transform, height, width)
    uri = write("a.tif", np.full((1, *shape), fill, np.int16), nodata=-1, transform=transform)
    layer = layer_of(uri, grid=grid, dtype="int16", nodata=-1.0, dataset={"method": method})
    stored = np.full((min(height, 640), min(width, 640)), fill, np.int16)
    draw_quicklook(layer, lambda _: (stored, grid), tmp_path / "a.png")
    picture = imread(tmp_path / "a.png")
    assert picture.std() > 0
    assert max(picture.shape) < 2000


def test_a_target_outside_the_source_is_drawn(
    write: Callable[..., str], field: Array, tmp_path: Path
) -> None:
    far = Grid(CRS.from_epsg(4326), Affine(4, 0, 100, 0, -2, -50), 8, 12)
    draw_quicklook(
        layer_of(write("a.tif", field), grid=far), blank(far, np.nan), tmp_path / "a.png"
    )
    assert imread(tmp_path / "a.png").std() > 0


def test_what_is_not_there_is_said(write: Callable[..., str], field: Array, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"absent\.tif"):
        draw_quicklook(layer_of("/data/absent.tif"), blank(), tmp_path / "a.png")
    with pytest.raises(InvalidInput, match="folder"):
        draw_quicklook(layer_of(write("a.tif", field)), blank(), tmp_path / "no" / "a.png")


def test_the_rarest_of_many_classes_share_a_colour() -> None:
    common = np.repeat(np.arange(20.0), 10)
    values = np.concatenate([common, [100.0, 101.0, np.nan]])
    categories, (numbered,) = colour_classes(values)
    assert len(categories) == 16
    assert categories[-1].label == "other:"
    assert len({category.colour for category in categories}) == 16
    assert numbered[0] == 0
    assert numbered[-3] == numbered[-2] == 15
    assert np.isnan(numbered[-1])
