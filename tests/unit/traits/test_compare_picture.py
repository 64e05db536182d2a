"""The picture of a comparison: A, B and B − A, with colours that are right in sign."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from matplotlib.image import imread
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.cli import main
from muster.errors import InvalidInput
from muster.raster.compare.difference_picture import difference_limit
from muster.raster.grid import Band, Grid
from muster.raster.panels import Picture, draw_panels, save_figure
from muster.raster.write.cog import CogFormat, write_cog
from muster.traits.compare.picture import draw_comparison

if TYPE_CHECKING:
    from collections.abc import Callable

    from muster.raster.band_values import Extent

pytestmark = pytest.mark.slow

OURS = ("X50 prediction", "coefficient of variation", "area of applicability")
OLDER = ("X50 (mean)", "Coefficient of Variation", "Area of Applicability mask")
GREY = np.array([0xBD, 0xBD, 0xBD]) / 255
ONLY_A, ONLY_B = np.array([0x3B, 0x6F, 0xB6]) / 255, np.array([0xC2, 0x30, 0x3F]) / 255


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a product of (band, row, col) as stored, with −32768 for nodata."""

    def make(name: str, stored: np.ndarray[Any, Any], descriptions: tuple[str, ...] = OURS) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        grid = Grid(CRS.from_epsg(6933), Affine(1000, 0, 0, 0, -1000, 0), *stored.shape[1:])
        bands = [
            Band(
                text, "1", overview="mode" if text.startswith("A") or "area" in text else "average"
            )
            for text in descriptions
        ]
        with write_cog(path, grid, bands, CogFormat("int16", -32768)) as cog:
            cog.write(grid.whole, stored.astype(np.int16))
        return str(path)

    return make


@pytest.fixture
def pair(write: Callable[..., str]) -> tuple[str, str]:
    """Wide products: B is less in the west, more in the east, nodata in the south of A.

    Of the area of applicability, only A is inside in the west, only B in the east.
    """
    row, col = np.mgrid[0:350, 0:700]
    values = 1000 + 4 * row
    west, east = col < 200, col >= 500
    a = np.stack([values, values, west * 1])
    b = np.stack([values - 300 * west + 300 * east, values + 50 * west - 50 * east, east * 1])
    a[:, 275:] = -32768
    return write("a.tif", a), write("b.tif", b)


def panel(picture: np.ndarray[Any, Any], row: int, column: int) -> np.ndarray[Any, Any]:
    """Cut out the map of a panel, (row, col, 3): between its black frame."""
    dark = picture[:, :, :3].max(axis=2) < 0.02
    lines = np.flatnonzero(dark.mean(axis=1) > 0.5)
    starts = lines[np.flatnonzero(np.diff(lines, prepend=-9) > 1)]
    top, bottom = starts[2 * row], starts[2 * row + 1]
    columns = np.flatnonzero(dark[top:bottom].mean(axis=0) > 0.95)
    edges = columns[np.flatnonzero(np.diff(columns, prepend=-9) > 1)]
    left, right = edges[2 * column], edges[2 * column + 1]
    return picture[top + 3 : bottom - 2, left + 3 : right - 2, :3]


def at(cut: np.ndarray[Any, Any], row: float, col: float) -> np.ndarray[Any, Any]:
    """Return the colour at shares of a panel's height and width."""
    colour: np.ndarray[Any, Any] = cut[int(row * cut.shape[0]), int(col * cut.shape[1])]
    return colour


def test_the_difference_is_blue_where_b_is_less_and_red_where_it_is_greater(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    draw_comparison(*pair, tmp_path / "d.png")
    picture = imread(tmp_path / "d.png")
    height, width = picture.shape[:2]
    assert 1200 < width < 1800
    assert 900 < height < 1500
    for row, (west, east) in enumerate([("less", "greater"), ("greater", "less")]):
        difference = panel(picture, row, 2)
        for share, sense in ((0.1, west), (0.9, east)):
            red, _, blue = at(difference, 0.3, share)
            assert (red > blue + 0.2) == (sense == "greater"), (row, share)
            assert (blue > red + 0.2) == (sense == "less"), (row, share)
        middle = at(difference, 0.3, 0.5)
        assert middle.min() > 0.94
        np.testing.assert_allclose(at(difference, 0.9, 0.5), GREY, atol=0.01)
    changes = panel(picture, 2, 2)
    np.testing.assert_allclose(at(changes, 0.3, 0.1), ONLY_A, atol=0.01)
    np.testing.assert_allclose(at(changes, 0.3, 0.9), ONLY_B, atol=0.01)
    np.testing.assert_allclose(at(changes, 0.9, 0.9), GREY, atol=0.01)
    # A lacks the south, B does not; the same value has the same colour in both.
    np.testing.assert_allclose(at(panel(picture, 0, 0), 0.9, 0.5), GREY, atol=0.01)
    assert np.abs(at(panel(picture, 0, 1), 0.9, 0.5) - GREY).max() > 0.1
    np.testing.assert_array_equal(
        at(panel(picture, 0, 0), 0.3, 0.5), at(panel(picture, 0, 1), 0.3, 0.5)
    )


def test_an_older_mask_is_drawn_as_ours(pair: tuple[str, str], write: Callable[..., str]) -> None:
    with rasterio.open(pair[1]) as dataset:
        stored = dataset.read()
    stored[2] = np.where(stored[2] == -32768, -32768, 1 - stored[2])
    older = write("older/b.tif", stored, OLDER)
    folder = Path(pair[0]).parent
    draw_comparison(pair[0], pair[1], folder / "ours.png")
    draw_comparison(pair[0], older, folder / "older.png")
    ours, theirs = imread(folder / "ours.png"), imread(folder / "older.png")
    for column in range(3):
        np.testing.assert_array_equal(panel(ours, 2, column), panel(theirs, 2, column))


def test_the_same_products_give_the_same_bytes(pair: tuple[str, str], tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        draw_comparison(*pair, tmp_path / name)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_only_common_bands_are_drawn(write: Callable[..., str], tmp_path: Path) -> None:
    values = np.arange(3 * 40 * 50).reshape(3, 40, 50) % 2
    a = write("a.tif", values)
    b = write("b.tif", values[:1], OURS[:1])
    draw_comparison(a, a, tmp_path / "three.png")
    draw_comparison(a, b, tmp_path / "one.png")
    three, one = imread(tmp_path / "three.png"), imread(tmp_path / "one.png")
    assert three.shape[1] == one.shape[1]
    assert three.shape[0] > 2.3 * one.shape[0]
    # No difference at all is white, not a colour.
    assert panel(one, 0, 2).min() > 0.94


@pytest.mark.parametrize("shape", [(1, 1), (2, 900), (900, 2)])
@pytest.mark.parametrize("fill", [-32768, 1])
def test_odd_products_are_drawn(
    write: Callable[..., str], tmp_path: Path, shape: tuple[int, int], fill: int
) -> None:
    a = write("a.tif", np.full((3, *shape), fill))
    b = write("b.tif", np.full((3, *shape), 1))
    draw_comparison(a, b, tmp_path / "d.png")
    assert imread(tmp_path / "d.png").std() > 0


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ([np.nan], 1.0),
        ([0.0, 0.0], 1.0),
        ([0.0] * 999 + [-4.0], 4.0),
        ([-1.0] * 98 + [0.5] + [1000.0], 1.0),
    ],
)
def test_the_limit_is_robust_and_never_zero(values: list[float], limit: float) -> None:
    assert difference_limit(np.array(values)) == pytest.approx(limit)


