"""What a run has made, or where and why it failed, for the person who started it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.errors import MusterError
from muster.laptop.watch import DAG_ID
from muster.model.logs import locate_log
from muster.storage import local_path
from muster.store import runs
from muster.store.database import Database

if TYPE_CHECKING:
    from muster.laptop.airflow_api import AirflowApi
    from muster.laptop.environment import Installation
    from muster.store.runs import ElementStatus

_GOOD = {"succeeded", "reused", "not_asked", "pending"}
_LOG_LINES = 12
_LOG_BYTES = 16 << 10


def store_run_id(run_id: str) -> str:
    """Return the name under which the store knows a DAG run."""
    return f"{DAG_ID}.{run_id}"


def render_products(store_url: str, run_id: str) -> list[str]:
    """Say where the products of a run, their pictures, and its report are, a line each.

    Only what is there is named: a trait that failed has no product of this run.
    """
    database = Database(store_url)
    try:
        run = runs.read_run(database, store_run_id(run_id))
        products = run.facts.get("products", {})
        states = {(e.group, e.state) for e in runs.read_status(database, run.id)}
    finally:
        database.close()
    lines = []
    for trait, uri in products.items():
        path = local_path(uri)
        untouched = {state for group, state in states if group == trait} <= {"reused", "not_asked"}
        note = " (was up to date)" if untouched else ""
        if path is None:
            lines.append(f"{trait}: {uri}{note}")
        elif path.exists():
            picture = path.with_suffix(".png")
            lines.append(f"{trait}: {path}{note}")
            if picture.exists():
                lines.append(f"  quicklook: {picture}")
    if "report" in run.facts:
        lines.append(f"report: {local_path(run.facts['report']) or run.facts['report']}")
    return lines


def render_failures(api: AirflowApi, installation: Installation, run_id: str) -> list[str]:
    """Say which traits and steps of a run failed and why, each with the end of its log."""
    lines: list[str] = []
    database = Database(installation.store_url)
    try:
        elements = runs.read_status(database, store_run_id(run_id))
    except MusterError as error:
        lines.append(f"the store cannot say what failed: {error}")
        elements = []
    finally:
        database.close()
    # Steps that failed for one and the same reason, without a try of their own, are told together.
    steps: dict[tuple[str, str, str | None], list[str]] = {}
    for element in elements:
        if element.state not in _GOOD:
            told = (element.name, _why(element), element.log_uri)
            steps.setdefault(told, []).append(element.step.rpartition(".")[2])
    for (name, why, log_uri), names in steps.items():
        lines.append(f"{name} {', '.join(names)}: {why}")
        lines += _log_lines(log_uri)
    if lines:
        return lines
    # Nothing of the work itself failed: an Airflow task did, before or beside it.
    for task in api.task_instances(DAG_ID, run_id):
        if task.state == "failed":
            lines.append(f"{task.task_id} {task.label}".rstrip() + ": failed")
            log = api.task_log(DAG_ID, run_id, (task.task_id, task.map_index))
            lines += [f"  | {line}" for line in log.splitlines()[-_LOG_LINES:]]
    return lines or [f"the run failed; see {installation.page}/dags/{DAG_ID}"]


def render_page(installation: Installation, user: str) -> list[str]:
    """Say where the page is and how to log in."""
    return [
        f"page:  {installation.page}",
        f"login: {user} / {installation.secrets.admin_password}",
        "The services go on; 'make stop' ends them.",
    ]


def _why(element: ElementStatus) -> str:
    reason = element.message or element.reason
    return f"{element.state}: {reason}" if reason else element.state


def _log_lines(uri: str | None) -> list[str]:
    if not uri:
        return []
    part = locate_log(uri)
    tail = part.read(max(0, part.size() - _LOG_BYTES)).decode("utf-8", "replace")
    return [f"  | {line}" for line in tail.splitlines()[-_LOG_LINES:]]
