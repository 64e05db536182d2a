"""The process keeps to its budget and what it takes itself, however large the raster."""

from __future__ import annotations

import pytest
import rasterio
from rasterio.transform import Affine

from muster.resampling.config.params import LEAST_MEMORY_MIB
from muster.resampling.resample import BASE_MIB
from tests.peak_memory import peak_memory_mib

BESIDE_MIB = 150

_RUN = """
from rasterio.crs import CRS
from rasterio.transform import Affine
from muster.raster.grid import Grid
from muster.resampling.config.datasets import Dataset
from muster.resampling.compute.plan_stream import Demand, prepare
from muster.resampling.compute.source import look_at_source
source = look_at_source([{path!r}])
target = Grid(CRS.from_user_input({crs!r}), Affine(*{transform!r}), {rows}, {cols})
dataset = Dataset(name="a", path="/a.tif", method={method!r})
demand = Demand({memory}, threads=2)
for window, values in prepare(source, target, dataset, demand).stream.windows():
    pass
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """100 Mpx of float32 that are not stored: blocks of zeros."""
    path = str(tmp_path_factory.mktemp("large") / "a.tif")
    profile = {
        "driver": "GTiff", "dtype": "float32", "count": 1, "height": 10_000, "width": 10_000,
        "crs": "EPSG:4326", "transform": Affine(0.001, 0, 5, 0, -0.001, 52), "tiled": True,
        "blockxsize": 512, "blockysize": 512, "compress": "deflate", "sparse_ok": True,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile):
        pass
    return path


@pytest.mark.thorough
@pytest.mark.parametrize("memory", [LEAST_MEMORY_MIB, 256])
@pytest.mark.parametrize("method", ["average", "nearest", "cubic", "mode"])
def test_one_crs(method: str, memory: int, large: str) -> None:
    place = (0.0025, 0, 5, 0, -0.0025, 52)
    said = {"path": large, "crs": "EPSG:4326", "transform": place, "method": method}
    # Once to compile what is not compiled yet, and once to see what the process takes itself.
    few = _RUN.format(**said, rows=40, cols=40, memory=memory)
    base = min(peak_memory_mib(few), peak_memory_mib(few))
    peak = peak_memory_mib(_RUN.format(**said, rows=4000, cols=4000, memory=memory))
    assert peak <= base + memory
    assert peak <= memory + (BASE_MIB if memory < 256 else BESIDE_MIB)


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["average", "bilinear"])
def test_another_crs(method: str, large: str) -> None:
    place = (250, 0, 4_000_000, 0, -250, 3_200_000)
    said = {"path": large, "crs": "EPSG:3035", "transform": place, "method": method}
    peak = peak_memory_mib(_RUN.format(**said, rows=3000, cols=3000, memory=256))
    assert peak <= 256 + BESIDE_MIB
