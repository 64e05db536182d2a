"""``muster resampling``: bring rasters to one grid, merge them, read and compare them."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import LazyGroup
from muster.cli.following import showing_progress
from muster.cli.options import json_option, print_json, site_option, with_options
from muster.cli.workflow_run import (
    choose_site,
    make_run,
    month_option,
    run_options,
    with_interval,
    year_option,
)
from muster.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.model.plan import Plan
    from muster.resampling.config.params import ResamplingParams

log = logging.getLogger(__name__)

_LONG_S = 60.0
"""A time from which on nobody asks for seconds."""

_params_options = with_options(
    click.option(
        "--params",
        "params_path",
        required=True,
        type=click.Path(path_type=Path),
        help="resampling.yaml: target, datasets, output, merge.",
    ),
    year_option,
    month_option,
    click.option("--memory", help="Budget of one dataset's windows, with its unit: 512MiB."),
)
_dataset_option = click.option(
    "--dataset", "named", multiple=True, help="Only this of the file's datasets; may be repeated."
)


@click.group(
    cls=LazyGroup,
    elsewhere={
        "read": "muster.cli.resampling_read:read",
        "compare": "muster.cli.resampling_compare:compare",
    },
)
def resampling() -> None:
    """Bring rasters to one grid, merge them into one table, read and compare them."""


@resampling.command()
@_params_options
@_dataset_option
@run_options
def run(**options: Any) -> int:
    """Resample and merge without Airflow, by the plan and the batches that it would use.

    With --dataset nothing is merged: 'muster resampling merge' does that from what is there.
    """
    from muster.jobs.planning.workflow import load_workflow

    params = _read_params(options)
    elements = len(params.datasets) + (params.merge is not None)
    return make_run(load_workflow("resampling"), params, options, elements)


@resampling.command()
@_params_options
@_dataset_option
@site_option
@click.option("--overwrite", is_flag=True, help="As if what is up to date were to be computed.")
@json_option
def plan(**options: Any) -> int:
    """Say what a run would do: decision, windows, memory and time of each dataset.

    Exits with 1 where an input is wrong, or none is there: such a run would fail.
    """
    params = _read_params(options)
    made = _inspect(params, options)
    rows = [_tell_element(made, name) for name in _names(made)]
    if options["as_json"]:
        print_json({"datasets": rows, "facts": made.facts})
    else:
        click.echo("\n".join(render_plan(rows)))
    return os.EX_OK if _may_succeed(made) else 1


@resampling.command()
@_params_options
@site_option
@click.option("--output", help="Parquet file to write, in the place of the file's merge.")
@click.option("--table", help="Table in Postgres to write, in the place of the file's merge.")
@json_option
def merge(**options: Any) -> None:
    """Merge the datasets that are there into one table, without a run."""
    from muster.cli.resampling_merge import merge_here
    from muster.cli.session import share_store

    options |= {"named": (), "overwrite": True}  # what is merged already is merged again
    params = _with_merge(_read_params(options), options)
    share_store()
    facts = merge_here(_inspect(params, options), params.memory)
    places = {"output": params.merge_uri(), "table": params.merge_table()}
    if options["as_json"]:
        print_json({**places, "facts": facts})
        return
    told = ", ".join(f"{name} {value}" for name, value in facts.items() if value not in (None, ""))
    click.echo(told or "merged")
    for place in places.values():
        if place is not None:
            click.echo(f"  {place}")


def render_plan(rows: list[dict[str, Any]]) -> list[str]:
    """Render what a run would do as lines for people: a row a dataset, its reasons below."""
    head = ("", "decision", "how", "windows", "memory", "time")
    table = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(head))]
    lines = []
    for line, row in zip(table, [None, *rows], strict=True):
        lines.append("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())
        if row is not None:
            lines.append(f"    {row['reason']}")
    return lines


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    cells = (row["dataset"], row["decision"], row["kind"] or "")
    if not row["windows"]:  # nothing is read
        return (*cells, "", "", "")
    shape = "" if row["window"] is None else " of {} × {}".format(*row["window"])
    return (
        *cells,
        f"{row['windows']}{shape}",
        "" if row["memory_mib"] is None else f"{row['memory_mib']} MiB",
        "" if row["seconds"] is None else _describe_time(row["seconds"]),
    )


def _describe_time(seconds: float) -> str:
    from muster.jobs.running.eta import describe_roughly

    return f"{seconds:.2g} s" if seconds < _LONG_S else describe_roughly(seconds)


def _may_succeed(made: Plan) -> bool:
    """Say whether a run would: what is missing leaves it good, as long as anything is there."""
    from muster.model.plan import Decision

    decisions = {element.decision for element in made.elements}
    makes = {Decision.RUN, Decision.REUSED}
    return Decision.INVALID_INPUT not in decisions and not makes.isdisjoint(decisions)


def _names(made: Plan) -> list[str]:
    return list(dict.fromkeys(element.group for element in made.elements))


def _tell_element(made: Plan, name: str) -> dict[str, Any]:
    (element,) = [e for e in made.elements if e.group == name]
    layer = element.inputs.get("layer") or {}
    estimate = element.inputs.get("estimate") or {}
    return {
        "dataset": name,
        "decision": element.decision.value,
        "reason": element.reason,
        "kind": layer.get("kind"),
        "kind_reason": layer.get("reason"),
        **{key: estimate.get(key) for key in ("windows", "window", "memory_mib", "seconds")},
        "product": made.products.get(name),
    }


def _inspect(params: ResamplingParams, options: Mapping[str, Any]) -> Plan:
    """Look at the datasets here."""
    from muster.cli.dry_run import inspect_here
    from muster.jobs.planning.workflow import load_workflow
    from muster.model.step import StepContext

    workflow = load_workflow("resampling")
    site = choose_site(options["site_name"], None, workflow)
    with showing_progress("inspecting") as progress:
        context = StepContext(threads=os.cpu_count() or 1, progress=progress)
        return inspect_here(site, workflow, params.model_dump(mode="json"), context)


def _read_params(options: Mapping[str, Any]) -> ResamplingParams:
    """Read and check the parameters that the options name."""
    from muster.resampling.config.params import parse_params, read_resampling_file

    path = options["params_path"]
    data = read_resampling_file(path)
    data |= {key: options[key] for key in ("memory", "overwrite") if options[key]}
    params = with_interval(parse_params(data, path), options["year"], options["month"])
    params = _select(params, options["named"], path)
    _check_locations(params)
    return params


def _select(params: ResamplingParams, named: tuple[str, ...], path: Path) -> ResamplingParams:
    """Take only some datasets; a table of a part of them would take the place of the whole."""
    if not named:
        return params
    known = [dataset.name for dataset in params.datasets]
    unknown = [name for name in named if name not in known]
    if unknown:
        raise ConfigError(
            "unknown dataset",
            where=f"{path}, datasets",
            got=", ".join(unknown),
            expected=", ".join(known),
            do="check the spelling, or add it to the file",
        )
    if params.merge is not None:
        log.info("nothing is merged: 'muster resampling merge' does it from what is there")
    datasets = tuple(dataset for dataset in params.datasets if dataset.name in named)
    return params.model_copy(update={"datasets": datasets, "merge": None})


def _with_merge(params: ResamplingParams, options: Mapping[str, Any]) -> ResamplingParams:
    """Let a merge go where the options say."""
    from muster.config import parse_config
    from muster.resampling.config.datasets import Merge

    output, table = options["output"], options["table"]
    if output is None and table is None:
        if params.merge is None:
            raise ConfigError(
                "no merge is asked for",
                where=options["params_path"],
                do="say merge: in the file, or give --output or --table",
            )
        return params
    if output is not None and "://" not in output:
        output = str(Path(output).absolute())
    given = {} if params.merge is None else params.merge.model_dump(mode="json")
    merged = parse_config(Merge, {**given, "output": output, "table": table}, "--output, --table")
    return params.model_copy(update={"merge": merged})


def _check_locations(params: ResamplingParams) -> None:
    """Find a placeholder without a value before a run is opened."""
    params.output_uri()
    params.merge_uri()
    params.merge_table()
    for dataset in params.datasets:
        params.fill(dataset.path)
        params.table_name(dataset)
    if params.target.like is not None:
        params.fill(params.target.like)
