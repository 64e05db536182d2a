"""The traits' part of a run's report: what each map is worth, and its picture.

Read beside the products, where they tell of themselves: the STAC item (``TRAIT.json``) and the
quicklook (``TRAIT.png``).  Either may be absent.  No compute library is needed, so that the process
that gives a verdict can do it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from muster import storage
from muster.config import parse_config
from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.jobs.planning.freeze import safe_name
from muster.jobs.runs.verdict import GOOD
from muster.report.pictures import read_picture
from muster.report.read import read_story
from muster.report.render import render_report
from muster.report.sums import list_engines
from muster.report.write import Report, work_report_uri
from muster.store import runs
from muster.traits.band_names import item_name
from muster.traits.params import InferParams

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from muster.jobs.runs.verdict import GroupVerdict
    from muster.report.pictures import Picture
    from muster.report.read import RunStory
    from muster.store.database import Database
    from muster.store.records import Run

TEMPLATE = "traits/report.html.j2"
FOLDER = "reports"
"""The folder of the reports, in that of the products."""

MOST_PICTURE_BYTES = 30 * 1024**2
"""All pictures of a report together; more than that no mail takes and no telephone shows."""

_CV = ("r2", "rmse", "nrmse", "mae", "n")


@dataclass(frozen=True)
class TraitResult:
    """What a run has come to for one trait.

    Attributes
    ----------
    name, state : str
        The trait, and how it stands.
    reasons : tuple of str
        Why, where it is not good.
    product : str or None
        URI of the product, where the run has one.
    link : str or None
        From the report to the product, as long as the two stay together.
    unit, description, try_id : str or None
        As the product says.
    cv : dict of str to float
        Cross-validated errors, in the trait's unit.
    inside_fraction : float or None
        Share of the map inside the area of applicability.
    engines : tuple of str
        What computed it.
    picture : Picture or None
        The quicklook.
    note : str or None
        Why there is no picture.
    """

    name: str
    state: str
    reasons: tuple[str, ...] = ()
    product: str | None = None
    link: str | None = None
    unit: str | None = None
    description: str | None = None
    try_id: str | None = None
    cv: dict[str, float] = field(default_factory=dict)
    inside_fraction: float | None = None
    engines: tuple[str, ...] = ()
    picture: Picture | None = None
    note: str | None = None


def make_report(db: Database, run: Run) -> Report:
    """Make the report of a run of trait_inference."""
    story = read_story(db, run)
    output = read_output(run)
    uri = work_report_uri(run)
    unseen = tell_unseen(db, run, story.groups)
    if output is not None and run.planned_at is not None and unseen is None:
        uri = storage.join(output, FOLDER, f"{safe_name(run.id)}.html")
    traits = read_results(story, output, unseen)
    # The store keeps no order of keys; the model's is one for people.
    params = {name: run.params[name] for name in InferParams.model_fields if name in run.params}
    html = render_report(
        story, TEMPLATE, traits=traits, output=output, unseen=unseen, params=params
    )
    return Report(html, uri)


def read_output(run: Run) -> str | None:
    """Say where a run's products go, or None where its parameters do not tell."""
    try:
        return parse_config(InferParams, run.params, f"params of {run.id}").output_uri()
    except ConfigError:
        return None


def tell_unseen(db: Database, run: Run, groups: Iterable[GroupVerdict]) -> str | None:
    """Say in a line that a run's products are on a cluster's disk; None where they are seen here.

    Of a cluster with a work directory of its own this machine need not see any disk.  Where it sees
    none of the products that there should be, it writes nothing beside them.
    """
    output = read_output(run)
    clusters = runs.read_clusters_elsewhere(db, run.id)
    folder = None if output is None else storage.local_path(output)
    if folder is None or not clusters:
        return None
    products: Mapping[str, str] = run.facts.get("products") or {}
    built = [products[g.name] for g in groups if _is_built(g) and g.name in products]
    if any(map(storage.exists, built)) or (not built and folder.is_dir()):
        return None
    return f"the products are on {', '.join(clusters)}, in {output}, which is not seen from here"


def _is_built(group: GroupVerdict) -> bool:
    return group.steps.get("traits.build") in GOOD


def read_results(
    story: RunStory, output: str | None, unseen: str | None = None
) -> list[TraitResult]:
    """Read what lies beside each trait's product.

    A trait without a product of this run may have an older one there, of which nothing is told.
    With ``unseen``, which says why, nothing is looked for.

    Raises
    ------
    Transient
        When storage did not answer.
    """
    products: Mapping[str, str] = story.run.facts.get("products") or {}
    left = MOST_PICTURE_BYTES
    results = []
    for group in story.groups:
        product = products.get(group.name)
        if product is None or not _is_built(group):
            results.append(TraitResult(group.name, group.state, group.reasons))
            continue
        if unseen is not None:
            results.append(
                TraitResult(group.name, group.state, group.reasons, product, note=unseen)
            )
            continue
        picture, note, size = read_picture(_beside(product, ".png"), left)
        left -= size
        results.append(_result(group, product, output, picture, note))
    return results


def _result(
    group: GroupVerdict, product: str, output: str | None, picture: Picture | None, note: str | None
) -> TraitResult:
    folder, _, _ = product.rpartition("/")
    said = _read_properties(storage.join(folder, item_name(group.name)))
    cv = said.get("muster:cv")
    numbers = {name: _number(cv.get(name)) for name in _CV} if isinstance(cv, dict) else {}
    return TraitResult(
        name=group.name,
        state=group.state,
        reasons=group.reasons,
        product=product,
        link=link_product(product, output),
        unit=_text(said.get("muster:unit")),
        description=_text(said.get("muster:description")),
        try_id=_text(said.get("muster:try_id")),
        cv={name: number for name, number in numbers.items() if number is not None},
        inside_fraction=_number(said.get("muster:inside_fraction")),
        engines=tuple(list_engines({"engines": said.get("muster:engines")})),
        picture=picture,
        note=note,
    )


def link_product(product: str, output: str | None) -> str | None:
    """Return the way from a report to a product in the folder above it, for a browser."""
    if output is None:
        return None
    folder = f"{output.rstrip('/')}/"
    name = product.removeprefix(folder)
    if name == product or not name:
        return None
    # A file URI is quoted as it is; plain paths and S3 keys are not.
    return f"../{name if folder.startswith('file:') else quote(name)}"


def _beside(product: str, suffix: str) -> str:
    return f"{product.removesuffix('.tif')}{suffix}"


def _read_properties(uri: str) -> dict[str, Any]:
    """Read what a STAC item says; nothing where there is none, or none that can be read."""
    try:
        item = json.loads(storage.read_bytes(uri))
    except (MissingInput, InvalidInput, ValueError, RecursionError):
        return {}
    properties = item.get("properties") if isinstance(item, dict) else None
    return properties if isinstance(properties, dict) else {}


def _text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip() or None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
