"""The parts of a resampling as configured: the target grid, its datasets, and their merge.

Importable without any compute package.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from muster.frozen import Frozen
from muster.jobs.planning.params import Name, as_list, check_unique, location_with
from muster.resampling.config.methods import (
    AREA_METHODS,
    CATEGORY_METHODS,
    METHODS,
    Dtype,
    Method,
    Sink,
    Weights,
)

MERGE_GROUP = "merge"
"""Name of the group that holds the merge of a run; no dataset may have it."""

LONGEST_TABLE = 48
_TABLE = re.compile(r"[a-z_][a-z0-9_]*")
ORIGINAL_KEYS = {
    "window_size": "it is called window_px here, and follows from memory where it is not given",
    "window_overlap": "windows lie over target cells here: they never overlap, and none is seen",
    "needs_resampling": "the plan decides it from the grids, and says why",
    "skip_data_loading_for_passthrough": "leave store out, or say store: register: a dataset that "
    "lies on the target grid is then registered without a pixel read",
}
"""Settings of Geo_process, and what to say of each."""


def _check_table(name: str) -> str:
    bare = re.sub(r"\{(year|month)\}", "", name)
    if not _TABLE.fullmatch(bare or "_") or not _TABLE.match(name) or len(name) > LONGEST_TABLE:
        raise ValueError(
            f"a table's name is made of a-z, 0-9 and _, begins with a letter, and has at most "
            f"{LONGEST_TABLE} characters; {{year}} and {{month}} may stand in it"
        )
    return name


def _check_nodata(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ValueError("NaN and infinities never are values: leave nodata out")
    return value


Location = Annotated[str, location_with("year", "month")]
Table = Annotated[str, AfterValidator(_check_table)]
Number = Annotated[float, Field(allow_inf_nan=False)]


def _as_pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) else value


def _as_epsg(value: Any) -> Any:
    return f"EPSG:{value}" if isinstance(value, int) and not isinstance(value, bool) else value


class TargetGrid(Frozen):
    """The grid that all datasets of a run are brought to.

    Attributes
    ----------
    crs : str or None
        "EPSG:4326", its number alone, or any text that names a coordinate reference system.
    resolution : tuple of float or None
        Width and height of a cell in the CRS's units, both positive; one number for both.
    extent : tuple of float or None
        x min, y min, x max, y max of the grid's outer edges, in the CRS's units.
    align : tuple of float or None
        A point (x, y) that corners of cells fall on: the extent is widened outwards to such
        corners.  Without it the cells begin at the extent's upper left corner, and the extent must
        hold a whole number of them.
    like : str or None
        A raster whose grid is taken instead of all others.
    tolerance_px : float
        How far, in source pixels, the pixels of a dataset may lie off the target's lattice anywhere
        in the grid and still count as aligned.
    """

    crs: Annotated[str | None, BeforeValidator(_as_epsg)] = None
    resolution: Annotated[
        tuple[Annotated[Number, Field(gt=0)], Annotated[Number, Field(gt=0)]] | None,
        BeforeValidator(_as_pair),
    ] = None
    extent: tuple[Number, Number, Number, Number] | None = None
    align: tuple[Number, Number] | None = None
    like: Location | None = None
    tolerance_px: Annotated[float, Field(ge=0, le=0.1)] = 1e-3

    @model_validator(mode="after")
    def _check_whole(self) -> TargetGrid:
        stated = {"crs": self.crs, "resolution": self.resolution, "extent": self.extent}
        if self.like is not None:
            given = [name for name, value in {**stated, "align": self.align}.items() if value]
            if given:
                raise ValueError(f"like gives the whole grid: leave {', '.join(given)} out")
            return self
        absent = [name for name, value in stated.items() if value is None]
        if absent:
            raise ValueError(f"needs {', '.join(absent)}, or like: a raster with that grid")
        if self.extent is not None:
            x_min, y_min, x_max, y_max = self.extent
            if x_max <= x_min or y_max <= y_min:
                raise ValueError(
                    "extent is x min, y min, x max, y max: each max must be greater than its min"
                )
        return self


class Dataset(Frozen):
    """One raster, or one raster in several files, that is brought to the grid.

    Attributes
    ----------
    name : str
        How it is called: in the record, in file names, as a column.
    path : str
        A path, ``file://`` or ``s3://`` URI, or a glob of files that lie side by side on one grid.
        May hold {year} and {month}.
    band : int
        Which band, from 1.
    method : str
        One of :data:`muster.resampling.config.methods.METHODS`.
    weights : {"planar", "spherical"}
        What the area of a pixel is for average, sum, median and mode: planar in the CRS, or on the
        sphere, for longitude and latitude only.
    nodata : float or None
        Stands for no value, in the place of what the file says; finite, as NaN always does.
    range : tuple of float or None
        Least and greatest value, in physical units; what lies outside is nodata.
    categories : tuple of int or None
        The classes; what is none of them is nodata.  Only nearest and mode make sense of them.
    min_valid_fraction : float
        Share of a target cell, in [0, 1], that must hold values; at 0 any value is enough.
    dtype : str
        Of the result; "auto" keeps the source's where the method gives only values that it holds,
        is float64 for sums and for float64 sources, and float32 otherwise.
    store : tuple of {"register", "tiles", "rows", "cog"} or None
        Where the result goes.  None: a dataset that lies on the target grid already is registered,
        any other becomes a COG.
    table : str or None
        Name of the table of ``rows``; made from ``name`` by default.
    unit, description : str
        Of the values.
    """

    name: Name
    path: Location
    band: Annotated[int, Field(ge=1)] = 1
    method: Method
    weights: Weights = "planar"
    nodata: Annotated[float | None, AfterValidator(_check_nodata)] = None
    range: tuple[Number, Number] | None = None
    categories: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    min_valid_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    dtype: Dtype = "auto"
    store: Annotated[
        tuple[Sink, ...] | None,
        BeforeValidator(as_list),
        AfterValidator(lambda v: v if v is None else check_unique(v)),
    ] = None
    table: Table | None = None
    unit: str = ""
    description: str = ""

    @model_validator(mode="before")
    @classmethod
    def _explain_original(cls, data: Any) -> Any:
        if isinstance(data, dict):
            refuse_original_keys(data)
            if isinstance(data.get("method"), str) and data["method"] not in METHODS:
                raise ValueError(
                    f"method {data['method']!r} of {data.get('name')!r} is none of "
                    f"{', '.join(METHODS)}"
                )
        return data

    @model_validator(mode="after")
    def _check_sense(self) -> Dataset:
        if self.name == MERGE_GROUP:
            raise ValueError(f"a dataset may not be called {MERGE_GROUP!r}")
        if set(self.name) & set("@:"):
            raise ValueError(
                f"dataset {self.name!r}: a name holds no '@' and no ':', which set a month and a "
                "table apart in the store"
            )
        if self.categories is not None and self.method not in CATEGORY_METHODS:
            raise ValueError(
                f"dataset {self.name!r} has categories, and {self.method} of classes makes no "
                f"sense: use {' or '.join(CATEGORY_METHODS)}"
            )
        if self.weights == "spherical" and self.method not in AREA_METHODS:
            raise ValueError(
                f"dataset {self.name!r}: weights: spherical goes with {', '.join(AREA_METHODS)}, "
                f"not with {self.method}"
            )
        if self.range is not None and self.range[0] > self.range[1]:
            raise ValueError(f"dataset {self.name!r}: range is least, greatest")
        if self.store is not None and not self.store:
            raise ValueError(f"dataset {self.name!r}: store is empty: leave it out, or name one")
        if self.store is not None and "register" in self.store and len(self.store) > 1:
            raise ValueError(f"dataset {self.name!r}: store: register goes with nothing else")
        if self.table is not None and "rows" not in (self.store or ()):
            raise ValueError(f"dataset {self.name!r}: table is for store: rows")
        return self


class Merge(Frozen):
    """One table of many datasets on the same grid.

    Attributes
    ----------
    output : str or None
        A Parquet file.  May hold {year} and {month}.
    table : str or None
        A table in Postgres.
    datasets : tuple of str
        Which, in the order of their columns; all by default.
    incomplete : {"drop", "keep"}
        What becomes of cells where a dataset has no value; cells without any value are never kept.
    """

    output: Location | None = None
    table: Table | None = None
    datasets: Annotated[tuple[Name, ...], AfterValidator(check_unique)] = ()
    incomplete: Literal["drop", "keep"] = "drop"

    @model_validator(mode="after")
    def _check_output(self) -> Merge:
        if self.output is None and self.table is None:
            raise ValueError("merge needs output (a Parquet file) or table, or both")
        if self.output is not None and not self.output.lower().endswith(".parquet"):
            raise ValueError("the name of merge.output must end with .parquet")
        return self


def refuse_original_keys(data: dict[str, Any]) -> None:
    """Say of a setting of Geo_process what stands for it here.

    Raises
    ------
    ValueError
        At the first.
    """
    for key, said in ORIGINAL_KEYS.items():
        if key in data:
            raise ValueError(f"{key}: {said}")
