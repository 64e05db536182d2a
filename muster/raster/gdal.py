"""How GDAL is set up and addressed: threads, cache, S3, and what its errors mean.

GDAL keeps its settings per thread and speaks of files in a language of its own (``/vsis3/…``);
both are kept to this module.  Its errors arrive as three unrelated classes whose text rarely names
the cause, so the cause is looked for where it can be found out.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

# The only name under which rasterio gives out what GDAL itself reported.
from rasterio._err import CPLE_BaseError  # isort: skip

from muster import storage
from muster.errors import InvalidInput, MusterError, Transient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""Everything that rasterio raises when a file cannot be read or written."""

_OPENING = Lock()

_NETWORK = re.compile(
    r"curl|http response code|http error|timed? ?out|could not resolve|connection|throttl", re.I
)
_REFUSED = re.compile(r"\b40[0134]\b|access denied|does not exist|no such", re.I)


def gdal_options(
    threads: int, cache_mib: int, environment: Mapping[str, str]
) -> dict[str, str | int]:
    """Choose GDAL's settings.

    Parameters
    ----------
    threads : int
        How many threads GDAL may use for (de)compression and overviews.
    cache_mib : int
        Size of the block cache, in MiB; GDAL has one for the whole process.
    environment : mapping of str to str
        Where ``AWS_ENDPOINT_URL`` may stand, as boto3 reads it; the rest of the AWS settings GDAL
        finds by itself.

    Returns
    -------
    dict of str to str or int
        Settings for ``rasterio.Env``.
    """
    options: dict[str, str | int] = {
        "GDAL_NUM_THREADS": str(threads),
        # rasterio hands an integer to GDAL as bytes, though GDAL's own setting is in MB.
        "GDAL_CACHEMAX": cache_mib << 20,
        # Never list a bucket of a million objects to look for side-car files.
        "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
        "GDAL_HTTP_MAX_RETRY": "3",
        "GDAL_HTTP_RETRY_DELAY": "1",
        "GDAL_HTTP_CONNECTTIMEOUT": "10",
        # A VRT is data: it may name files, never run Python.
        "GDAL_VRT_ENABLE_PYTHON": "NO",
        # Handles of one VRT are read by several threads: what it is made of must not be shared.
        "VRT_SHARED_SOURCE": "NO",
    }
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if endpoint:
        address = urlsplit(endpoint)
        options |= {
            "AWS_S3_ENDPOINT": address.netloc + address.path.rstrip("/"),
            "AWS_HTTPS": "NO" if address.scheme == "http" else "YES",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }
    return options


def gdal_environment(threads: int, cache_mib: int) -> rasterio.Env:
    """Make the context in which rasters are read and written."""
    return rasterio.Env(**gdal_options(threads, cache_mib, os.environ))


def gdal_path(uri: str) -> str:
    """Say how GDAL calls the file or object at a URI.

    Raises
    ------
    InvalidInput
        When the URI is none that Muster reads.
    """
    path = storage.local_path(uri)
    if path is None:
        return "/vsis3/" + uri.partition("://")[2]
    # Absolute, so that a relative name is never taken for one of GDAL's connection strings.
    return str(path.absolute())


def uris_of(files: Sequence[str]) -> list[str]:
    """Turn GDAL's names of files into URIs; what it reads through other handlers is left out."""
    uris = []
    for name in files:
        if name.startswith("/vsis3/"):
            uris.append("s3://" + name.removeprefix("/vsis3/"))
        elif not name.startswith("/vsi"):
            uris.append(name)
    return uris


@contextlib.contextmanager
def open_raster(uri: str, **options: Any) -> Iterator[Any]:
    """Open a raster for reading.

    Parameters
    ----------
    uri : str
        A path, ``file://`` or ``s3://``.
    **options
        Options of GDAL's driver.

    Yields
    ------
    rasterio.DatasetReader
        Where it has no georeference, without a warning: :class:`muster.raster.grid.Grid` refuses.

    Raises
    ------
    MissingInput
        When there is nothing at the URI.
    InvalidInput
        When it is no raster that GDAL reads.
    Transient
        When the network failed.
    """
    # GDAL cannot tell absent from forbidden from broken; storage can.
    size = storage.stat(uri).bytes
    try:
        # Filters of warnings are the whole process's: two threads would restore each other's.
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(gdal_path(uri), **options)
    except GDAL_ERRORS as error:
        raise explain_read_error(error, uri, f"raster cannot be opened ({size} bytes)") from error
    with dataset:
        yield dataset


def explain_read_error(error: BaseException, uri: str, what: str) -> MusterError:
    """Turn GDAL's error on reading into the Muster error of its class.

    Parameters
    ----------
    error : Exception
        One of ``GDAL_ERRORS``.
    uri : str
        What was read.
    what : str
        What went wrong, in Muster's words.
    """
    text = gdal_message(error)
    if storage.local_path(uri) is None:
        try:
            storage.stat(uri)
        except MusterError as cause:
            return cause
    # A local VRT may name remote files, so that this holds for it as well.
    if _NETWORK.search(text) and not _REFUSED.search(text):
        return Transient(what, where=uri, got=text)
    return InvalidInput(
        what,
        where=uri,
        got=text,
        expected="a whole raster in a format that GDAL reads",
        do="check the file with 'rio info', and copy or make it again",
    )


def gdal_message(error: BaseException) -> str:
    """Collect what GDAL said, innermost last, without rasterio's references to elsewhere."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(getattr(cause, "errmsg", "") or cause).strip()
        if text and "See previous exception" not in text and text not in parts:
            parts.append(text)
        cause = cause.__cause__ or cause.__context__
    return "; ".join(parts) or type(error).__name__
