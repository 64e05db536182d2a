"""What a trait needs: for each band and the product a decision and its reason, and nothing else.

Pure: what is there was looked at before (:mod:`muster.traits.plan.inspect`).  A band is kept where
it lies, as a band raster or in the product; any band that is made ends in a new product, and a
product never holds bands of different models side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from muster.model.plan import Decision, PlannedElement
from muster.traits.band_names import BAND_ORDER, BandName
from muster.traits.engine_names import RECORDED_AOA_ENGINES
from muster.traits.params import Task
from muster.traits.product.existing import OLDER, ProductThere

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.traits.bundle.bundle import Bundle
    from muster.traits.params import InferParams
    from muster.traits.plan.fingerprint import Fingerprint
    from muster.traits.predicting.engine import EngineChoice

TASK_OF_BAND: dict[BandName, Task] = {"prediction": "predict", "cov": "cov", "aoa": "aoa"}

_NOT_ASKED = (Decision.NOT_ASKED, "not among the tasks of this run")


@dataclass(frozen=True)
class BandFound:
    """One band of one trait: what it is to be made from, and what is there of it.

    Attributes
    ----------
    fingerprint : Fingerprint
        Of everything that it is made from.
    uri : str
        Where its band raster lies or goes; the name holds the fingerprint.
    there : bool
        Whether that is there.
    choice : EngineChoice
        What computed it, or is to.
    problem : str
        Why that cannot compute it; empty where it can.
    """

    fingerprint: Fingerprint
    uri: str
    there: bool
    choice: EngineChoice
    problem: str = ""


@dataclass(frozen=True)
class TraitFound:
    """What was found of a trait that can be mapped.

    Attributes
    ----------
    trait : str
        The trait.
    bundle : Bundle
        Its bundle, checked.
    bands : dict of str to BandFound
        For each band.
    product : ProductThere
        What lies where the product goes.
    label : dict of str to str
        "unit", "description", "try_id" as the product is to say them.
    """

    trait: str
    bundle: Bundle
    bands: dict[BandName, BandFound]
    product: ProductThere
    label: dict[str, str] = field(default_factory=dict)

    def is_held(self, band: BandName) -> bool:
        """Say whether the product that is there holds a band as it is to be."""
        return self.product.held.get(band) == self.bands[band].fingerprint.sha256

    def is_older(self, band: BandName) -> bool:
        """Say whether the product holds a band that came from one of the older kind."""
        return self.product.held.get(band, "").startswith(OLDER)


def find_obstacle(band: BandName, bundle: Bundle) -> tuple[Decision, str] | None:
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


def refuse_trait(
    params: InferParams, trait: str, decision: Decision, reason: str
) -> list[PlannedElement]:
    """Plan a trait that cannot be mapped: what was asked for says why."""
    return [
        _element(trait, task, decision, reason)
        if task in params.tasks
        else _element(trait, task, *_NOT_ASKED)
        for task in get_args(Task)
    ]


def plan_trait(
    params: InferParams, found: TraitFound, predictors: Sequence[str]
) -> list[PlannedElement]:
    """Decide on the elements of a trait that has a bundle.

    Parameters
    ----------
    params : InferParams
        What was asked for.
    found : TraitFound
        What is there.
    predictors : sequence of str
        The rasters.

    Returns
    -------
    list of PlannedElement
        traits.predict, traits.cov, traits.aoa and traits.build, in this order.
    """
    uri = params.bundle_uri(found.trait)
    elements: list[PlannedElement] = []
    runs: set[BandName] = set()
    for name in BAND_ORDER:
        band = found.bands[name]
        decision, reason = _decide_band(params, found, name)
        if decision is Decision.RUN:
            runs.add(name)
        inputs = {
            "bundle": uri,
            "predictors": list(predictors),
            "fingerprint": band.fingerprint.sha256,
            "engine": band.choice.engine,
            **band_parameters(params, name),
        }
        task = TASK_OF_BAND[name]
        elements.append(_element(found.trait, task, decision, reason, inputs, {name: band.uri}))
    decision, reason = _decide_build(params, found, runs)
    elements.append(
        _element(
            found.trait,
            "build",
            decision,
            reason,
            _build_inputs(params, found, runs),
            {
                "product": params.product_uri(found.trait),
                "quicklook": params.quicklook_uri(found.trait),
                "item": params.item_uri(found.trait),
            },
        )
    )
    return elements


def band_parameters(params: InferParams, band: BandName) -> dict[str, Any]:
    """List the step's parameters that change a band's values."""
    return {"local_point_density": params.local_point_density} if band == "aoa" else {}


def every_parameters(band: BandName) -> list[dict[str, Any]]:
    """List all values that :func:`band_parameters` may give: the product's band is the same."""
    if band == "aoa":
        return [{"local_point_density": density} for density in (False, True)]
    return [{}]


