"""Step resampling.resample: one dataset brought to the target grid, into files and Postgres.

Each window is computed once, whatever it is for; while one is written the next is computed.  A
dataset that lies on the grid already and is only to be registered is not read at all.
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path  # noqa: TC003
from typing import TYPE_CHECKING, Any

import numpy as np

import muster
from muster.errors import ConfigError, InvalidInput
from muster.model.step import StepContext
from muster.raster.grid import Band
from muster.raster.nodata import find_valid, stored_nodata
from muster.raster.write.cog import CogFormat, write_cog
from muster.raster.write.integrity import check_output_folder
from muster.resampling.compute.plan_stream import Demand, Prepared, prepare
from muster.resampling.compute.source import Source, look_at_source, read_versions
from muster.resampling.config.methods import CATEGORY_METHODS
from muster.resampling.layer import FINGERPRINT_TAG, Layer
from muster.resampling.stores.load import open_load
from muster.resampling.stores.read import open_layer
from muster.resampling.stores.registered import open_registered
from muster.resampling.thumbnail import Thumbnail
from muster.store.database import URL_VARIABLE, Database

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from muster.raster.grid import Window
    from muster.raster.write.cog import CogWriter
    from muster.resampling.config.methods import Sink
    from muster.resampling.stores.load import DatasetLoad

BASE_MIB = 256
"""What the process takes beside its budget: the interpreter, its libraries, their caches."""

LEAST_BUDGET_MIB = 64

_COG_LEVEL = 1
"""Of ZSTD: 3 % larger than at 3, for two thirds of the time."""


def resample_dataset(
    *,
    layer: dict[str, Any],
    memory_mib: int = 512,
    window_px: int | None = None,
    overwrite: bool = False,
    run: str | None = None,
    estimate: dict[str, Any] | None = None,
    cog: Path | None = None,
    quicklook: Path | None = None,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Bring a dataset to the target grid, and put it where it is to be stored.

    Parameters
    ----------
    layer : dict
        As :class:`muster.resampling.layer.Layer`: dataset, sources, grid, type, decision, stores.
    memory_mib : int
        Budget of the windows, in MiB; capped by what the process may take.
    window_px : int, optional
        Longest side of a window, in target cells; the result does not depend on it.
    overwrite : bool
        Whether to load what has been loaded from the same source already.
    run : str, optional
        Name of the run, recorded with what is loaded.
    estimate : dict, optional
        What the plan expected; not used.
    cog : Path, optional
        The COG to write.
    quicklook : Path, optional
        The PNG to draw; none is drawn of what is only registered, since that would read it.
    context : StepContext
        Threads, memory, scratch folder, progress.

    Returns
    -------
    dict
        ``kind``, ``cells``, ``cells_valid``, ``least``, ``greatest`` and ``windows`` of what was
        computed, ``loaded`` (store → windows loaded), and ``bytes`` of the COG.

    Raises
    ------
    MissingInput
        When a source is not there.
    InvalidInput
        When a source is damaged, or another than when the run was planned; when an output cannot
        be written.
    ConfigError
        When the memory is too small, or there is no store to load to.
    Transient
        When there is no space, the network failed, or another process loads the same dataset.
    """
    del estimate
    wanted = Layer.model_validate(layer)
    for path in (cog, quicklook):
        if path is not None:
            check_output_folder(path)
    asked: tuple[tuple[Sink, object], ...] = (("tiles", wanted.tiles), ("rows", wanted.table))
    stores = [store for store, is_asked in asked if is_asked]
    if wanted.registered:
        return _register(wanted)
    demand = Demand(
        memory_mib=budget_mib(memory_mib, context.memory_mib),
        threads=context.threads,
        window_px=window_px,
        loads=bool(stores),
    )
    source = look_at_source(wanted.sources, wanted.dataset.band)
    _check_versions(wanted, source)
    prepared = prepare(
        source,
        wanted.grid.to_grid(),
        wanted.dataset,
        demand,
        tolerance_px=wanted.tolerance_px,
    )
    _check_as_planned(wanted, prepared)
    db = _open_store() if stores else None
    with contextlib.ExitStack() as stack:
        loads = {
            store: stack.enter_context(open_load(db, wanted, store, run_id=run, again=overwrite))
            for store in stores
            if db is not None
        }
        writer = stack.enter_context(_write_cog(wanted, cog, demand, context)) if cog else None
        work = _Work(wanted, prepared, loads, writer)
        work.run(context)
        # What is published under the plan's fingerprint was made from what the plan saw.
        _check_versions(wanted, source)
        for load in loads.values():
            load.finish()
    if quicklook is not None and cog is None:
        work.pick_rest(db)
    facts = work.facts()
    if cog is not None:
        facts["bytes"] = cog.stat().st_size
    if quicklook is not None:
        # What draws takes as long to import as the rest together.
        from muster.resampling.quicklook import draw_quicklook

        draw_quicklook(wanted, cog or work.thumbnail.read, quicklook)
    context.progress(1.0, "stored")
    return facts


def budget_mib(asked_mib: int, process_mib: int | None) -> int:
    """Cap a budget by what the process may take beside it.

    Raises
    ------
    ConfigError
        When nothing is left.
    """
    if process_mib is None:
        return asked_mib
    left = process_mib - BASE_MIB
    if left < LEAST_BUDGET_MIB:
        raise ConfigError(
            "the placement gives too little memory",
            where="resampling.resample",
            got=f"{process_mib}MiB",
            expected=f"at least {BASE_MIB + LEAST_BUDGET_MIB}MiB",
            do="raise its memory in the site file, or in the run's resources",
        )
    return min(asked_mib, left)


