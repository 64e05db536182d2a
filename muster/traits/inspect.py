"""Step traits.inspect: what a run of trait_inference has to compute, and why the rest need not be.

Looking at rasters and bundles is compute, so it happens here, on a pool, and leaves plan.json: for
each trait and step a decision with its reason.  A trait that cannot be mapped says so in its own
elements; only what concerns all traits (predictors, output folder) fails the run.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from muster import storage
from muster.config import parse_config
from muster.errors import InvalidInput, MissingInput
from muster.jobs.plan import Decision, Plan, PlannedElement
from muster.jobs.step import StepContext
from muster.raster.gdal import gdal_environment, open_raster
from muster.raster.whole import check_output_folder
from muster.traits.bundle import Bundle, read_bundle
from muster.traits.fingerprint import BandName, fingerprint_band
from muster.traits.params import InferParams, Task
from muster.traits.predictor_files import PredictorFiles, inspect_predictors
from muster.traits.product import FINGERPRINTS_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WORKFLOW = "trait_inference"
BANDS: tuple[BandName, ...] = get_args(BandName)
TASK_OF_BAND: dict[BandName, Task] = {"prediction": "predict", "cov": "cov", "aoa": "aoa"}


@dataclass(frozen=True)
class Stage:
    """One band of one trait: where its stage raster is or goes.

    Attributes
    ----------
    fingerprint : str
        Of everything that it is made from.
    uri : str
        Where it lies; the name holds the fingerprint.
    there : bool
        Whether it is there.
    """

    fingerprint: str
    uri: str
    there: bool


@dataclass(frozen=True)
class TraitInputs:
    """What was found for a trait that can be mapped.

    Attributes
    ----------
    trait : str
        The trait.
    bundle : Bundle
        Its bundle, checked.
    stages : dict of str to Stage
        For each band.
    recorded : dict of str to str
        Band → fingerprint in the product that is there; empty where product or quicklook is not.
    """

    trait: str
    bundle: Bundle
    stages: dict[BandName, Stage]
    recorded: dict[str, str]


def inspect_traits(
    *,
    params: dict[str, Any],
    bands: str,
    plan: Path,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Look at predictors, bundles and products, and write the plan of a run.

    Parameters
    ----------
    params : dict
        As :class:`muster.traits.params.InferParams`.
    bands : str
        Folder of the stage rasters of all runs.
    plan : Path
        Where plan.json is written.
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
    predictors = inspect_predictors(checked.predictor_uris())
    elements: list[PlannedElement] = []
    products: dict[str, str] = {}
    for number, trait in enumerate(checked.traits):
        context.progress(number / len(checked.traits), f"inspecting {trait}")
        planned = _plan_trait(checked, trait, predictors, bands, context.scratch)
        elements += planned
        build = planned[-1]
        if build.decision in (Decision.RUN, Decision.REUSED):
            products[trait] = checked.product_uri(trait)
    if any(e.step == "traits.build" and e.decision is Decision.RUN for e in elements):
        check_output(checked.output_uri())
    facts = {
        "traits": len(checked.traits),
        "pixels": predictors.grid.whole.pixels,
        "predictor_bands": sum(predictors.bands.values()),
        "grid": predictors.grid.describe(),
        "decisions": count_decisions(elements),
    }
    made = Plan(workflow=WORKFLOW, elements=tuple(elements), facts=facts, products=products)
    plan.write_text(made.model_dump_json(indent=1))
    return facts


def check_output(folder: str) -> None:
    """Refuse an output folder that cannot be written, by trying.

    Raises
    ------
    InvalidInput
        When the folder, or the nearest one above it that there is, cannot be written.
    """
    path = storage.local_path(folder)
    if path is None:
        return  # S3 answers only to a real upload
    nearest = path.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise InvalidInput(
            "output is not a folder", where=nearest, do="choose another output folder"
        )
    check_output_folder(nearest / "product.tif")


def count_decisions(elements: list[PlannedElement]) -> dict[str, dict[str, int]]:
    """Count the decisions of each step."""
    counts: dict[str, Counter[str]] = {}
    for element in elements:
        counts.setdefault(element.step, Counter())[element.decision.value] += 1
    return {step: dict(sorted(counter.items())) for step, counter in counts.items()}


def plan_trait(
    params: InferParams, found: TraitInputs, predictors: tuple[str, ...]
) -> list[PlannedElement]:
    """Decide on the elements of a trait that has a bundle.

    Parameters
    ----------
    params : InferParams
        What was asked for.
    found : TraitInputs
        What is there.
    predictors : tuple of str
        The rasters.

    Returns
    -------
    list of PlannedElement
        traits.predict, traits.cov, traits.aoa and traits.build, in this order.
    """
    uri = params.bundle_uri(found.trait)
    obstacles = {band: _find_obstacle(band, found.bundle) for band in BANDS}
    current = _is_current(params, found, obstacles)
    elements = []
    available: set[BandName] = set()
    for band in BANDS:
        stage = found.stages[band]
        decision, reason = _decide_band(params, band, stage, obstacles[band], current=current)
        if stage.there or decision is Decision.RUN:
            available.add(band)
        elements.append(
            _element(
                found.trait,
                TASK_OF_BAND[band],
                decision,
                reason,
                {
                    "bundle": uri,
                    "predictors": list(predictors),
                    "fingerprint": stage.fingerprint,
                    **_parameters(params, band),
                },
                {band: stage.uri},
            )
        )
    ran = any(element.decision is Decision.RUN for element in elements)
    decision, reason = _decide_build(
        params, current=current, ran=ran, prediction="prediction" in available
    )
    tags = {"TRAIT_SET": params.trait_set}
    if params.interval_start is not None and params.interval_end is not None:
        tags["INTERVAL"] = f"{params.interval_start.isoformat()}/{params.interval_end.isoformat()}"
    elements.append(
        _element(
            found.trait,
            "build",
            decision,
            reason,
            {
                "bundle": uri,
                "bands": {band: found.stages[band].uri for band in BANDS},
                "tags": tags,
            },
            {
                "product": params.product_uri(found.trait),
                "quicklook": params.quicklook_uri(found.trait),
            },
        )
    )
    return elements


def _plan_trait(
    params: InferParams, trait: str, predictors: PredictorFiles, bands: str, scratch: Path
) -> list[PlannedElement]:
    uri = params.bundle_uri(trait)
    try:
        bundle = read_bundle(uri, scratch)
    except MissingInput as error:
        return _refuse(params, trait, Decision.MISSING_INPUT, str(error))
    except InvalidInput as error:
        return _refuse(params, trait, Decision.INVALID_INPUT, str(error))
    problems = predictors.check_bands(bundle.predictors)
    if problems:
        refusal = InvalidInput(
            "; ".join(problems),
            where=", ".join(predictors.uris),
            expected=f"{', '.join(bundle.predictors)}, as the bundle at {uri}",
        )
        return _refuse(params, trait, Decision.INVALID_INPUT, str(refusal))
    if bundle.trait != trait:
        reason = f"the bundle at {uri} is of trait {bundle.trait!r}"
        return _refuse(params, trait, Decision.INVALID_INPUT, reason)
    stages: dict[BandName, Stage] = {}
    for band in BANDS:
        fingerprint = fingerprint_band(band, bundle, predictors.versions, _parameters(params, band))
        stage_uri = storage.join(
            bands,
            params.trait_set,
            params.interval_label or "static",
            trait,
            f"{TASK_OF_BAND[band]}-{fingerprint[:16]}.tif",
        )
        stages[band] = Stage(fingerprint, stage_uri, storage.exists(stage_uri))
    recorded = read_fingerprints(params.product_uri(trait), params.quicklook_uri(trait))
    found = TraitInputs(trait, bundle, stages, recorded)
    return plan_trait(params, found, predictors.uris)


def read_fingerprints(product: str, quicklook: str) -> dict[str, str]:
    """Read which bands a product was made from.

    Returns
    -------
    dict of str to str
        Band → fingerprint; empty where product or quicklook is not there, or the product is none
        of ours: it is then made anew.
    """
    if not (storage.exists(product) and storage.exists(quicklook)):
        return {}
    try:
        with gdal_environment(threads=1, cache_mib=32), open_raster(product) as dataset:
            recorded = json.loads(dataset.tags().get(FINGERPRINTS_TAG, "{}"))
    except (InvalidInput, ValueError):
        return {}
    return recorded if isinstance(recorded, dict) else {}


def _refuse(
    params: InferParams, trait: str, decision: Decision, reason: str
) -> list[PlannedElement]:
    """Plan a trait that cannot be mapped: what was asked for says why."""
    return [
        _element(trait, task, decision, reason, {}, {})
        if task in params.tasks
        else _element(trait, task, *_NOT_ASKED, {}, {})
        for task in get_args(Task)
    ]


_NOT_ASKED = (Decision.NOT_ASKED, "not among the tasks of this run")


def _element(
    trait: str,
    task: Task,
    decision: Decision,
    reason: str,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, str],
) -> PlannedElement:
    return PlannedElement(
        step=f"traits.{task}",
        name=trait,
        group=trait,
        decision=decision,
        reason=reason,
        inputs=dict(inputs),
        outputs=dict(outputs),
    )


def _parameters(params: InferParams, band: BandName) -> dict[str, Any]:
    """List the step's parameters that change a band's values."""
    return {"local_point_density": params.local_point_density} if band == "aoa" else {}


def _find_obstacle(band: BandName, bundle: Bundle) -> tuple[Decision, str] | None:
    """Say why a bundle cannot give a band, as far as its manifest tells."""
    if band == "cov" and len(bundle.fold_paths) < 2:
        return (
            Decision.MISSING_INPUT,
            f"the bundle at {bundle.uri} has {len(bundle.fold_paths)} fold models where a "
            "coefficient of variation needs two; train it with folds",
        )
    if band == "aoa" and max(bundle.importance) <= 0:
        return (
            Decision.INVALID_INPUT,
            f"no predictor of the bundle at {bundle.uri} has an importance above zero, so that "
            "none says what is similar",
        )
    return None


def _is_current(
    params: InferParams,
    found: TraitInputs,
    obstacles: Mapping[BandName, tuple[Decision, str] | None],
) -> bool:
    """Say whether the product is what this run would make of it."""
    wanted = [
        band
        for band in BANDS
        if found.stages[band].there
        or (TASK_OF_BAND[band] in params.tasks and obstacles[band] is None)
    ]
    if not wanted:
        # Only build was asked for, and no stage raster is left: the product itself must do.
        wanted = [band for band in BANDS if band in found.recorded]
    return bool(found.recorded) and all(
        found.recorded.get(band) == found.stages[band].fingerprint for band in wanted
    )


def _decide_band(
    params: InferParams,
    band: BandName,
    stage: Stage,
    obstacle: tuple[Decision, str] | None,
    *,
    current: bool,
) -> tuple[Decision, str]:
    if TASK_OF_BAND[band] not in params.tasks:
        return _NOT_ASKED
    if obstacle is not None:
        return obstacle
    if params.overwrite:
        return Decision.RUN, "to be computed again, as asked"
    if stage.there:
        return Decision.REUSED, "computed before from the same model, predictors and parameters"
    if current and "build" in params.tasks:
        return Decision.REUSED, "the product holds it, from the same model, predictors, parameters"
    return Decision.RUN, "not there yet, or something that it is made from has changed"


def _decide_build(
    params: InferParams, *, current: bool, ran: bool, prediction: bool
) -> tuple[Decision, str]:
    if "build" not in params.tasks:
        return _NOT_ASKED
    if current and not ran and not params.overwrite:
        return Decision.REUSED, "the product is up to date"
    if not prediction:
        return (
            Decision.MISSING_INPUT,
            "there is no prediction to build the product from; run the task predict as well",
        )
    if ran:
        return Decision.RUN, "a band is new"
    return Decision.RUN, "the product is absent, or made from other bands"
