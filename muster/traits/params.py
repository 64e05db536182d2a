"""What a person may say to a trait inference, on Airflow's form, over REST or in params.yaml.

Everything is checked before a run starts: unknown keys, names that would lead out of the output
folder, placeholders without a value.  Importable without any compute package, since Airflow's
side checks parameters too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from muster import storage
from muster.config import parse_config
from muster.errors import ConfigError
from muster.frozen import Frozen
from muster.jobs.planning.params import (
    Name,
    Names,
    OneOrMore,
    OutputParams,
    PartialResources,
    as_list,
    check_unique,
    find_relative,
    location_with,
    read_params_file,
)
from muster.traits.band_names import item_name
from muster.traits.bundle.location import locate_bundle
from muster.traits.engine_names import AOA_ENGINES, AUTO, PREDICTION_ENGINES, REMOVED_AOA_ENGINES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Task = Literal["predict", "cov", "aoa", "build"]
TASKS: tuple[Task, ...] = ("predict", "cov", "aoa", "build")
Step = Literal["traits.inspect", "traits.predict", "traits.cov", "traits.aoa", "traits.build"]

_INTERVAL_PLACEHOLDERS = ("trait_set", "year", "month")


Models = Annotated[str, location_with("trait", *_INTERVAL_PLACEHOLDERS)]
Output = Annotated[str, location_with(*_INTERVAL_PLACEHOLDERS)]
TableLocation = Annotated[str, location_with()]
Predictors = Annotated[
    tuple[Annotated[str, location_with(*_INTERVAL_PLACEHOLDERS)], ...],
    OneOrMore,
    Field(min_length=1, json_schema_extra={"uniqueItems": True}),
    AfterValidator(check_unique),
]


def _one_of(engines: Sequence[str], removed: Sequence[str] = ()) -> AfterValidator:
    def check(engine: str) -> str:
        if engine not in (AUTO, *engines, *removed):
            raise ValueError(f"{engine!r} is none of auto, {', '.join(engines)}")
        return engine

    return AfterValidator(check)


class Engines(Frozen):
    """What computes the bands.

    Attributes
    ----------
    predict, cov : {"auto", "quantised", "lightgbm"}
        What evaluates the models; ``auto`` takes what a trial at planning found to be faster.
    aoa : {"auto", "blocks", "tree", "cupy", "brute"}
        What finds the nearest plots.
    """

    predict: Annotated[str, _one_of(PREDICTION_ENGINES)] = "auto"
    cov: Annotated[str, _one_of(PREDICTION_ENGINES)] = "auto"
    aoa: Annotated[str, _one_of(AOA_ENGINES, REMOVED_AOA_ENGINES)] = "auto"


class InferParams(OutputParams):
    """Parameters of a run of trait_inference; the form shows what is said of each.

    Attributes
    ----------
    traits : tuple of str
        Names of the traits to map, one a line, each once; each needs a model of that name.
    trait_set : str
        Name of a family of models and products that are kept apart; fills {trait_set} in locations.
    tasks : tuple of {"predict", "cov", "aoa", "build"}
        Which bands to compute, all by default; any that is new goes into the product.
    predictors : tuple of str
        Rasters, one a line, matched to the models by band name: paths or s3:// URIs; one that ends
        with "/" means every .tif, .tiff and .vrt directly in it.  May hold {trait_set}, {year},
        {month}.
    models : str
        Folder with a model bundle a trait (muster traits train).  May hold {trait}, {trait_set},
        {year}, {month}; without {trait}, a bundle is the folder of the trait's name in it.
    output : str
        Folder for the products; a backfill adds the year.  May hold {trait_set}, {year}, {month}.
    overwrite : bool
        Compute what is up to date as well.
    local_point_density : bool
        Count the training points near each pixel, too, for the area of applicability.
    trait_table : str or None
        CSV with a trait's name, unit, description and TRY id.
    engines : Engines
        What computes a band, where the plan should not choose: {"aoa": "tree"}.
    resources : dict of str to PartialResources
        A step's own wishes, in the place of the site's: {"traits.aoa": {"memory": "8GiB"}}.
    interval_start, interval_end
        As in :class:`muster.jobs.planning.params.IntervalParams`.
    """

    traits: Annotated[Names, Field(min_length=1)]
    trait_set: Name = "default"
    tasks: Annotated[
        tuple[Task, ...],
        BeforeValidator(as_list),
        Field(min_length=1, json_schema_extra={"uniqueItems": True}),
        AfterValidator(check_unique),
    ] = TASKS
    predictors: Predictors
    models: Models
    output: Output
    overwrite: bool = False
    local_point_density: bool = False
    trait_table: TableLocation | None = None
    engines: Engines = Engines()
    resources: dict[Step, PartialResources] = {}

    FILE_KEYS: ClassVar[frozenset[str]] = frozenset(
        {
            "traits", "trait_set", "predictors", "models", "output", "local_point_density",
            "trait_table", "engines", "resources",
        }
    )  # fmt: skip

    @classmethod
    def read_file(cls, path: Path, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the parameters of params.yaml, and what is said before what it says.

        Of traits and trait sets only those may be said that the file has.
        """
        file = read_traits_file(path)
        file.check_names(said.get("traits", ()), said.get("trait_set"))
        return {**file.shared(), **said}

    def relative_locations(self) -> list[str]:
        """List locations that mean another place for every process that reads them."""
        every = (*self.predictors, self.models, self.output, self.trait_table or "/")
        return find_relative(every)

    def predictor_uris(self) -> list[str]:
        """Locations of the predictors in this run."""
        return [self.fill(location) for location in self.predictors]

    def bundle_uri(self, trait: str) -> str:
        """Where a trait's model bundle lies."""
        return locate_bundle(self.models, trait, self.values())

    def product_uri(self, trait: str) -> str:
        """Where a trait's product goes."""
        return storage.join(self.output_uri(), f"{trait}.tif")

    def quicklook_uri(self, trait: str) -> str:
        """Where the picture of a trait's product goes."""
        return storage.join(self.output_uri(), f"{trait}.png")

    def item_uri(self, trait: str) -> str:
        """Where the STAC item of a trait's product goes."""
        return storage.join(self.output_uri(), item_name(trait))

    def values(self) -> dict[str, str | None]:
        """Return what fills the placeholders of locations; the trait set besides."""
        return {"trait_set": self.trait_set, **super().values()}


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
        self.check_names(traits, trait_set)
        said = {"traits": traits, "trait_set": trait_set, "tasks": tasks, "overwrite": overwrite}
        data = {**self.shared(), **{name: value for name, value in said.items() if value}}
        return parse_config(InferParams, data, "params of trait_inference")

    def check_names(self, traits: Any, trait_set: Any) -> None:
        """Refuse traits, or a trait set, that the file does not have; what is neither, later.

        Raises
        ------
        ConfigError
            When there is one.
        """
        named = as_list(traits)
        if not isinstance(named, list | tuple):
            return
        unknown = [trait for trait in named if trait not in self.traits.names]
        if unknown:
            raise ConfigError(
                "unknown trait",
                where="params.yaml, traits.names",
                got=", ".join(map(str, unknown)),
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

    def shared(self) -> dict[str, Any]:
        """Return what the file says of a run: all its traits, and its first trait set."""
        own = set(ParamsFile.model_fields) & set(InferParams.model_fields) - {"traits"}
        return {
            "traits": self.traits.names,
            "trait_set": self.trait_sets[0],
            **self.model_dump(mode="json", include=own),
        }


def read_traits_file(path: Path) -> ParamsFile:
    """Read params.yaml; relative paths in it are relative to the file.

    Raises
    ------
    MissingInput
        When there is no such file.
    ConfigError
        When it is no YAML, or a key is unknown, absent or wrong.
    """
    locations = (("models",), ("output",), ("trait_table",), ("predictors", "*"))
    return parse_config(
        ParamsFile, read_params_file(path, ParamsFile.model_fields, locations), path
    )
