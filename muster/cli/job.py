"""Commands that run inside a job, or that make one's input."""

from __future__ import annotations

import os
import time

import click

from muster import storage
from muster.backends.array_tasks import parse_elements
from muster.jobs.running.child import die_with_parent
from muster.jobs.running.publish_progress import PUBLISH_INTERVAL_S
from muster.jobs.running.runner import Running, run_elements
from muster.model.environment import LOG_VARIABLE, PARENT_VARIABLE, find_job_end


@click.command()
@click.argument("batch_uri")
@click.option(
    "--index",
    "indexes",
    type=click.IntRange(min=0),
    multiple=True,
    help="Which element of the batch; may be repeated.",
)
@click.option(
    "--elements",
    "elements_uri",
    help="File that says which elements each task of this job's array runs, a line a task.",
)
@click.option(
    "--place",
    type=click.IntRange(min=0),
    help="With --elements: which task this is, from 0.",
)
@click.option("--all", "all_elements", is_flag=True, help="Every element ordered by this job.")
@click.option("--workers", type=click.IntRange(min=1), default=1, help="How many elements at once.")
@click.option("--job", envvar="MUSTER_JOB", required=True, help="Submission key [MUSTER_JOB].")
@click.option(
    "--progress-every",
    "progress_every_s",
    type=click.FloatRange(min=0, min_open=True),
    envvar="MUSTER_PROGRESS_EVERY_S",
    default=PUBLISH_INTERVAL_S,
    show_default=True,
    help="Seconds between two words about progress at least [MUSTER_PROGRESS_EVERY_S].",
)
@click.option("--logs", is_flag=True, help="Write each element's output into its own log.")
@click.option(
    "--feed",
    type=click.IntRange(min=3),
    help="Descriptor of an inherited socket that further elements are asked for at.",
)
def run(
    batch_uri: str,
    indexes: tuple[int, ...],
    *,
    elements_uri: str | None,
    place: int | None,
    all_elements: bool,
    workers: int,
    job: str,
    progress_every_s: float,
    logs: bool,
    feed: int | None,
) -> int:
    """Run elements of a batch, as their fences order it."""
    if [bool(indexes), elements_uri is not None, all_elements].count(True) != 1:
        raise click.UsageError("give one of --index, --elements and --all")
    if (elements_uri is None) != (place is None):
        raise click.UsageError("give --elements and --place together")
    parent = os.environ.get(PARENT_VARIABLE)
    if parent:
        die_with_parent(int(parent))
    chosen = None if all_elements else list(indexes)
    if elements_uri is not None and place is not None:
        chosen = _read_elements(elements_uri, place)
    how = Running(
        job,
        workers=workers,
        progress_every_s=progress_every_s,
        own_logs=logs,
        log=os.environ.get(LOG_VARIABLE),
        ends_at=find_job_end(os.environ, time.time()),
        echo=logs and elements_uri is not None,  # in a pod, whose own log people ask for
        feed=feed,
    )
    return run_elements(batch_uri, chosen, how)


def _read_elements(uri: str, place: int) -> list[int]:
    """Read which elements this task runs; another node may see the list where this one does not."""
    from muster.errors import MissingInput, Transient

    try:
        text = storage.read_text(uri)
    except MissingInput as error:
        raise Transient("this node does not see the list of elements", where=uri) from error
    return parse_elements(text, place, uri)


@click.command()
@click.argument("workflow", metavar="WORKFLOW")
@click.option(
    "--params",
    "params_path",
    type=click.Path(dir_okay=False),
    required=True,
    help="JSON file with the run's parameters.",
)
@click.option("--bands", required=True, help="Where band rasters are kept.")
@click.option(
    "--output", type=click.Path(dir_okay=False), required=True, help="plan.json to write."
)
def plan(workflow: str, params_path: str, bands: str, output: str) -> None:
    """Look at a workflow's inputs and write its plan.json, without running anything."""
    from pathlib import Path

    from muster.jobs.planning.workflow import load_workflow
    from muster.model.step import StepContext, call_step, load_step

    found = load_workflow(workflow)
    params = found.parse_params(_read_json(params_path)).model_dump(mode="json")
    staged = storage.stage(str(Path(output).absolute()))
    try:
        inputs = {"params": params, "bands": bands}
        call_step(load_step(found.inspect), inputs, {"plan": staged.path}, StepContext())
        staged.publish()
    finally:
        staged.discard()


def _read_json(path: str) -> dict[str, object]:
    import json

    from muster.errors import ConfigError

    try:
        data = json.loads(storage.read_text(path))
    except ValueError as error:
        raise ConfigError("not a JSON file", where=path, got=error) from error
    if not isinstance(data, dict):
        raise ConfigError("not a JSON object", where=path, got=type(data).__name__)
    return data
