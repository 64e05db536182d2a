"""Step traits.inspect: what a run of trait_inference has to compute, and why the rest need not be.

Looking at rasters, bundles and products is compute, so it happens here, on a pool, and leaves
plan.json: for each trait and step a decision with its reason.  A trait that cannot be mapped says
so in its own elements; only what concerns all traits (predictors, output folder) fails the run.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from muster import storage
from muster.config import parse_config
from muster.errors import ConfigError, InvalidInput
from muster.jobs.planning.inspection import inspect_items, write_plan
from muster.model.coordinates import Coordinates
from muster.model.plan import Decision, PlannedElement
from muster.model.step import StepContext
from muster.raster.grid import check_same_grid
from muster.raster.write.integrity import check_output_location
from muster.traits.band_names import BAND_ORDER, BandName
from muster.traits.bundle.bundle import read_bundle
from muster.traits.bundle.training_table import read_training_sample
from muster.traits.engine_names import (
    AUTO,
    PREDICTION_ENGINES,
    RECORDED_AOA_ENGINES,
    present_aoa_engine,
)
from muster.traits.params import InferParams
from muster.traits.plan.choose_aoa_engine import choose_aoa_engine
from muster.traits.plan.decide import (
    TASK_OF_BAND,
    BandFound,
    TraitFound,
    band_parameters,
    every_parameters,
    find_obstacle,
    plan_trait,
    refuse_trait,
)
from muster.traits.plan.fingerprint import fingerprint_band
from muster.traits.plan.predictor_files import PredictorFiles, inspect_predictors
from muster.traits.plan.trait_table import TraitRow, read_trait_table
from muster.traits.predicting.engine import EngineChoice, choose_prediction_engine, load_model
from muster.traits.product.existing import ProductThere, look_at_product

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from muster.traits.bundle.bundle import Bundle
    from muster.traits.engine_names import PredictionEngine

WORKFLOW = "trait_inference"
BUILD = "traits.build"

PROBE_PLOTS = 20_000
"""Plots that engines are tried on, at most: a plan must not need the memory of the step."""


def inspect_traits(
    *,
    params: dict[str, Any],
    bands: str,
    plan: Path,
    gpus: dict[str, int] | None = None,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Look at predictors, bundles and products, and write the plan of a run.

    Parameters
    ----------
    params : dict
        As :class:`muster.traits.params.InferParams`.
    bands : str
        Folder of the band rasters of all runs.
    plan : Path
        Where plan.json is written.
    gpus : dict of str to int, optional
        Step → how many GPUs its placement has.
    context : StepContext
        Scratch folder, for bundles on S3.

    Returns
    -------
    dict
        ``traits``, ``pixels``, ``predictor_bands``, ``grid``, and ``decisions``: step → decision →
        number of traits.

    Raises
    ------
    ConfigError
        When the parameters are wrong, or a placeholder has no value.
    MissingInput, InvalidInput
        When predictors are absent, broken or on different grids, or the output is not writable.
    Transient
        When storage did not answer.
    """
    checked = parse_config(InferParams, params, f"params of {WORKFLOW}")
    checked.output_uri()  # a placeholder without a value is found before anything is opened
    inspection = _Inspection(
        params=checked,
        predictors=inspect_predictors(checked.predictor_uris()),
        table=read_trait_table(checked.trait_table) if checked.trait_table else {},
        bands=bands,
        gpus=gpus or {},
        scratch=context.scratch,
    )
    elements = inspect_items(
        checked.traits,
        inspection.plan_trait,
        partial(refuse_trait, checked),
        context,
        own_errors=(InvalidInput,),
        locate=lambda trait: Coordinates(trait=trait, month=checked.interval_month),
    )
    builds = [element for element in elements if element.step == BUILD]
    if any(build.decision is Decision.RUN for build in builds):
        check_output_location(checked.output_uri())
    return write_plan(
        plan,
        WORKFLOW,
        elements,
        {
            "traits": len(checked.traits),
            "pixels": inspection.predictors.grid.whole.pixels,
            "predictor_bands": sum(inspection.predictors.bands.values()),
            "grid": inspection.predictors.grid.describe(),
        },
        products={
            build.name: checked.product_uri(build.name)
            for build in builds
            if build.decision in (Decision.RUN, Decision.REUSED)
        },
        cached=[
            uri.rpartition("/")[2]
            for build in builds
            for uri in build.inputs.get("bands", {}).values()
        ],
    )


