"""What a person may say to a resampling, on Airflow's form, over REST or in resampling.yaml.

Importable without any compute package.  What needs the rasters themselves (whether a CRS exists,
whether a dataset is there) is found out by the inspection.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from muster import storage
from muster.config import SizeMib, parse_config
from muster.jobs.planning.params import (
    OutputParams,
    PartialResources,
    check_unique,
    find_relative,
    read_params_file,
)
from muster.resampling.config.datasets import (
    LONGEST_TABLE,
    MERGE_GROUP,
    ORIGINAL_KEYS,
    Dataset,
    Location,
    Merge,
    TargetGrid,
    refuse_original_keys,
)
from muster.resampling.config.merge_cells import CELL_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Step = Literal["resampling.inspect", "resampling.resample", "resampling.merge"]

DEFAULT_MEMORY_MIB = 512
LEAST_MEMORY_MIB = 64


class ResamplingParams(OutputParams):
    """Parameters of a run of resampling; the form shows what is said of each.

    Attributes
    ----------
    target : TargetGrid
        The grid: {"crs": "EPSG:4326", "resolution": 0.1, "extent": [-180, -90, 180, 90]}, or that
        of a raster: {"like": "/data/grid.tif"}.
    datasets : tuple of Dataset
        What is brought to it, each name once: [{"name": "wind", "method": "average",
        "path": "/data/wind-{year}-{month}.tif"}]; a glob names the files of a mosaic.
    output : str
        Folder for COGs and pictures; a backfill adds year and month.  May hold {year} and {month}.
    merge : Merge or None
        One table of all datasets: {"output": "/data/all.parquet", "table": "all"}.
    memory : int
        Budget of one dataset's windows, with its unit, 512MiB by default; capped by the placement.
    window_px : int or None
        Longest side of a window, in target cells; follows from the memory by default, and changes
        no result.
    overwrite : bool
        Compute what is up to date as well.
    resources : dict of str to PartialResources
        A step's own wishes, in the place of the site's: {"resampling.resample": {"cpus": 4}}.
    interval_start, interval_end
        As in :class:`muster.jobs.planning.params.IntervalParams`.
    """

    target: TargetGrid
    datasets: Annotated[tuple[Dataset, ...], Field(min_length=1)]
    output: Location
    merge: Merge | None = None
    memory: Annotated[SizeMib, Field(ge=LEAST_MEMORY_MIB)] = DEFAULT_MEMORY_MIB
    window_px: Annotated[int, Field(ge=1)] | None = None
    overwrite: bool = False
    resources: dict[Step, PartialResources] = {}

    FILE_KEYS: ClassVar[frozenset[str]] = frozenset(
        {
            "target", "datasets", "output", "merge", "memory", "window_px", "overwrite",
            "resources",
        }
    )  # fmt: skip

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
            taken = sorted(set(CELL_COLUMNS) & {d.name.lower() for d in self.merged_datasets()})
            if taken:
                raise ValueError(
                    f"merge has columns {', '.join(taken)} of its own: rename the dataset"
                )
            if self.merge.table is not None:
                tables = (*tables, self.merge_table() or "")
        twice = sorted({table for table in tables if tables.count(table) > 1})
        if twice:
            raise ValueError(f"two tables would be called {', '.join(twice)}: give one a table")
        return self

    @classmethod
    def read_file(cls, path: Path, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the keys of resampling.yaml, and what is said before what it says."""
        return {**read_resampling_file(path), **said}

    def relative_locations(self) -> list[str]:
        """List locations that mean another place for every process that reads them."""
        every = [*(d.path for d in self.datasets), self.output, self.target.like or "/"]
        if self.merge is not None and self.merge.output is not None:
            every.append(self.merge.output)
        return find_relative(every)

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
        return self._label_table(safe[: LONGEST_TABLE - 11])

    def merge_table(self) -> str | None:
        """Name the merged table; None where there is none."""
        if self.merge is None or self.merge.table is None:
            return None
        return self._label_table(self.merge.table)

    def merge_key(self) -> str:
        """Name the merge: after its table, which whoever else writes it has to wait for."""
        table = self.merge_table()
        if table is not None:
            return f"{MERGE_GROUP}:{table}"
        label = self.interval_label
        return MERGE_GROUP if label is None else f"{MERGE_GROUP}@{label}"

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
    locations = (("output",), ("target", "like"), ("merge", "output"), ("datasets", "*", "path"))
    return read_params_file(path, ResamplingParams.FILE_KEYS, locations, explained=ORIGINAL_KEYS)


def parse_params(data: dict[str, Any], where: object = "params of resampling") -> ResamplingParams:
    """Check parameters; the error says which key is wrong, and what is allowed."""
    return parse_config(ResamplingParams, data, where)