class _Work:
    """The windows of one dataset on their way from the source to the stores."""

    def __init__(
        self,
        layer: Layer,
        prepared: Prepared,
        loads: Mapping[Sink, DatasetLoad],
        writer: CogWriter | None,
    ) -> None:
        self.thumbnail = Thumbnail(layer)
        self._layer = layer
        self._prepared = prepared
        self._loads = loads
        self._writer = writer
        self._nodata = stored_nodata(layer.nodata, layer.dtype)
        self._loaded = dict.fromkeys(loads, 0)
        self._computed: set[Window] = set()
        self._cells = self._valid = 0
        self._least, self._greatest = np.inf, -np.inf

    def run(self, context: StepContext) -> None:
        """Compute every window that anybody lacks, and write it."""
        stream = self._prepared.stream
        every = list(stream.work)
        missing = {
            store: {window: parts for window in every if (parts := load.missing_windows([window]))}
            for store, load in self._loads.items()
        }
        lacking = set(every) if self._writer else set().union(*missing.values())
        with ThreadPoolExecutor(1) as writing:
            before = None
            for number, (window, values) in enumerate(stream.windows(lacking), start=1):
                if before is not None:
                    before.result()
                before = writing.submit(self._write, window, values, missing)
                context.progress(0.95 * number / len(lacking), f"window {number} of {len(lacking)}")
            if before is not None:
                before.result()

    def pick_rest(self, db: Database | None) -> None:
        """Pick what an earlier attempt has loaded from where it was loaded to."""
        rest = [window for window in self._prepared.stream.work if window not in self._computed]
        if rest:
            with open_layer(self._layer, db) as reader:
                for window in rest:
                    self.thumbnail.take(window, reader.read(window))

    def facts(self) -> dict[str, Any]:
        """Say what was done."""
        facts: dict[str, Any] = {
            "kind": self._prepared.fit.kind,
            "windows": len(self._computed),
            "cells": self._cells,
            "cells_valid": self._valid,
        }
        if self._valid:
            facts |= {"least": float(self._least), "greatest": float(self._greatest)}
        if self._loads:
            facts["loaded"] = self._loaded
        return facts

    def _write(
        self,
        window: Window,
        values: np.ndarray[Any, Any],
        missing: Mapping[Sink, Mapping[Window, Sequence[Window]]],
    ) -> None:
        valid = find_valid(values, self._nodata)
        self._computed.add(window)
        self._cells += window.pixels
        self._valid += int(np.count_nonzero(valid))
        if valid.any():
            self._least = min(self._least, values[valid].min())
            self._greatest = max(self._greatest, values[valid].max())
        self.thumbnail.take(window, values)
        if self._writer is not None and valid.any():
            self._writer.write(window, values[np.newaxis])
        for store, load in self._loads.items():
            for part in missing[store].get(window, ()):
                row, col = part.row - window.row, part.col - window.col
                load.write(part, values[row : row + part.height, col : col + part.width])
                self._loaded[store] += 1


def _register(layer: Layer) -> dict[str, Any]:
    """Look whether a source still lies on the grid; no pixel of it is read."""
    with open_registered(layer):
        pass
    return {"kind": "passthrough", "registered": True, "windows": 0}


def _check_versions(layer: Layer, source: Source) -> None:
    """Refuse sources that changed since the plan: their fingerprint would tell of others."""
    if not layer.versions:
        return
    found = read_versions(source)
    for uri, got, expected in zip_longest(source.files, found, layer.versions):
        if got != expected:
            raise InvalidInput(
                "the source has changed since the run was planned",
                where=uri or source.name,
                got=got,
                expected=expected,
                do="start a new run, or clear the task inspect",
            )


def _check_as_planned(layer: Layer, prepared: Prepared) -> None:
    nodata = prepared.finish.nodata
    found = (prepared.fit.kind, prepared.finish.dtype, None if np.isnan(nodata) else nodata)
    if found != (layer.kind, layer.dtype, layer.nodata):
        raise InvalidInput(
            "the source is another than when the run was planned",
            where=prepared.source.name,
            got=f"{found[0]}, {found[1]}, nodata {found[2]}",
            expected=f"{layer.kind}, {layer.dtype}, nodata {layer.nodata}",
            do="start a new run, or clear the task inspect",
        )


def _open_store() -> Database:
    if not os.environ.get(URL_VARIABLE):
        raise ConfigError(
            "tiles and rows go to Postgres, and this job does not know where that is",
            where=URL_VARIABLE,
            expected="postgresql://user:password@host/muster",
            do="set it in the environment of the cluster's jobs, or store a COG",
        )
    return Database.from_environment()


@contextlib.contextmanager
def _write_cog(
    layer: Layer, path: Path, demand: Demand, context: StepContext
) -> Iterator[CogWriter]:
    dataset = layer.dataset
    classes = dataset.method in CATEGORY_METHODS
    band = Band(
        dataset.description or dataset.name,
        unit=dataset.unit,
        overview="mode" if classes else "average",
    )
    tags = {
        FINGERPRINT_TAG: layer.fingerprint,
        "MUSTER_DATASET": layer.key,
        "MUSTER_METHOD": dataset.method,
        "MUSTER_WEIGHTS": dataset.weights,
        "MUSTER_PLAN": f"{layer.kind}: {layer.reason}",
        "MUSTER_SOURCE": layer.sources[0]
        + (f" and {len(layer.sources) - 1} more" if len(layer.sources) > 1 else ""),
        "MUSTER_VERSION": muster.__version__,
    }
    cog_format = CogFormat(dtype=layer.dtype, nodata=layer.nodata_value, level=_COG_LEVEL)
    with write_cog(
        path,
        layer.grid.to_grid(),
        [band],
        cog_format,
        tags=tags,
        scratch=context.scratch,
        threads=context.threads,
        memory_mib=demand.memory_mib,
    ) as writer:
        yield writer
