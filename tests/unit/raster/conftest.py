"""Rasters to read, and an S3 server that speaks over a real socket."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import boto3
import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.raster.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TRANSFORM = Affine(1000, 0, -7_000_000, 0, -500, 3_000_000)
"""Pixels twice as wide as high, so that x and y cannot be taken for each other unseen."""


@pytest.fixture
def make_grid() -> Callable[[int, int], Grid]:
    """Make a grid of (height, width)."""

    def make(height: int, width: int) -> Grid:
        return Grid(CRS.from_epsg(6933), TRANSFORM, height, width)

    return make


@pytest.fixture
def write_raster(tmp_path: Path) -> Callable[..., str]:
    """Write (band, row, col) as GeoTIFF and return its path."""

    def write(name: str, values: np.ndarray[Any, Any], **profile: Any) -> str:
        described = {
            key: profile.pop(key) for key in ("descriptions", "scales", "offsets") if key in profile
        }
        profile = {
            "driver": "GTiff",
            "dtype": values.dtype,
            "crs": "EPSG:6933",
            "transform": TRANSFORM,
            **profile,
        }
        count, height, width = values.shape
        path = tmp_path / name
        with rasterio.open(path, "w", count=count, height=height, width=width, **profile) as data:
            data.write(values)
            for key, value in described.items():
                setattr(data, key, value)
        return str(path)

    return write


@pytest.fixture
def ramp() -> Callable[[int, int, int], np.ndarray[Any, Any]]:
    """Make (band, row, col) in which every value names its band, row and column."""

    def make(bands: int, height: int, width: int) -> np.ndarray[Any, Any]:
        band, row, col = np.mgrid[0:bands, 0:height, 0:width]
        return (band * 10_000 + row * 100 + col).astype(np.float32)

    return make


_SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """Start an S3 server on a free loopback port.

    In a process of its own: rasterio keeps the interpreter to itself while it opens a file, so
    that a server in a thread could never answer.  It ends when its stdin is closed.
    """
    with subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        yield f"http://{server.stdout.readline().strip()}"


@pytest.fixture
def bucket(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make an empty bucket, and point boto3 and GDAL to it by the environment alone."""
    settings = {
        "AWS_ENDPOINT_URL": moto_endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    resource = boto3.resource("s3", endpoint_url=moto_endpoint)
    made = resource.Bucket("predictors")
    made.create()
    yield made
    made.objects.delete()
    made.delete()
