"""What a person may say to a trait inference, on Airflow's form, over REST or in params.yaml.

Everything is checked before a run starts: unknown keys, names that would lead out of the output
folder, placeholders without a value.  Importable without any compute package, since Airflow's
side checks parameters too.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, model_validator

from muster import storage
from muster.config import SizeMib, TimeS, parse_config
from muster.errors import ConfigError, InvalidInput
from muster.frozen import Frozen
from muster.jobs.model import RunParams
from muster.traits.engine_names import AOA_ENGINES, PREDICTION_ENGINES
from muster.traits.locations import (
    check_location,
    fill_location,
    find_placeholders,
    locate_bundle,
)
from muster.traits.stac_collection import item_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Task = Literal["predict", "cov", "aoa", "build"]
TASKS: tuple[Task, ...] = ("predict", "cov", "aoa", "build")
Step = Literal["traits.inspect", "traits.predict", "traits.cov", "traits.aoa", "traits.build"]

_INTERVAL_PLACEHOLDERS = ("trait_set", "year", "month")
_LONGEST_NAME = 100


def _check_name(name: str) -> str:
    """Refuse a name that would not be one plain file name."""
    if not name or name != name.strip():
        raise ValueError("a name may not be empty, or begin or end with a blank")
    if name.startswith(".") or any(c in "/\\{}" or ord(c) < 32 or ord(c) == 127 for c in name):
        raise ValueError(
            f"{name!r} is not safe in a path: no '/', '\\', '{{', '}}', control characters, and "
            "no '.' in front"
        )
    if len(name.encode()) > _LONGEST_NAME:
        raise ValueError(f"{name[:20]!r}… is longer than {_LONGEST_NAME} bytes")
    return name


def _check_unique(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"named twice: {', '.join(twice)}")
    return names


def _location(*allowed: str) -> AfterValidator:
    def check(location: str) -> str:
        problems = check_location(location, allowed)
        if problems:
            raise ValueError("; ".join(problems))
        return location

    return AfterValidator(check)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Name = Annotated[str, AfterValidator(_check_name)]
Names = Annotated[tuple[Name, ...], AfterValidator(_check_unique)]
Models = Annotated[str, _location("trait", *_INTERVAL_PLACEHOLDERS)]
Output = Annotated[str, _location(*_INTERVAL_PLACEHOLDERS)]
TableLocation = Annotated[str, _location()]
Predictors = Annotated[
    tuple[Annotated[str, _location(*_INTERVAL_PLACEHOLDERS)], ...],
    BeforeValidator(_as_list),
    Field(min_length=1),
    AfterValidator(_check_unique),
]


class PartialResources(Frozen):
    """Resources of a step that replace the site's; None leaves the site's.

    Attributes
    ----------
    cpus, gpus : int or None
        Threads and GPUs an element.
    memory : int or None
        Memory an element, in MiB; written as in the site file, "64GiB".
    time : int or None
        Wall time an element, in seconds; written as in the site file, "02:00:00".
    """

    cpus: Annotated[int, Field(ge=1)] | None = None
    memory: Annotated[SizeMib, Field(ge=1)] | None = None
    time: Annotated[TimeS, Field(ge=1)] | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None


def _one_of(engines: Sequence[str]) -> AfterValidator:
    def check(engine: str) -> str:
        if engine not in ("auto", *engines):
            raise ValueError(f"{engine!r} is none of auto, {', '.join(engines)}")
        return engine

    return AfterValidator(check)


class Engines(Frozen):
    """What computes the bands.

    Attributes
    ----------
    predict, cov : {"auto", "quantised", "lightgbm"}
        What evaluates the models; ``auto`` takes what a trial at planning found to be faster.
    aoa : {"auto", "tree", "blocks", "faiss", "cupy", "brute"}
        What finds the nearest plots.
    """

    predict: Annotated[str, _one_of(PREDICTION_ENGINES)] = "auto"
    cov: Annotated[str, _one_of(PREDICTION_ENGINES)] = "auto"
    aoa: Annotated[str, _one_of(AOA_ENGINES)] = "auto"


class InferParams(RunParams):
    """Parameters of a run of trait_inference.

    Attributes
    ----------
    traits : tuple of str
        Traits to map, at least one, each once.
    trait_set : str
        Name of a family of models and products that are kept apart.
    tasks : tuple of {"predict", "cov", "aoa", "build"}
        What to do; all by default.
    predictors : tuple of str
        Rasters, matched to the models by band name; a location that ends with "/" means every
        .tif, .tiff and .vrt directly in it.  May hold {trait_set}, {year}, {month}.
    models : str
        Where the model bundles lie.  May hold {trait}, {trait_set}, {year}, {month}; without
        {trait}, a bundle is the folder of the trait's name in it.
    output : str
        Folder of the products.  May hold {trait_set}, {year}, {month}.
    overwrite : bool
        Whether what is there already is computed again.
    local_point_density : bool
        Whether the area of applicability comes with the local point density.
    trait_table : str or None
        Where a table lies that says each trait's unit, description and TRY id.
    engines : Engines
        What computes the bands.
    resources : dict of str to PartialResources
        Step → what replaces the site's placement.
    interval_start, interval_end : datetime or None
        The time that the run stands for, aware, in UTC; end excluded.
    """

    traits: Annotated[Names, Field(min_length=1)]
    trait_set: Name = "default"
    tasks: Annotated[
        tuple[Task, ...],
        BeforeValidator(_as_list),
        Field(min_length=1),
        AfterValidator(_check_unique),
    ] = TASKS
    predictors: Predictors
    models: Models
    output: Output
    overwrite: bool = False
    local_point_density: bool = False
    trait_table: TableLocation | None = None
    engines: Engines = Engines()
    resources: dict[Step, PartialResources] = {}
    interval_start: AwareDatetime | None = None
    interval_end: AwareDatetime | None = None

    @model_validator(mode="after")
    def _check_interval(self) -> InferParams:
        if (self.interval_start is None) != (self.interval_end is None):
            raise ValueError("interval_start and interval_end are given together or not at all")
        if self.interval_start and self.interval_end and self.interval_end <= self.interval_start:
            raise ValueError("interval_end must be later than interval_start")
        return self

    @property
    def interval_label(self) -> str | None:
        """Name of the interval: 2024, 2024-03, or the date that it starts on; None without one."""
        start, end = self._interval()
        if start is None or end is None:
            return None
        if _is_year(start, end):
            return f"{start:%Y}"
        if _is_month(start, end):
            return f"{start:%Y-%m}"
        midnight = (start.hour, start.minute, start.second) == (0, 0, 0)
        return f"{start:%Y-%m-%d}" if midnight else f"{start:%Y-%m-%dT%H%M%S}"

    def relative_locations(self) -> list[str]:
        """List locations that mean another place for every process that reads them."""
        every = (*self.predictors, self.models, self.output, self.trait_table or "/")
        return [
            location
            for location in every
            if (path := storage.local_path(location)) is not None and not path.is_absolute()
        ]

    def predictor_uris(self) -> list[str]:
        """Locations of the predictors in this run."""
        return [fill_location(location, self._values()) for location in self.predictors]

    def bundle_uri(self, trait: str) -> str:
        """Where a trait's model bundle lies."""
        return locate_bundle(self.models, trait, self._values())

    def output_uri(self) -> str:
        """Folder of this run's products.

        The interval's label is a folder below ``output``, unless its placeholders already tell
        intervals of that length apart.

        Raises
        ------
        ConfigError
            When ``output`` names a year or month and the run has no interval.
        """
        folder = fill_location(self.output, self._values())
        label = self.interval_label
        start, end = self._interval()
        if label is None or start is None or end is None:
            return folder
        named = set(find_placeholders(self.output))
        told_apart = ("year" in named and _is_year(start, end)) or (
            {"year", "month"} <= named and _is_month(start, end)
        )
        return folder if told_apart else storage.join(folder, label)

    def product_uri(self, trait: str) -> str:
        """Where a trait's product goes."""
        return storage.join(self.output_uri(), f"{trait}.tif")

    def quicklook_uri(self, trait: str) -> str:
        """Where the picture of a trait's product goes."""
        return storage.join(self.output_uri(), f"{trait}.png")

    def item_uri(self, trait: str) -> str:
        """Where the STAC item of a trait's product goes."""
        return storage.join(self.output_uri(), item_name(trait))

    def _interval(self) -> tuple[datetime | None, datetime | None]:
        if self.interval_start is None or self.interval_end is None:
            return None, None
        return self.interval_start.astimezone(UTC), self.interval_end.astimezone(UTC)

    def _values(self) -> dict[str, str | None]:
        start, _ = self._interval()
        return {
            "trait_set": self.trait_set,
            "year": None if start is None else f"{start:%Y}",
            "month": None if start is None else f"{start:%m}",
        }


