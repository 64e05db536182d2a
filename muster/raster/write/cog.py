"""Writing of cloud-optimised GeoTIFFs, window by window, in bounded memory.

Windows are written to uncompressed drafts, where a window may be rewritten in place; GDAL's COG
driver then copies them, block by block in a fixed order.  So the file depends on the pixels alone,
to the byte, whatever the windows were, and it is looked at before it is believed to be there.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio.shutil

from muster import storage
from muster.errors import MusterError
from muster.raster.gdal import GDAL_ERRORS, gdal_environment, gdal_message
from muster.raster.windows import plan_memory
from muster.raster.write.draft import Draft, open_draft
from muster.raster.write.integrity import check_output_folder, check_whole, explain_write_error
from muster.raster.write.layout import draft_dtype, overview_factors, render_vrt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from muster.raster.grid import Band, Grid, Window


@dataclass(frozen=True)
class CogFormat:
    """How the pixels of a COG are stored.

    Attributes
    ----------
    dtype : str
        "uint8", "int16", "uint16", "int32", "uint32", "float32" or "float64".
    nodata : float
        Stands for no value in all bands.
    block_px : int
        Side of a block, in pixels.
    overviews : bool
        Whether there are overviews.
    sparse : bool
        Whether blocks without any value are left out of the file; with blocks of a multiple of
        256 pixels, and without overviews.
    level : int
        Of ZSTD, from 1 (fast) to 22 (small).
    """

    dtype: str
    nodata: float
    block_px: int = 512
    overviews: bool = True
    sparse: bool = False
    level: int = 9

    def __post_init__(self) -> None:
        if self.sparse and (self.overviews or self.block_px % 256):
            raise ValueError("sparse files have no overviews and blocks of 256 pixels or multiples")


@dataclass
class CogWriter:
    """A COG in the making.

    Attributes
    ----------
    drafts : tuple of (Draft, tuple of int)
        The drafts, and which of the COG's bands each of them holds.
    tags : dict of str to str
        Metadata of the whole raster; may be added to until the context ends.
    """

    drafts: tuple[tuple[Draft, tuple[int, ...]], ...]
    tags: dict[str, str] = field(default_factory=dict)

    def write(self, window: Window, values: np.ndarray[Any, Any]) -> None:
        """Write a window.

        Parameters
        ----------
        window : Window
            Inside the grid.  What is never written is nodata.
        values : ndarray, (band, row, col)
            As they are stored: packed, nodata filled in.

        Raises
        ------
        Transient
            When there is no space.
        """
        for draft, bands in self.drafts:
            draft.write(window, values[list(bands)])


@contextlib.contextmanager
def write_cog(
    path: Path,
    grid: Grid,
    bands: Sequence[Band],
    cog_format: CogFormat,
    *,
    tags: Mapping[str, str] | None = None,
    scratch: Path | None = None,
    threads: int = 1,
    memory_mib: int | None = None,
) -> Iterator[CogWriter]:
    """Write a COG.

    Parameters
    ----------
    path : Path
        Where; what is there is replaced when the context ends without an error.
    grid : Grid
        Of all bands.
    bands : sequence of Band
        In their order.
    cog_format : CogFormat
        How pixels are stored.
    tags : mapping of str to str, optional
        Metadata of the whole raster.
    scratch : Path, optional
        Folder for the drafts, which take as much as the pixels uncompressed, and a third more
        with overviews; beside ``path`` by default.
    threads : int
        How many threads GDAL may use; the file does not depend on it.
    memory_mib : int, optional
        The memory that the whole process may take, in MiB.

    Yields
    ------
    CogWriter
        To write windows to, in any order.

    Raises
    ------
    InvalidInput
        When the folder is absent or read-only.
    Transient
        When there is no space, or the file turns out not to be whole.
    """
    check_output_folder(path)
    with (
        _draft_folder(scratch or path.parent) as folder,
        gdal_environment(threads, plan_memory(memory_mib).cache_mib),
    ):
        with _open_drafts(folder, grid, bands, cog_format) as drafts:
            writer = CogWriter(drafts, dict(tags or {}))
            yield writer
        try:
            vrt = _finish_drafts(folder, grid, bands, cog_format, writer)
            _copy(vrt, path, cog_format, threads)
            _check(path, cog_format, drafts)
        except MusterError:
            path.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _draft_folder(parent: Path) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix=".muster-draft-", dir=parent))
    except OSError as error:
        raise storage.explain_os_error(error, parent) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _open_drafts(
    folder: Path, grid: Grid, bands: Sequence[Band], cog_format: CogFormat
) -> Iterator[tuple[tuple[Draft, tuple[int, ...]], ...]]:
    groups: dict[str, list[int]] = {}
    for index, band in enumerate(bands):
        groups.setdefault(band.overview, []).append(index)
    with contextlib.ExitStack() as files:
        yield tuple(
            (
                files.enter_context(
                    open_draft(
                        folder / f"{overview}.tif",
                        grid,
                        len(indexes),
                        draft_dtype(cog_format.dtype, overview),
                        cog_format.nodata,
                    )
                ),
                tuple(indexes),
            )
            for overview, indexes in groups.items()
        )


def _finish_drafts(
    folder: Path, grid: Grid, bands: Sequence[Band], cog_format: CogFormat, writer: CogWriter
) -> Path:
    factors = overview_factors(grid, cog_format.block_px) if cog_format.overviews else []
    files: list[tuple[Path, int]] = [(folder, 0)] * len(bands)
    for draft, indexes in writer.drafts:
        draft.finish(factors, bands[indexes[0]].overview)
        for number, index in enumerate(indexes, start=1):
            files[index] = (draft.path.absolute(), number)
    vrt = folder / "all.vrt"
    text = render_vrt(
        grid,
        bands,
        files,
        dtype=cog_format.dtype,
        nodata=cog_format.nodata,
        tags=writer.tags,
        overviews=len(factors),
    )
    try:
        vrt.write_text(text, encoding="utf-8")
    except OSError as error:
        raise explain_write_error(vrt, str(error.strerror)) from error
    return vrt


def _copy(vrt: Path, path: Path, cog_format: CogFormat, threads: int) -> None:
    try:
        rasterio.shutil.copy(
            vrt,
            path,
            driver="COG",
            compress="ZSTD",
            level=cog_format.level,
            predictor="YES",
            blocksize=cog_format.block_px,
            overviews="FORCE_USE_EXISTING" if cog_format.overviews else "NONE",
            sparse_ok="TRUE" if cog_format.sparse else "FALSE",
            bigtiff="IF_SAFER",
            num_threads=threads,
        )
    except GDAL_ERRORS as error:
        raise explain_write_error(path, gdal_message(error)) from error


def _check(
    path: Path, cog_format: CogFormat, drafts: Sequence[tuple[Draft, tuple[int, ...]]]
) -> None:
    filled = None
    if cog_format.sparse:
        blocks = [draft.filled_blocks(cog_format.block_px) for draft, _ in drafts]
        filled = np.logical_or.reduce(blocks)
    problems = check_whole(path, filled)
    if problems:
        raise explain_write_error(path, f"the file is not whole: {problems[0]}")