class _Inspection:
    """Looks at the traits of a run, one by one.

    Attributes
    ----------
    params : InferParams
        What was asked for.
    predictors : PredictorFiles
        The rasters.
    table : mapping of str to TraitRow
        What is known of the traits; empty without a table.
    bands : str
        Folder of the band rasters of all runs.
    gpus : mapping of str to int
        Step → GPUs that its placement has.
    scratch : Path
        For bundles on S3.
    """

    def __init__(
        self,
        *,
        params: InferParams,
        predictors: PredictorFiles,
        table: Mapping[str, TraitRow],
        bands: str,
        gpus: Mapping[str, int],
        scratch: Path,
    ) -> None:
        self.params = params
        self.predictors = predictors
        self.table = table
        self.bands = bands
        self.gpus = gpus
        self.scratch = scratch

    def plan_trait(self, trait: str) -> list[PlannedElement]:
        """Look at a trait's bundle and product, and decide on its elements."""
        uri = self.params.bundle_uri(trait)
        product = self._look_at_product(trait)
        if product.kind == "foreign":
            raise InvalidInput(
                "a raster that is no product of this trait lies where its product goes",
                where=product.uri,
                got=product.problem,
                do="move it away, or choose another output folder",
            )
        bundle = read_bundle(uri, self.scratch)
        label = self._label(bundle, trait)
        bands = {band: self._find_band(band, bundle, product) for band in BAND_ORDER}
        found = TraitFound(trait=trait, bundle=bundle, bands=bands, product=product, label=label)
        return plan_trait(self.params, found, self.predictors.uris)

    def _label(self, bundle: Bundle, trait: str) -> dict[str, str]:
        """Check that a bundle is this trait's, and say what its product is to be called."""
        if bundle.trait != trait:
            raise InvalidInput(f"the bundle at {bundle.uri} is of trait {bundle.trait!r}")
        problems = self.predictors.check_bands(bundle.predictors)
        if problems:
            raise InvalidInput(
                "; ".join(problems),
                where=", ".join(self.predictors.uris),
                expected=f"{', '.join(bundle.predictors)}, as the bundle at {bundle.uri}",
            )
        row = self.table.get(trait, TraitRow())
        if row.unit and bundle.unit and row.unit != bundle.unit:
            raise InvalidInput(
                "the bundle has another unit than the trait table",
                where=bundle.uri,
                got=bundle.unit,
                expected=f"{row.unit}, as {self.params.trait_table}",
                do="train the bundle in that unit, or correct the table",
            )
        return {
            # Without blanks at the ends, which a raster's tags lose.
            "unit": (bundle.unit or row.unit).strip(),
            "description": (row.description or bundle.description).strip(),
            "try_id": "" if row.try_id is None else str(row.try_id),
        }

    def _look_at_product(self, trait: str) -> ProductThere:
        params = self.params
        places = params.product_uri(trait), params.quicklook_uri(trait), params.item_uri(trait)
        product = look_at_product(*places, trait)
        if product.grid is not None and check_same_grid(self.predictors.grid, product.grid):
            return ProductThere(
                product.uri, "broken", f"the product there lies on {product.grid.describe()}"
            )
        return product

    def _find_band(self, band: BandName, bundle: Bundle, product: ProductThere) -> BandFound:
        """Find a band as some engine has made it, or choose the engine that is to make it."""
        task = TASK_OF_BAND[band]
        asked = task in self.params.tasks
        # A band that is not asked for is right whichever engine made it, and with or without what
        # the product does not hold.
        wanted = getattr(self.params.engines, task) if asked else AUTO
        if band == "aoa":
            wanted = present_aoa_engine(wanted)
        settings = [band_parameters(self.params, band)]
        if not asked:
            settings += [p for p in every_parameters(band) if p not in settings]
        engines = PREDICTION_ENGINES if wanted == AUTO else (wanted,)
        ways = [
            self._way(
                band, bundle, EngineChoice(engine, "as asked" if wanted == engine else ""), setting
            )
            for setting in settings
            for engine in (RECORDED_AOA_ENGINES if band == "aoa" else engines)
        ]
        held = [way for way in ways if product.held.get(band) == way.fingerprint.sha256]
        known = [*held, *(way for way in ways if way.there)]
        if known and not (asked and self.params.overwrite):
            return known[0]
        if not asked or find_obstacle(band, bundle):
            return ways[0]
        if wanted != AUTO:
            problem = self._check_engine(band, bundle, wanted)
            return replace(ways[0], choice=EngineChoice(wanted, "as asked"), problem=problem)
        choice = self._choose(band, bundle)
        if band == "aoa":
            return replace(ways[0], choice=choice)
        return self._way(band, bundle, choice, settings[0])

    def _way(
        self, band: BandName, bundle: Bundle, choice: EngineChoice, parameters: Mapping[str, Any]
    ) -> BandFound:
        fingerprint = fingerprint_band(
            band, bundle, self.predictors.versions, parameters, choice.engine
        )
        uri = storage.join(
            self.bands,
            self.params.trait_set,
            self.params.interval_label or "static",
            bundle.trait,
            f"{TASK_OF_BAND[band]}-{fingerprint.sha256[:16]}.tif",
        )
        return BandFound(fingerprint, uri, storage.exists(uri), choice)

    def _check_engine(self, band: BandName, bundle: Bundle, engine: str) -> str:
        """Say why an engine that was asked for cannot make a band; empty where it can."""
        if band == "aoa":
            absent = engine == "cupy" and importlib.util.find_spec("cupy") is None
            return "the engine cupy was asked for, and CuPy is not installed" if absent else ""
        models = [bundle.model_path] if band == "prediction" else bundle.fold_paths
        try:
            for path in models:
                load_model(path, len(bundle.predictors), 1, cast("PredictionEngine", engine))
        except ConfigError as error:
            return str(error)
        return ""

    def _choose(self, band: BandName, bundle: Bundle) -> EngineChoice:
        """Try the engines on the trait's own plots."""
        if band == "aoa":
            return choose_aoa_engine(bundle, gpus=self.gpus.get("traits.aoa", 0))
        plots = read_training_sample(bundle.training_path, bundle.predictors, PROBE_PLOTS)
        pixels = self.predictors.grid.whole.pixels
        models = [bundle.model_path] if band == "prediction" else bundle.fold_paths
        return choose_prediction_engine(models, plots, pixels)