class TraitNames(Frozen):
    """The key ``traits`` of params.yaml."""

    names: Annotated[Names, Field(min_length=1)]


class ParamsFile(Frozen):
    """params.yaml: what one installation's trait maps have in common.

    Attributes
    ----------
    traits : TraitNames
        ``traits.names``: all traits there are.
    trait_sets : tuple of str
        All trait sets there are; the first is the default.
    predictors, models, output
        As in :class:`InferParams`; relative paths are relative to the file.
    seed : int
        Seed of the training.
    local_point_density, trait_table, engines, resources
        As in :class:`InferParams`.
    """

    traits: TraitNames
    trait_sets: Annotated[Names, Field(min_length=1)] = ("default",)
    predictors: Predictors
    models: Models
    output: Output
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    local_point_density: bool = False
    trait_table: TableLocation | None = None
    engines: Engines = Engines()
    resources: dict[Step, PartialResources] = {}

    def infer_params(
        self,
        *,
        traits: tuple[str, ...] = (),
        trait_set: str | None = None,
        tasks: tuple[str, ...] = TASKS,
        overwrite: bool = False,
    ) -> InferParams:
        """Make the parameters of a run.

        Parameters
        ----------
        traits : tuple of str
            Which of the file's traits; all by default.
        trait_set : str, optional
            Which of the file's trait sets; the first by default.
        tasks : tuple of str
            What to do.
        overwrite : bool
            Whether what is there already is computed again.

        Raises
        ------
        ConfigError
            When the file has no such trait or trait set.
        """
        unknown = [trait for trait in traits if trait not in self.traits.names]
        if unknown:
            raise ConfigError(
                "unknown trait",
                where="params.yaml, traits.names",
                got=", ".join(unknown),
                expected=", ".join(self.traits.names),
                do="check the spelling, or add it to the file",
            )
        if trait_set is not None and trait_set not in self.trait_sets:
            raise ConfigError(
                "unknown trait set",
                where="params.yaml, trait_sets",
                got=trait_set,
                expected=", ".join(self.trait_sets),
            )
        data = {
            "traits": traits or self.traits.names,
            "trait_set": trait_set or self.trait_sets[0],
            "tasks": tasks,
            "overwrite": overwrite,
            **self.model_dump(
                mode="json",
                include=set(ParamsFile.model_fields) & set(InferParams.model_fields) - {"traits"},
            ),
        }
        return parse_config(InferParams, data, "params of trait_inference")


