"""Whether a raster that was written is all there, and why it could not be written.

GDAL reports a failed write late, in words that do not name the cause ("Write error at scanline
1024"), or, when the failure comes while the file is closed, not at all: a COG cut short by a full
disk is "written" without an error.  So what was written is looked at before it is believed, and
the cause of a failure is found out by trying to write.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import shutil
import warnings
from typing import TYPE_CHECKING, Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from muster import storage
from muster.errors import InvalidInput, MissingInput, MusterError, Transient
from muster.raster.gdal import GDAL_ERRORS, gdal_message

if TYPE_CHECKING:
    from pathlib import Path

    from muster.raster.nodata import BoolArray

_PROBE_BYTES = 1 << 16
_LEADER_BYTES = 4


def check_output_folder(path: Path) -> None:
    """Refuse, before any work is done, an output that cannot be written.

    Parameters
    ----------
    path : Path
        The file that is going to be written.

    Raises
    ------
    InvalidInput
        When its folder is absent or read-only.
    Transient
        When there is no space for even a small file.
    """
    error = _try_to_write(path)
    if error is not None:
        raise error


def check_output_location(folder: str) -> None:
    """Refuse an output folder that cannot be written, by trying.

    Raises
    ------
    InvalidInput
        When the folder, or the nearest one above it that there is, cannot be written.
    """
    path = storage.local_path(folder)
    if path is None:
        return  # S3 answers only to a real upload
    nearest = path.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise InvalidInput(
            "output is not a folder", where=nearest, do="choose another output folder"
        )
    check_output_folder(nearest / "raster.tif")


def explain_write_error(path: Path, got: str, what: str = "raster") -> MusterError:
    """Find out why a raster, or another file, could not be written.

    Parameters
    ----------
    path : Path
        What was being written; whatever part of it exists is still there.
    got : str
        What GDAL, or a check, had to say.
    what : str
        What was being written, for the message.

    Returns
    -------
    MusterError
        InvalidInput where the folder is absent or read-only; Transient otherwise, with the bytes
        that are free.
    """
    error = _try_to_write(path)
    if isinstance(error, InvalidInput):
        return error
    free = shutil.disk_usage(path.parent).free
    size = path.stat().st_size if path.is_file() else 0
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and size + _PROBE_BYTES > limit:
        return Transient(
            f"{what} could not be written: the limit of a file's size is reached",
            where=path,
            got=f"{size} bytes written, limit {limit} bytes, {free} bytes free; {got}",
            do="raise the limit (ulimit -f) or write elsewhere",
        )
    reason = f"{what} could not be written"
    if error is not None or free < _PROBE_BYTES:
        reason = f"{what} could not be written: the disk is full"
    return Transient(
        reason,
        where=path,
        got=f"{size} bytes written, {free} bytes free; {got}",
        do="free some space, or write elsewhere",
    )


def _try_to_write(path: Path) -> MusterError | None:
    probe = storage.temporary_sibling(path)
    try:
        # Synced: some file systems promise space that they do not have until then.
        with probe.open("xb", buffering=0) as file:
            file.write(b"\0" * _PROBE_BYTES)
            os.fsync(file.fileno())
    except OSError as error:
        explained = storage.explain_os_error(error, path)
        if isinstance(explained, MissingInput | InvalidInput):
            return InvalidInput(
                "output cannot be written",
                where=path,
                got=error.strerror,
                expected="a folder that exists and is writable",
                do="make the folder, or choose another",
            )
        free = shutil.disk_usage(path.parent).free
        return Transient(
            "no space left to write",
            where=path,
            got=f"{error.strerror}, {free} bytes free",
            do="free some space, or write elsewhere",
        )
    finally:
        # A read-only file system refuses to remove even what was never there.
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def check_whole(path: Path, filled: BoolArray | None = None) -> list[str]:
    """List what is missing from a COG that was just written.

    GDAL writes the size of each block before it and repeats its last four bytes behind it; a
    block that is there with both was written from its first byte to its last.

    Parameters
    ----------
    path : Path
        A GeoTIFF written by GDAL's COG driver.
    filled : ndarray, (block row, block col), bool, optional
        Which blocks of the full resolution hold a value and so must be there; all by default.
        Overviews must always have all of theirs.

    Returns
    -------
    list of str
        Problems, the first of each resolution only; empty for a whole file.
    """
    try:
        # Where the head itself is cut, warnings of its tags come before anything else.
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.open(path) as dataset,
            path.open("rb") as file,
        ):
            size = os.fstat(file.fileno()).st_size
            levels: list[int | None] = [None, *range(len(dataset.overviews(1)))]
            found = (_check_level(dataset, file, size, level, filled) for level in levels)
            return [problem for problem in found if problem]
    except GDAL_ERRORS as error:
        return [f"it does not open: {gdal_message(error)}"]


def _check_level(
    dataset: Any, file: Any, size: int, level: int | None, filled: BoolArray | None
) -> str:
    name = "full resolution" if level is None else f"overview {level}"
    divisor = 1 if level is None else dataset.overviews(1)[level]
    block_height, block_width = dataset.block_shapes[0]
    # An overview has as many pixels as are touched, and so are its blocks counted.
    rows = math.ceil(math.ceil(dataset.height / divisor) / block_height)
    cols = math.ceil(math.ceil(dataset.width / divisor) / block_width)
    for row in range(rows):
        for col in range(cols):
            offset, length = (
                dataset.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1, ovr=level)
                for what in ("OFFSET", "SIZE")
            )
            where = f"block {row}, {col} at {name}"
            if offset is None:
                if level is None and filled is not None and not filled[row, col]:
                    continue
                return f"{where} is absent"
            start, stop = int(offset), int(offset) + int(length)
            if stop + _LEADER_BYTES > size:
                return f"{where} ends at byte {stop + _LEADER_BYTES} of a file of {size}"
            file.seek(start - _LEADER_BYTES)
            leader = int.from_bytes(file.read(_LEADER_BYTES), "little")
            file.seek(stop - _LEADER_BYTES)
            tail = file.read(2 * _LEADER_BYTES)
            if leader != int(length) or tail[:_LEADER_BYTES] != tail[_LEADER_BYTES:]:
                return f"{where} was written in part"
    return ""
