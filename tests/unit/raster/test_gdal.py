"""How GDAL is addressed and set up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.errors import InvalidInput, Transient
from muster.raster.gdal import explain_read_error, gdal_message, gdal_options, gdal_path

if TYPE_CHECKING:
    from pathlib import Path


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert gdal_path("s3://bucket/a b/c%20d.tif") == "/vsis3/bucket/a b/c%20d.tif"
    assert gdal_path("file:///data/a%20b.tif") == "/data/a b.tif"
    assert gdal_path("NETCDF:a.nc") == str(tmp_path / "NETCDF:a.nc")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"},
            ("127.0.0.1:9000", "NO", "FALSE"),
        ),
        (
            {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "https://s3.example.org/x/"},
            ("s3.example.org/x", "YES", "FALSE"),
        ),
    ],
)
def test_s3_endpoint_of_boto3_is_gdals(
    environment: dict[str, str], expected: tuple[str, str, str] | None
) -> None:
    options = gdal_options(3, 64, environment)
    found = [options.get(key) for key in ("AWS_S3_ENDPOINT", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING")]
    assert found == ([None] * 3 if expected is None else list(expected))


def test_threads_cache_and_no_python_in_vrts() -> None:
    options = gdal_options(3, 64, {})
    assert options["GDAL_NUM_THREADS"] == "3"
    assert options["GDAL_CACHEMAX"] == 64 * 2**20
    assert options["GDAL_VRT_ENABLE_PYTHON"] == "NO"


def test_message_names_the_cause_and_not_where_else_it_stands() -> None:
    error = OSError("Read failed. See previous exception for details.")
    error.__cause__ = ValueError("TIFFFillTile: Read error\nat row 4")
    assert gdal_message(error) == "TIFFFillTile: Read error\nat row 4"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("TIFFFillTile: Read error at row 4", InvalidInput),
        ("Read or write failed; HTTP response code: 503", Transient),
        ("CURL error: Could not resolve host: s3.example.org", Transient),
        ("/vsis3/b/a.tif: HTTP response code: 404", InvalidInput),
    ],
)
def test_what_lies_behind_a_local_vrt_may_be_a_network(text: str, kind: type[Exception]) -> None:
    error = explain_read_error(OSError(text), "/data/all.vrt", "raster cannot be read")
    assert type(error) is kind
    assert text in str(error)
