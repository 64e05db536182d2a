"""Full disks: a limit that the kernel really enforces, at many points of the writing.

GDAL reports some of these failures in vague words and others not at all; whatever the point, the
error is Transient, names the file, and no file is left that could be taken for a result.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

_WRITE = """
import json, resource, sys
from pathlib import Path
import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine
from muster.errors import MusterError
from muster.raster.write.cog import CogFormat, write_cog
from muster.raster.grid import Band, Grid, Window

folder, limits, dtype, overviews = Path(sys.argv[1]), json.loads(sys.argv[2]), *sys.argv[3:]
grid = Grid(CRS.from_epsg(6933), Affine(1000, 0, 0, 0, -500, 0), 300, 410)
values = np.random.default_rng(0).integers(0, 30000, (2, 300, 410)).astype(dtype)
bands = [Band("a"), Band("b", overview="mode")]
for limit in limits:
    path = folder / "a.tif"
    scratch = folder / "scratch"
    answer = {"limit": limit}
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        form = CogFormat(dtype, -1, block_px=128, overviews=overviews == "yes")
        with write_cog(path, grid, bands, form, scratch=scratch) as cog:
            for row in range(0, 300, 50):
                cog.write(Window(row, 0, 50, 410), values[:, row : row + 50])
        answer["outcome"] = "written"
    except MusterError as error:
        answer |= {"outcome": type(error).__name__, "message": str(error)}
    answer["left"] = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))
    answer["bytes"] = path.stat().st_size if path.exists() else 0
    print(json.dumps(answer), flush=True)
    path.unlink(missing_ok=True)
"""


def write_under(limits: list[int], folder: Path, dtype: str, overviews: str) -> list[dict]:
    """Write a COG under each limit of a file's size, in a process of its own."""
    (folder / "scratch").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", _WRITE, str(folder), json.dumps(limits), dtype, overviews],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("dtype", "overviews"), [("int16", "yes"), ("float64", "no")])
def test_no_limit_lets_half_a_file_through(tmp_path: Path, dtype: str, overviews: str) -> None:
    unlimited = 1 << 40
    (whole,) = write_under([unlimited], tmp_path, dtype, overviews)
    assert whole["outcome"] == "written"
    size = whole["bytes"]
    # The drafts are larger than the file, so that most limits hit them; the last bytes of the
    # file itself are those whose loss GDAL keeps to itself.
    limits = [0, 100, 5000, size // 4, size // 2, size - 1, size, size + 1]
    limits += [size + extra for extra in (65_536, 70_000, 200_000, 400_000, 600_000, 2_000_000)]
    for answer in write_under(limits, tmp_path, dtype, overviews):
        if answer["outcome"] == "written":
            assert answer["bytes"] == size
            assert answer["left"] == ["a.tif", "scratch"]
        else:
            assert answer["outcome"] == "Transient", answer
            assert answer["left"] == ["scratch"], answer
            assert str(tmp_path) in answer["message"]
            assert "bytes free" in answer["message"]
            assert "\n" not in answer["message"]

    """Noise that does not compress makes the file larger than its drafts in float."""
    (whole,) = write_under([1 << 40], tmp_path, "float64", "no")
    answers = write_under(
        [whole["bytes"] - lost for lost in (1, 3, 4, 9)], tmp_path, "float64", "no"
    )
    assert {answer["outcome"] for answer in answers} == {"Transient"}
