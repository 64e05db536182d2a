"""Predictors at the plots of a table, wherever they come from: rasters, or the table itself.

A table may carry predictors that no raster here holds (plots all over a continent, rasters of one
country); then the rasters, if given, only say which columns are meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from muster import storage
from muster.errors import ConfigError
from muster.traits.training.plots import Coordinates, PlotTable, read_coordinates
from muster.traits.training.sample import list_predictors, sample_predictors

if TYPE_CHECKING:
    from muster.model.step import StepContext
    from muster.traits.aoa.neighbours import FloatArray


@dataclass(frozen=True)
class PredictorSource:
    """Where the predictors' values at the plots come from.

    Attributes
    ----------
    rasters : tuple of str
        Predictor stack; the plots are sampled from it unless ``from_csv``.
    names : tuple of str or None
        Predictors to use; None takes all bands of the stack.
    from_csv : bool
        Whether values are columns of the plots; a stack then only says their names.
    """

    rasters: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    from_csv: bool = False


@dataclass(frozen=True)
class PlotPredictors:
    """Predictors at all plots of a table, before any trait is looked at.

    Attributes
    ----------
    names : tuple of str
        The predictors.
    values : ndarray, (plot, predictor), float64
        NaN where missing.
    coordinates : tuple of ndarray or None
        x and y of the plots, where the table has them.
    crs : str or None
        CRS of the coordinates.
    facts : dict
        What was dropped, by reason.
    """

    names: tuple[str, ...]
    values: FloatArray
    coordinates: tuple[FloatArray, FloatArray] | None
    crs: str | None
    facts: dict[str, Any]


def take_predictors(
    table: PlotTable,
    source: PredictorSource,
    columns: Coordinates,
    context: StepContext,
    *,
    blocks: bool,
) -> PlotPredictors:
    """Take the predictors' values at the plots, from columns or from rasters.

    Parameters
    ----------
    table : PlotTable
        The plots.
    source : PredictorSource
        Where values come from.
    columns : Coordinates
        Columns of the coordinates.
    context : StepContext
        Threads and memory.
    blocks : bool
        Whether coordinates are needed for spatial blocks as well.

    Raises
    ------
    ConfigError
        When nothing says which the predictors are.
    InvalidInput
        When columns or bands are absent, or no plot lies on the rasters.
    """
    names = source.names
    if names is None and source.rasters:
        names = list_predictors(source.rasters)
    if not names:
        raise ConfigError(
            "nothing says which the predictors are",
            do="give a predictor stack, or the names of the plots' columns that are predictors",
        )
    from_csv = source.from_csv or not source.rasters
    located = columns.x in table.names and columns.y in table.names
    xy = None
    if located or not from_csv or blocks:
        xy = read_coordinates(table, columns)
    facts: dict[str, Any] = {"dropped_outside": 0, "dropped_nodata": 0}
    if from_csv:
        table.check_columns(names, "predictors")
        values = np.column_stack([table.numbers(name) for name in names])
        facts["dropped_nodata"] = int(np.count_nonzero(np.isnan(values).any(axis=1)))
    else:
        if xy is None:
            raise ConfigError("sampling predictors needs coordinates")
        sample = sample_predictors(source.rasters, names, xy, columns.crs, context)
        values = sample.values
        facts = {"dropped_outside": sample.outside, "dropped_nodata": sample.nodata}
    facts["predictors_from"] = "table" if from_csv else "rasters"
    facts["table"] = table.path.name
    facts["table_sha256"] = storage.sha256(str(table.path))
    return PlotPredictors(tuple(names), values, xy, columns.crs if xy else None, facts)