def read_params_file(path: Path) -> ParamsFile:
    """Read params.yaml.

    Raises
    ------
    MissingInput
        When there is no such file.
    ConfigError
        When it is no YAML, or a key is unknown, absent or wrong.
    """
    content = storage.read_bytes(str(path))
    try:
        data = yaml.load(content, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError("not a YAML file", where=f"{path}{line}", got=error.problem) from error
    except yaml.YAMLError as error:
        raise ConfigError("not a YAML file", where=path, got=error) from error
    if not isinstance(data, dict):
        raise ConfigError(
            "params file holds no keys",
            where=path,
            got=type(data).__name__,
            expected=", ".join(ParamsFile.model_fields),
        )
    folder = path.absolute().parent
    for key in ("models", "output", "trait_table"):
        if isinstance(data.get(key), str):
            data[key] = _beside(folder, data[key])
    if isinstance(data.get("predictors"), str | list):
        data["predictors"] = [
            _beside(folder, item) if isinstance(item, str) else item
            for item in _as_list(data["predictors"])
        ]
    return parse_config(ParamsFile, data, path)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping of keys that are all different."""
        keys: list[Any] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            keys.append(key)
        return super().construct_mapping(node, deep)


def _beside(folder: Path, location: str) -> str:
    try:
        path = storage.local_path(location)
    except InvalidInput:
        return location  # the model says what is wrong with it
    if "://" in location or path is None or path.is_absolute():
        return location
    # The end stays: "rasters/" means what lies in the folder.
    return os.path.normpath(folder / path) + ("/" if location.endswith("/") else "")


def _is_year(start: datetime, end: datetime) -> bool:
    first = start.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    return start == first and end == first.replace(year=first.year + 1)


def _is_month(start: datetime, end: datetime) -> bool:
    first = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return start == first and end == (first + timedelta(days=32)).replace(day=1)
