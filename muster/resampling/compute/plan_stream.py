"""From a dataset and a target to the stream of its windows: looked at, decided, divided.

The plan of a run, the step, whoever reads a registered dataset and the command line all come by
here, so that what a plan shows is what is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from muster.resampling.compute.encode import Finish
from muster.resampling.compute.fit import Fit, explain_outside, make_room, plan_dataset, result_type
from muster.resampling.compute.separable import Separable
from muster.resampling.compute.stream import SeparableStream
from muster.resampling.compute.warp import WarpStream
from muster.resampling.compute.warp_plan import lies_outside, plan_warp, plan_warp_work
from muster.resampling.compute.windows import plan_work

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from typing import Any

    from muster.raster.grid import Grid, Window
    from muster.resampling.compute.source import Source
    from muster.resampling.compute.windows import WorkPlan
    from muster.resampling.config.datasets import Dataset


class Stream(Protocol):
    """The windows of a target with their values."""

    work: WorkPlan

    def windows(
        self, wanted: Container[Window] | None = None
    ) -> Iterator[tuple[Window, np.ndarray[Any, Any]]]:
        """Yield the plan's windows, or those that are wanted."""

    def with_work(self, work: WorkPlan) -> Stream:
        """Return the same stream with other windows."""


@dataclass(frozen=True)
class Demand:
    """What a stream may take, and what its windows are for.

    Attributes
    ----------
    memory_mib : int
        Budget, in MiB.
    threads : int
        How many threads it may use.
    window_px : int or None
        Longest side of a window, in target cells.
    loads : bool
        Whether windows must be whole tiles.
    """

    memory_mib: int = 512
    threads: int = 1
    window_px: int | None = None
    loads: bool = False


@dataclass(frozen=True)
class Prepared:
    """A dataset, ready to be brought to a target.

    Attributes
    ----------
    source : Source
        The raster, in the type that it is read as.
    fit : Fit
        The decision.
    finish : Finish
        Type and nodata of the result.
    stream : Stream
        The windows.
    """

    source: Source
    fit: Fit
    finish: Finish
    stream: Stream


def prepare(
    source: Source,
    target: Grid,
    dataset: Dataset,
    demand: Demand = Demand(),
    *,
    tolerance_px: float = 1e-3,
) -> Prepared:
    """Decide how a dataset comes to a target, and divide the work.

    Raises
    ------
    ConfigError
        When the method makes no sense between the grids, or the memory is too small.
    InvalidInput
        When the target lies outside the source.
    """
    fit = plan_dataset(source, target, dataset, tolerance_px)
    dtype, nodata = result_type(source, dataset)
    finish = Finish(dtype, np.nan if nodata is None else nodata)
    # The result's type follows from what is stored, whatever that is read as.
    source = make_room(source, dataset)
    out_bytes = np.dtype(dtype).itemsize
    if fit.same_crs:
        method = Separable.of(fit, source, dataset)
        work = plan_work(
            source,
            target,
            method,
            demand.memory_mib,
            window_px=demand.window_px,
            loads=demand.loads,
            out_bytes=out_bytes,
            threads=demand.threads,
            period=fit.period,
        )
        stream: Stream = SeparableStream(
            source, dataset, fit, method, work, finish=finish, threads=demand.threads
        )
    else:
        if lies_outside(source.grid, target):
            raise explain_outside(source, target)
        warp = plan_warp(source.grid, target)
        work = plan_warp_work(
            source,
            target,
            warp,
            demand.memory_mib,
            threads=demand.threads,
            window_px=demand.window_px,
            out_bytes=out_bytes,
        )
        stream = WarpStream(source, dataset, fit, warp, work, finish=finish)
    return Prepared(source, fit, finish, stream)
