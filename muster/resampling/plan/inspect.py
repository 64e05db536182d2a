"""Step resampling.inspect: what a run of resampling has to do for each dataset, and why.

Only heads of files are read, and of each dataset a sample that tells how long it will take.  What
is wrong with one dataset is said in its own element and leaves the others alone; only the target
concerns all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muster import storage
from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.hashing import hash_json
from muster.jobs.planning.inspection import inspect_items, write_plan
from muster.model.coordinates import Coordinates
from muster.model.plan import Decision, PlannedElement
from muster.model.step import StepContext
from muster.raster.gdal import gdal_environment, open_raster
from muster.raster.write.integrity import check_output_location
from muster.resampling.compute.fit import result_type
from muster.resampling.compute.plan_stream import Demand, prepare
from muster.resampling.compute.source import find_files, look_at_source, read_versions
from muster.resampling.config.datasets import MERGE_GROUP
from muster.resampling.config.params import parse_params
from muster.resampling.layer import FINGERPRINT_TAG, GridSpec, Layer
from muster.resampling.plan.estimate import estimate_seconds
from muster.resampling.plan.target import make_target

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from muster.raster.grid import Grid
    from muster.resampling.compute.fit import Fit
    from muster.resampling.compute.plan_stream import Prepared
    from muster.resampling.compute.source import Source
    from muster.resampling.config.datasets import Dataset
    from muster.resampling.config.params import ResamplingParams

WORKFLOW = "resampling"
RESAMPLE = "resampling.resample"
MERGE = "resampling.merge"

_HEADS_MIB = 16

ALGORITHM = 1
"""To be raised when the same inputs give other values than before."""

_LATER = frozenset({"name", "path", "store", "table", "unit", "description"})
"""What of a dataset does not change its values."""


def inspect_datasets(
    *,
    params: dict[str, Any],
    plan: Path,
    bands: str = "",
    gpus: dict[str, int] | None = None,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Look at a run's datasets and write its plan.

    Parameters
    ----------
    params : dict
        As :class:`muster.resampling.config.params.ResamplingParams`.
    plan : Path
        Where plan.json is written.
    bands, gpus
        What inspections of other workflows are told; not used.
    context : StepContext
        Progress.

    Returns
    -------
    dict
        ``datasets``, ``grid``, and ``decisions``: step → decision → number.

    Raises
    ------
    ConfigError
        When parameters or the target are wrong.
    MissingInput, InvalidInput
        When the raster that gives the target grid is absent or wrong, or the output cannot be
        written.
    Transient
        When storage did not answer.
    """
    del bands, gpus
    checked = parse_params(params)
    like = None if checked.target.like is None else checked.fill(checked.target.like)
    inspection = _Inspection(checked, make_target(checked.target, like))
    folder = checked.output_uri()
    products: dict[str, str] = {}
    datasets = {dataset.name: dataset for dataset in checked.datasets}
    elements = inspect_items(
        list(datasets),
        lambda name: [inspection.plan_dataset(datasets[name])],
        _refuse,
        context,
        locate=lambda name: Coordinates(dataset=name, month=checked.interval_month),
    )
    elements = [inspection.spare_sources(element) for element in elements]
    for element in elements:
        layer = element.inputs.get("layer")
        if layer and layer["cog"]:
            products[element.name] = layer["cog"]
    if any(element.outputs for element in elements):
        check_output_location(folder)
    if checked.merge is not None:
        merge = inspection.plan_merge(elements)
        elements.append(merge)
        uri = checked.merge_uri()
        if merge.decision is Decision.RUN and uri is not None:
            check_output_location(uri.rpartition("/")[0])
            products[MERGE_GROUP] = uri
    facts = {"datasets": len(checked.datasets), "grid": inspection.grid.describe()}
    return write_plan(plan, WORKFLOW, elements, facts, products=products)