def _decide_band(params: InferParams, found: TraitFound, name: BandName) -> tuple[Decision, str]:
    band = found.bands[name]
    if TASK_OF_BAND[name] not in params.tasks:
        return _NOT_ASKED
    obstacle = find_obstacle(name, found.bundle)
    if obstacle is not None:
        return obstacle
    if band.problem:
        return Decision.INVALID_INPUT, band.problem
    by = f"by {band.choice.engine}, {band.choice.reason}" if band.choice.reason else ""
    if params.overwrite:
        return Decision.RUN, "; ".join(filter(None, ["to be computed again, as asked", by]))
    if band.there:
        return Decision.REUSED, "computed before from the same model, predictors and parameters"
    if found.is_held(name):
        return Decision.REUSED, "the product holds it, from the same model, predictors, parameters"
    return Decision.RUN, "; ".join(filter(None, [_why_again(found, name), by]))


def _why_again(found: TraitFound, name: BandName) -> str:
    """Say why a band is computed: it is not there, or what of its making has changed."""
    if found.is_older(name):
        return "the product is of the older kind, which does not say what it was made from"
    if name not in found.product.held:
        return "not there yet"
    return f"changed since it was made: {', '.join(_find_changes(found, name))}"


def _find_changes(found: TraitFound, name: BandName) -> list[str]:
    """List what a band was made from that has changed; engines of the AoA are equal to the bit."""
    parts = found.product.made_from.get(name, {})
    changes = found.bands[name].fingerprint.changes_since(parts)
    return [part for part in changes if (name, part) != ("aoa", "engine")]


def _build_inputs(params: InferParams, found: TraitFound, runs: set[BandName]) -> dict[str, Any]:
    becomes = _find_outcome(params, found, runs)
    return {
        "bundle": params.bundle_uri(found.trait),
        "bands": {name: found.bands[name].uri for name in BAND_ORDER},
        "former": {
            "product": found.product.uri,
            "held": {
                name: fingerprint
                for name, fingerprint in becomes.items()
                if found.product.held.get(name) == fingerprint
            },
            "needed": [name for name in becomes if name not in runs],
        },
        "label": {
            **found.label,
            "made_from": {name: found.bands[name].fingerprint.parts for name in BAND_ORDER},
            "engines": _find_engines(found, runs),
        },
        "tags": product_tags(params),
    }


def _find_engines(found: TraitFound, runs: set[BandName]) -> dict[BandName, str]:
    """Say what has computed each band, or will, where that is known.

    Fingerprints tell it but of an AoA, which is recorded under one engine whichever made it: there
    the product's item may say so.
    """
    engines: dict[BandName, str] = {}
    for name, band in found.bands.items():
        recorded = name == "aoa" and band.choice.engine == RECORDED_AOA_ENGINES[0]
        if name in runs or not recorded:
            engines[name] = band.choice.engine
        elif found.is_held(name) and name in found.product.engines:
            engines[name] = found.product.engines[name]
    return engines


def product_tags(params: InferParams) -> dict[str, str]:
    """List what a product says of the run that it is of."""
    tags = {"TRAIT_SET": params.trait_set}
    if params.interval_start is not None and params.interval_end is not None:
        tags["INTERVAL"] = f"{params.interval_start.isoformat()}/{params.interval_end.isoformat()}"
    return tags