def test_a_dollar_sign_is_no_formula(tmp_path: Path) -> None:
    extent: Extent = (0, 3, 0, 2)
    picture = Picture("$a^ $b", "$^", np.arange(6.0).reshape(2, 3), classes=False)
    save_figure(draw_panels([[picture]], extent, "$x_$", ["$/^$"]), tmp_path / "p.png")
    assert imread(tmp_path / "p.png").std() > 0


def test_a_picture_that_cannot_be_written_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(InvalidInput, match="absent"):
        draw_comparison(*pair, Path(pair[0]).parent / "absent" / "d.png")


class TestCommand:
    """``muster traits compare``, as it is called."""

    @pytest.fixture(autouse=True)
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "here"
        folder.mkdir()
        monkeypatch.chdir(folder)
        return folder

    def test_tells_people_and_leaves_a_picture_here(
        self, pair: tuple[str, str], here: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["traits", "compare", *pair]) == 0
        out = capsys.readouterr().out
        assert [path.name for path in here.iterdir()] == ["b-minus-a.png"]
        assert imread(here / "b-minus-a.png").ndim == 3
        lines = out.splitlines()
        assert lines[-1] == "picture  b-minus-a.png"
        header = next(line for line in lines if line.startswith("B − A"))
        bias = next(line for line in lines if line.startswith("mean (bias)"))
        assert header.split()[-2:] == ["prediction", "cov"]
        assert len(header) == len(bias)
        assert bias.split()[-2:] == ["0", "0"]
        assert next(line for line in lines if line.startswith("inside A")).split() == [
            "inside", "A", "0", "55,000",
        ]  # fmt: skip
        assert next(line for line in lines if line.startswith("outside A")).split() == [
            "outside", "A", "55,000", "82,500",
        ]  # fmt: skip

    def test_json_is_one_document_and_leaves_no_file(
        self, pair: tuple[str, str], here: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["traits", "compare", *pair, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert list(here.iterdir()) == []
        assert document["picture"] is None
        assert document["a"]["uri"] == pair[0]
        assert document["bands"]["prediction"]["quantiles"] == {
            "0.05": -300.0,
            "0.5": 0.0,
            "0.95": 300.0,
        }
        assert document["bands"]["prediction"]["only_b"] == 75 * 700
        assert document["bands"]["aoa"]["inside_outside"] == 275 * 200
        assert main(["traits", "compare", *pair, "--json", "--output", "new/d.png"]) == 0
        assert json.loads(capsys.readouterr().out)["picture"] == "new/d.png"
        assert [path.name for path in (here / "new").iterdir()] == ["d.png"]

    def test_files_of_one_name_are_told_apart_by_their_folders(
        self, write: Callable[..., str], here: Path
    ) -> None:
        values = np.ones((1, 3, 4))
        a = write("splot/X50.tif", values, OURS[:1])
        b = write("gbif/X50.tif", values, OURS[:1])
        assert main(["traits", "compare", a, b]) == 0
        assert [path.name for path in here.iterdir()] == ["gbif-X50-minus-splot-X50.png"]

    def test_what_is_wrong_ends_with_its_own_code_and_leaves_nothing(
        self, pair: tuple[str, str], here: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["traits", "compare", pair[0], "absent.tif"]) == 66
        assert "absent.tif" in capsys.readouterr().err
        Path("cut.tif").write_bytes(Path(pair[0]).read_bytes()[:3000])
        assert main(["traits", "compare", pair[0], "cut.tif"]) == 65
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "cut.tif" in error
        assert main(["traits", "compare", *pair, "--output", pair[0]]) == 64
        assert "--output" in capsys.readouterr().err
        assert main(["traits", "compare", *pair, "--output", "/proc/d.png"]) in (65, 66)
        assert [path.name for path in here.iterdir()] == ["cut.tif"]