class _Inspection:
    """Looks at the datasets of a run, one by one."""

    def __init__(self, params: ResamplingParams, grid: Grid) -> None:
        self.params = params
        self.grid = grid
        self._read_by: dict[str, str] = {}
        """Place of every file that is read → what for."""
        if params.target.like is not None:
            self._read_by[_place_of(params.fill(params.target.like))] = "the target grid"

    def spare_sources(self, element: PlannedElement) -> PlannedElement:
        """Refuse an element whose result would take the place of a file that is read."""
        layer = element.inputs.get("layer") or {}
        for uri in filter(None, (layer.get("cog"), *element.outputs.values())):
            reader = self._read_by.get(_place_of(uri))
            if reader is not None:
                error = ConfigError(
                    "the result would take the place of a source",
                    where=f"dataset {element.name}",
                    got=f"{uri}, which is read for {reader}",
                    do="name another folder for output, or the dataset otherwise",
                )
                return _refuse(element.name, Decision.INVALID_INPUT, str(error))[0]
        return element

    def plan_merge(self, elements: Sequence[PlannedElement]) -> PlannedElement:
        """Decide on the merge of what the datasets' elements will have made."""
        by_name = {element.name: element for element in elements}
        merge = self.params.merge
        if merge is None:
            raise ValueError("the run has no merge")
        members = [by_name[dataset.name] for dataset in self.params.merged_datasets()]
        bad = [m for m in members if m.decision not in (Decision.RUN, Decision.REUSED)]
        if bad:
            lacking = {m.decision for m in bad}
            decision = (
                Decision.MISSING_INPUT
                if lacking == {Decision.MISSING_INPUT}
                else Decision.INVALID_INPUT
            )
            names = ", ".join(member.name for member in bad)
            return self._merge(decision, f"needs {names}, which cannot be made")
        layers = [member.inputs["layer"] for member in members]
        uri, table = self.params.merge_uri(), self.params.merge_table()
        columns = [[layer["dataset"]["name"], layer["fingerprint"]] for layer in layers]
        digest = hash_json([columns, merge.incomplete])
        return self._merge(
            Decision.RUN,
            f"{len(layers)} datasets, cells with a gap {merge.incomplete}",
            inputs={
                "layers": layers,
                "incomplete": merge.incomplete,
                "table": table,
                "key": self.params.merge_key(),
                "fingerprint": digest,
                "overwrite": self.params.overwrite,
            },
            outputs={} if uri is None else {"parquet": uri},
            needs_store=table is not None
            or not all(layer["cog"] or layer["registered"] for layer in layers),
        )

    def _merge(self, decision: Decision, reason: str, **more: Any) -> PlannedElement:
        return PlannedElement(
            step=MERGE,
            name=MERGE_GROUP,
            group=MERGE_GROUP,
            decision=decision,
            reason=reason,
            **more,
        )

    def plan_dataset(self, dataset: Dataset) -> PlannedElement:
        """Decide on one dataset."""
        params = self.params
        filled = dataset.model_copy(update={"path": params.fill(dataset.path)})
        uris = find_files(filled.path)
        source = look_at_source(uris, dataset.band)
        self._read_by |= {_place_of(uri): f"dataset {dataset.name}" for uri in source.files}
        prepared = prepare(
            source,
            self.grid,
            filled,
            Demand(
                memory_mib=params.memory,
                window_px=params.window_px,
                loads=bool({"tiles", "rows"} & set(dataset.store or ())),
            ),
            tolerance_px=params.target.tolerance_px,
        )
        layer = self._make_layer(filled, source, prepared.fit)
        outputs, reason = {}, f"{layer.kind}: {layer.reason}"
        if source.gaps:
            share = f"{100 * source.gaps:.2g} %"
            reason = f"{reason}; none of the {len(uris)} files covers {share} of their extent"
        decision = Decision.RUN
        if layer.cog is not None:
            if not params.overwrite and _holds(layer.cog, layer.fingerprint):
                reason = f"{reason}; its COG is up to date"
                if not (layer.tiles or layer.table):
                    decision = Decision.REUSED
            else:
                outputs["cog"] = layer.cog
        if decision is Decision.RUN and not layer.registered:
            outputs["quicklook"] = params.quicklook_uri(dataset)
        return PlannedElement(
            step=RESAMPLE,
            name=dataset.name,
            group=dataset.name,
            decision=decision,
            reason=f"{reason}; {_say_stores(layer)}",
            inputs={
                "layer": layer.model_dump(mode="json"),
                "memory_mib": params.memory,
                "window_px": params.window_px,
                "overwrite": params.overwrite,
                "estimate": _estimate(layer, prepared),
            },
            outputs=outputs,
            needs_store=layer.tiles or layer.table is not None,
        )

    def _make_layer(self, dataset: Dataset, source: Source, fit: Fit) -> Layer:
        stores = dataset.store or (("register",) if fit.kind == "passthrough" else ("cog",))
        if "register" in stores and fit.kind != "passthrough":
            raise ConfigError(
                "only a dataset that lies on the target grid can be registered",
                where=f"dataset {dataset.name}",
                got=f"{fit.kind}: {fit.reason}",
                expected="store: cog, tiles or rows",
            )
        dtype, nodata = result_type(source, dataset)
        grid = GridSpec.of(self.grid)
        said = dataset.model_dump(mode="json", exclude=set(_LATER))
        versions = read_versions(source)
        tolerance = self.params.target.tolerance_px
        made_from = [
            ALGORITHM, source.files, versions, grid.model_dump(), said, dtype, nodata, fit.kind,
            tolerance,
        ]  # fmt: skip
        return Layer(
            key=self.params.dataset_key(dataset),
            dataset=dataset,
            sources=source.uris,
            versions=versions,
            grid=grid,
            dtype=dtype,  # type: ignore[arg-type]
            nodata=nodata,
            kind=fit.kind,
            reason=fit.reason,
            tolerance_px=tolerance,
            fingerprint=hash_json(made_from),
            cog=self.params.cog_uri(dataset) if "cog" in stores else None,
            table=self.params.table_name(dataset) if "rows" in stores else None,
            tiles="tiles" in stores,
            registered="register" in stores,
        )


def _refuse(name: str, decision: Decision, reason: str) -> list[PlannedElement]:
    return [PlannedElement(step=RESAMPLE, name=name, group=name, decision=decision, reason=reason)]


def _place_of(uri: str) -> str:
    """Name a file alike, whatever links lead to it."""
    path = storage.local_path(uri)
    return uri if path is None else str(path.resolve())


def _holds(uri: str, fingerprint: str) -> bool:
    """Say whether the raster at a URI was made from the same things."""
    try:
        with gdal_environment(1, _HEADS_MIB), open_raster(uri) as dataset:
            return bool(dataset.tags().get(FINGERPRINT_TAG) == fingerprint)
    except (MissingInput, InvalidInput):
        return False  # what is there, if anything, is replaced


def _say_stores(layer: Layer) -> str:
    if layer.registered:
        return "registered, not read"
    places = [layer.cog] if layer.cog else []
    places += ["tiles in Postgres"] if layer.tiles else []
    places += [f"table {layer.table}"] if layer.table else []
    return f"goes to {', '.join(places)}"


def _estimate(layer: Layer, prepared: Prepared) -> dict[str, Any]:
    work = prepared.stream.work
    if layer.registered:
        return {"windows": 0, "window": [0, 0], "memory_mib": 0, "seconds": 0.0}
    first = next(iter(work))
    return {
        "windows": len(work),
        "window": [first.height, first.width],
        "memory_mib": work.memory_mib,
        "seconds": estimate_seconds(prepared),
    }