def _find_outcome(
    params: InferParams, found: TraitFound, runs: set[BandName]
) -> dict[BandName, str]:
    """Say which bands the product is to have, by their fingerprints, if all goes well."""
    becomes = {}
    for name in BAND_ORDER:
        band = found.bands[name]
        if name in runs or band.there or found.is_held(name):
            becomes[name] = band.fingerprint.sha256
        elif _takes_older(params, found, name):
            becomes[name] = found.product.held[name]
    return becomes


def _takes_older(params: InferParams, found: TraitFound, name: BandName) -> bool:
    """Say whether a band of the older kind is taken over.

    It is where nobody asks for one of ours, and only as long as the prediction is the older one as
    well: beside a new prediction it would speak of another model.
    """
    older_prediction = name == "prediction" or _takes_older(params, found, "prediction")
    return (
        older_prediction
        and found.is_older(name)
        and TASK_OF_BAND[name] not in params.tasks
        and not found.bands[name].there
    )


def _decide_build(
    params: InferParams, found: TraitFound, runs: set[BandName]
) -> tuple[Decision, str]:
    asked = "build" in params.tasks
    # What was made before, and never came into the product, is made up for.
    waiting = {
        name
        for name, band in found.bands.items()
        if TASK_OF_BAND[name] in params.tasks and band.there and not found.is_held(name)
    }
    if not (asked or runs or waiting):
        return _NOT_ASKED
    becomes = _find_outcome(params, found, runs)
    older = [name for name in becomes if _takes_older(params, found, name)]
    outdated = sorted(set(found.product.held) - set(becomes))
    notes = [found.product.problem] if found.product.problem else []
    if outdated:
        changed = {part for name in outdated for part in _find_changes(found, name)}
        notes.append(
            f"{_list(outdated)} of the product there is outdated and left out"
            f" (changed: {_list(sorted(changed))})"
        )
    if older:
        notes.append(f"{_list(older)} of the older product there is taken over")
    if "prediction" not in becomes:
        if not asked:
            kept = _list(sorted(runs | waiting))
            why = f"no prediction by this model is there; {kept} is kept until then, run predict"
            return Decision.NOT_ASKED, "; ".join([why, *notes])
        notes.insert(0, "there is no prediction to build the product from; run the task predict")
        return Decision.MISSING_INPUT, "; ".join(notes)
    if not runs and not params.overwrite and _is_current(params, found, becomes):
        return Decision.REUSED, "the product is up to date"
    kept_there = [n for n in becomes if n not in runs and not found.bands[n].there]
    if runs:
        notes.insert(0, f"new: {_list(n for n in BAND_ORDER if n in runs)}")
    elif found.product.kind == "older":
        notes.insert(0, "the product there is of the older kind, and is converted")
    elif found.product.held != becomes:
        notes.insert(0, "the product is absent, or made from other bands")
    elif params.overwrite:
        notes.insert(0, "to be made again, as asked")
    else:
        notes.insert(0, "its labels have changed, or picture or item are not there")
    if kept_there and not older:
        notes.append(f"{_list(kept_there)} as in the product there")
    return Decision.RUN, "; ".join(notes)


def _is_current(params: InferParams, found: TraitFound, becomes: Mapping[BandName, str]) -> bool:
    """Say whether the product, its picture and its item are what this run would make of them."""
    there = found.product
    return (
        there.kind == "muster"
        and there.held == becomes
        and there.complete
        and all(there.label.get(key, "") == value for key, value in found.label.items())
        and all(there.tags.get(key) == value for key, value in product_tags(params).items())
    )


def _list(names: Any) -> str:
    return ", ".join(names)


def _element(
    trait: str,
    task: Task,
    decision: Decision,
    reason: str,
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> PlannedElement:
    return PlannedElement(
        step=f"traits.{task}",
        name=trait,
        group=trait,
        decision=decision,
        reason=reason,
        inputs=dict(inputs or {}),
        outputs=dict(outputs or {}),
    )
