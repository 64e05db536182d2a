"""Files that are not whole: each way of being cut short is seen."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from matplotlib.figure import Figure

from muster.errors import Transient
from muster.raster.grid import Band, Grid, Window
from muster.raster.panels import save_figure
from muster.raster.write.cog import CogFormat, write_cog
from muster.raster.write.draft import open_draft
from muster.raster.write.integrity import check_whole, explain_write_error

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def cog(make_grid: Callable[[int, int], Grid], tmp_path: Path) -> Path:
    """A COG of 3 × 4 blocks with two overviews."""
    path = tmp_path / "a.tif"
    grid = make_grid(300, 410)
    values = np.random.default_rng(0).integers(0, 999, (2, 300, 410)).astype(np.int16)
    bands = [Band("a"), Band("b", overview="mode")]
    with write_cog(path, grid, bands, CogFormat("int16", -1, block_px=128)) as writer:
        writer.write(grid.whole, values)
    return path


def test_a_whole_file_has_no_problems(cog: Path) -> None:
    assert check_whole(cog) == []


@pytest.mark.parametrize("lost", [1, 4, 5, 1000, 0.5, 0.9, 0.999, 1.0])
def test_a_lost_end_is_seen(cog: Path, lost: float) -> None:
    data = cog.read_bytes()
    count = lost if isinstance(lost, int) else int(len(data) * lost)
    cog.write_bytes(data[: len(data) - count])
    assert len(check_whole(cog)) > 0
    assert len(check_whole(cog, np.ones((3, 4), dtype=bool))) > 0


@pytest.mark.parametrize("level", [None, 0, 1])
@pytest.mark.parametrize("part", ["start", "end"])
def test_a_hole_in_a_block_is_seen(cog: Path, level: int | None, part: str) -> None:
    with rasterio.open(cog) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1, ovr=level))
        length = int(dataset.get_tag_item("BLOCK_SIZE_0_0", "TIFF", bidx=1, ovr=level))
    start = offset - 4 if part == "start" else offset + length - 2
    with cog.open("r+b") as file:
        file.seek(start)
        file.write(b"\0" * 6)
    problems = check_whole(cog)
    assert len(problems) == 1
    assert "block 0, 0" in problems[0]


def test_an_absent_block_is_seen_unless_it_may_be_absent(
    make_grid: Callable[[int, int], Grid], tmp_path: Path
) -> None:
    path = tmp_path / "a.tif"
    cog_format = CogFormat("float64", float("nan"), block_px=256, overviews=False, sparse=True)
    with write_cog(path, make_grid(300, 410), [Band("a")], cog_format) as writer:
        writer.write(Window(260, 100, 3, 5), np.ones((1, 3, 5)))
    assert check_whole(path, np.array([[False, False], [True, False]])) == []
    assert check_whole(path) == ["block 0, 0 at full resolution is absent"]
    assert check_whole(path, np.array([[False, False], [True, True]])) == [
        "block 1, 1 at full resolution is absent"
    ]


def test_a_draft_that_lost_a_block_when_it_was_closed_is_not_believed(
    make_grid: Callable[[int, int], Grid], tmp_path: Path
) -> None:
    grid = make_grid(300, 600)
    values = np.arange(300 * 600, dtype=np.float64).reshape(1, 300, 600)
    path = tmp_path / "draft.tif"
    with open_draft(path, grid, 1, "float64", float("nan")) as draft:
        draft.write(grid.whole, values)
    draft.finish([], "average")
    # What GDAL leaves when the list of blocks could not be written: a block that reads as nodata.
    with open_draft(path, grid, 1, "float64", float("nan")) as other:
        other.write(grid.whole, np.where(values < 256 * 600, values, np.nan))
    with pytest.raises(Transient, match="the draft lost block 4, 0 of band 1"):
        draft.finish([], "average")


@pytest.mark.parametrize("factors", [[], [2, 4]])
@pytest.mark.parametrize("keep", [0, 100, -70_000])
def test_a_draft_that_was_cut_short_is_not_believed(
    make_grid: Callable[[int, int], Grid], tmp_path: Path, factors: list[int], keep: int
) -> None:
    grid = make_grid(300, 600)
    path = tmp_path / "draft.tif"
    with open_draft(path, grid, 1, "float64", float("nan")) as draft:
        draft.write(grid.whole, np.ones((1, 300, 600)))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(Transient, match=r"draft\.tif"):
        draft.finish(factors, "average")


def test_an_unknown_cause_is_transient_and_says_what_is_free(tmp_path: Path) -> None:
    error: Any = explain_write_error(tmp_path / "a.tif", "Write error\nat scanline 7")
    assert isinstance(error, Transient)
    assert "bytes free" in str(error)
    assert "Write error at scanline 7" in str(error)
    assert str(tmp_path / "a.tif") in str(error)
    assert str(error).startswith("raster could not be written; ")
    assert list(tmp_path.iterdir()) == []


def test_a_plot_that_is_cut_short_says_so_and_is_removed(tmp_path: Path) -> None:
    class Cut(Figure):
        def savefig(self, path: Any, **_: Any) -> None:
            Path(path).write_bytes(bytes(77))
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Transient, match=r"^plot could not be written.*got: 77 bytes written"):
        save_figure(Cut(), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
