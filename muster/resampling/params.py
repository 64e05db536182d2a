"""What a person may say to a resampling, on Airflow's form, over REST or in resampling.yaml.

Importable without any compute package.  What needs the rasters themselves (whether a CRS exists,
whether a dataset is there) is found out by the inspection.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from muster import storage
from muster.config import SizeMib, parse_config, read_yaml
from muster.errors import ConfigError
from muster.frozen import Frozen
from muster.jobs.params import (
    IntervalParams,
    Name,
    PartialResources,
    as_list,
    check_unique,
    find_relative,
    location_with,
)
from muster.locations import beside, fill_location
from muster.resampling.methods import (
    AREA_METHODS,
    CATEGORY_METHODS,
    METHODS,
    Dtype,
    Method,
    Store,
    Weights,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Step = Literal["resampling.inspect", "resampling.resample", "resampling.merge"]

MERGE_GROUP = "merge"
"""Name of the group that holds the merge of a run; no dataset may have it."""

_NOT_SAID: tuple[Any, ...] = (None, "", [], {})

DEFAULT_MEMORY_MIB = 512
LEAST_MEMORY_MIB = 64

_LONGEST_TABLE = 48
_TABLE = re.compile(r"[a-z_][a-z0-9_]*")
_ORIGINAL_KEYS = {
    "window_size": "it is called window_px here, and follows from memory where it is not given",
    "window_overlap": "windows lie over target cells here: they never overlap, and none is seen",
    "needs_resampling": "the plan decides it from the grids, and says why",
    "skip_data_loading_for_passthrough": "leave store out, or say store: register: a dataset that "
    "lies on the target grid is then registered without a pixel read",
}
"""Settings of Geo_process, and what to say of each."""


def _check_table(name: str) -> str:
    bare = re.sub(r"\{(year|month)\}", "", name)
    if not _TABLE.fullmatch(bare or "_") or not _TABLE.match(name) or len(name) > _LONGEST_TABLE:
        raise ValueError(
            f"a table's name is made of a-z, 0-9 and _, begins with a letter, and has at most "
            f"{_LONGEST_TABLE} characters; {{year}} and {{month}} may stand in it"
        )
    return name


Location = Annotated[str, location_with("year", "month")]
Table = Annotated[str, AfterValidator(_check_table)]
Number = Annotated[float, Field(allow_inf_nan=False)]


def _as_pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) else value


class TargetGrid(Frozen):
    """The grid that all datasets of a run are brought to.

    Attributes
    ----------
    crs : str or None
        "EPSG:4326", or any text that names a coordinate reference system.
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

    crs: str | None = None
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
        One of :data:`muster.resampling.methods.METHODS`.
    weights : {"planar", "spherical"}
        What the area of a pixel is for average, sum, median and mode: planar in the CRS, or on the
        sphere, for longitude and latitude only.
    nodata : float or None
        Stands for no value, in the place of what the file says; NaN always does.
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
    nodata: float | None = None
    range: tuple[Number, Number] | None = None
    categories: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    min_valid_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    dtype: Dtype = "auto"
    store: Annotated[
        tuple[Store, ...] | None,
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


class ResamplingParams(IntervalParams):
    """Parameters of a run of resampling.

    Attributes
    ----------
    target : TargetGrid
        The grid.
    datasets : tuple of Dataset
        What is brought to it, each name once.
    output : str
        Folder of COGs and pictures.  May hold {year} and {month}.
    merge : Merge or None
        Whether and how the datasets become one table.
    memory : int
        Budget of one dataset's windows, in MiB, written with its unit; capped by the placement.
    window_px : int or None
        Longest side of a window, in target cells; the results do not depend on it.
    overwrite : bool
        Whether what is there already is computed again.
    resources : dict of str to PartialResources
        Step → what replaces the site's placement.
    interval_start, interval_end
        As in :class:`muster.jobs.params.IntervalParams`.
    """

    target: TargetGrid
    datasets: Annotated[tuple[Dataset, ...], Field(min_length=1)]
    output: Location
    merge: Merge | None = None
    memory: Annotated[SizeMib, Field(ge=LEAST_MEMORY_MIB)] = DEFAULT_MEMORY_MIB
    window_px: Annotated[int, Field(ge=1)] | None = None
    overwrite: bool = False
    resources: dict[Step, PartialResources] = {}

    @model_validator(mode="before")
    @classmethod
    def _explain_original(cls, data: Any) -> Any:
        if isinstance(data, dict):
            refuse_original_keys(data)
        return data

    @model_validator(mode="after")
    def _check_datasets(self) -> ResamplingParams:
        names = tuple(dataset.name for dataset in self.datasets)
        check_unique(names)
        tables = tuple(self.table_name(d) for d in self.datasets if "rows" in (d.store or ()))
        if self.merge is not None:
            unknown = sorted(set(self.merge.datasets) - set(names))
            if unknown:
                raise ValueError(f"merge.datasets: no dataset is called {', '.join(unknown)}")
            if self.merge.table is not None:
                tables = (*tables, self.merge_table() or "")
        twice = sorted({table for table in tables if tables.count(table) > 1})
        if twice:
            raise ValueError(f"two tables would be called {', '.join(twice)}: give one a table")
        return self

    @classmethod
    def complete(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Take what is not said from the resampling.yaml that ``config`` names.

        What is empty counts as not said, as a form sends all that it has.

        Parameters
        ----------
        data : mapping
            Keys of this model, and perhaps ``config``: an absolute path.

        Raises
        ------
        MissingInput
            When there is no such file.
        ConfigError
            When it is no YAML, has unknown keys, or is named by a relative path.
        """
        said = {name: value for name, value in data.items() if value not in _NOT_SAID}
        config = said.pop("config", None)
        if config is None:
            return said
        if not isinstance(config, str) or not config.startswith("/"):
            raise ConfigError("config is no absolute path", got=repr(config))
        return {**read_resampling_file(Path(config)), **said}

    def relative_locations(self) -> list[str]:
        """List locations that mean another place for every process that reads them."""
        every = [*(d.path for d in self.datasets), self.output, self.target.like or "/"]
        if self.merge is not None and self.merge.output is not None:
            every.append(self.merge.output)
        return find_relative(every)

    def fill(self, location: str) -> str:
        """Fill a location's placeholders with this run's interval.

        Raises
        ------
        ConfigError
            When it names a year or month and the run has no interval.
        """
        return fill_location(location, self.interval_values())

    def output_uri(self) -> str:
        """Folder of this run's products; the interval's label below it unless it is named."""
        folder = self.fill(self.output)
        label = self.interval_label
        if label is None or self.told_apart(self.output):
            return folder
        return storage.join(folder, label)

    def dataset_key(self, dataset: Dataset) -> str:
        """Name a dataset in the store: its name, with ``@2024-03`` where the run is of a month."""
        return (
            dataset.name if self.interval_label is None else f"{dataset.name}@{self.interval_label}"
        )

    def cog_uri(self, dataset: Dataset) -> str:
        """Where a dataset's COG goes."""
        return storage.join(self.output_uri(), f"{dataset.name}.tif")

    def quicklook_uri(self, dataset: Dataset) -> str:
        """Where the picture of a dataset's source and result goes."""
        return storage.join(self.output_uri(), f"{dataset.name}.png")

    def table_name(self, dataset: Dataset) -> str:
        """Name the table of a dataset's rows."""
        if dataset.table is not None:
            return self._label_table(dataset.table)
        safe = re.sub(r"[^a-z0-9_]+", "_", dataset.name.lower()).strip("_") or "dataset"
        safe = safe if safe[0].isalpha() else f"d_{safe}"
        return self._label_table(safe[: _LONGEST_TABLE - 11])

    def merge_table(self) -> str | None:
        """Name the merged table; None where there is none."""
        if self.merge is None or self.merge.table is None:
            return None
        return self._label_table(self.merge.table)

    def merge_uri(self) -> str | None:
        """Where the merged Parquet file goes; None where there is none."""
        if self.merge is None or self.merge.output is None:
            return None
        filled = self.fill(self.merge.output)
        label = self.interval_label
        if label is None or self.told_apart(self.merge.output):
            return filled
        return f"{filled.removesuffix('.parquet')}-{label}.parquet"

    def merged_datasets(self) -> tuple[Dataset, ...]:
        """List the datasets that are merged, in the order of their columns."""
        by_name = {dataset.name: dataset for dataset in self.datasets}
        names = () if self.merge is None else self.merge.datasets or tuple(by_name)
        return tuple(by_name[name] for name in names)

    def _label_table(self, name: str) -> str:
        label = self.interval_label
        if label is None and "{" not in name:
            return name
        if "{" in name:
            filled = self.fill(name)
            if self.told_apart(name):
                return filled
            name = filled
        return f"{name}_{re.sub(r'[^0-9a-zA-Z]+', '_', label or '').lower()}"


def refuse_original_keys(data: dict[str, Any]) -> None:
    """Say of a setting of Geo_process what stands for it here.

    Raises
    ------
    ValueError
        At the first.
    """
    for key, said in _ORIGINAL_KEYS.items():
        if key in data:
            raise ValueError(f"{key}: {said}")


def read_resampling_file(path: Path) -> dict[str, Any]:
    """Read resampling.yaml; relative paths in it are relative to the file.

    Returns
    -------
    dict
        Keys of :class:`ResamplingParams`, not yet checked: a run's own params may replace some.

    Raises
    ------
    MissingInput
        When there is no such file.
    ConfigError
        When it is no YAML, or has keys that are none of the parameters'.
    """
    data = read_yaml(path, FILE_KEYS)
    unknown = sorted(set(data) - set(FILE_KEYS) - set(_ORIGINAL_KEYS))
    if unknown:
        raise ConfigError(
            "unknown key", where=path, got=", ".join(unknown), expected=", ".join(FILE_KEYS)
        )
    folder = path.absolute().parent

    def put_beside(mapping: Any, key: str) -> None:
        if isinstance(mapping, dict) and isinstance(mapping.get(key), str):
            mapping[key] = beside(folder, mapping[key])

    put_beside(data, "output")
    put_beside(data.get("target"), "like")
    put_beside(data.get("merge"), "output")
    datasets = data.get("datasets")
    for dataset in datasets if isinstance(datasets, list) else []:
        put_beside(dataset, "path")
    return data


def parse_params(data: dict[str, Any], where: object = "params of resampling") -> ResamplingParams:
    """Check parameters; the error says which key is wrong, and what is allowed."""
    return parse_config(ResamplingParams, data, where)


FILE_KEYS = tuple(
    name for name in ResamplingParams.model_fields if name not in ("interval_start", "interval_end")
)
"""Keys of resampling.yaml."""
