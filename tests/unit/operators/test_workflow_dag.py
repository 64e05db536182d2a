"""The Grid equals the declaration: tasks, their order, their rules, and how they are placed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from muster.errors import ConfigError
from muster.jobs.planning.workflow import WORKFLOWS, Workflow, load_workflow
from operators.workflow_dag import make_dag
from tests.batches import add_steps_to_path

if TYPE_CHECKING:
    from pathlib import Path

SITE = """
work = "/work"
[pools]
local = { backend = "local", slots = 2 }
genoa = { backend = "slurm", slots = 9, partition = "genoa" }
[placement]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    add_steps_to_path(monkeypatch)
    path = tmp_path / "site.toml"
    monkeypatch.setenv("MUSTER_SITE", str(path))
    return path


def place_steps(site: Path, workflow: Workflow) -> None:
    """Place every second step on the cluster."""
    pools = ("local", "genoa")
    lines = [
        f'"{s}" = {{ pool = "{pools[n % 2]}", time = "01:00:00" }}'
        for n, s in enumerate(workflow.steps)
    ]
    site.write_text(SITE + "\n".join(lines) + "\n")


def name_task(workflow: Workflow, step: str) -> str:
    """Return the id that the task of a step is to have."""
    name = step.split(".")[1]
    alone = len(workflow.stages) == len(workflow.stages[0]) == 1
    in_group = step not in (workflow.inspect, *workflow.final_steps)
    return f"{workflow.noun}.{name}" if in_group and not alone else name


@pytest.mark.parametrize("name", [*WORKFLOWS, "census"])
def test_the_grid_equals_the_declaration(site: Path, name: str) -> None:
    workflow = load_workflow(name)
    place_steps(site, workflow)
    dag = make_dag(name, None, doc="…")
    tasks: dict[str, Any] = {task.task_id: task for task in dag.tasks}
    of = {step: name_task(workflow, step) for step in workflow.steps}
    assert set(tasks) == {"open", "plan", "verdict", *of.values()}

    after = {"open": [], of[workflow.inspect]: ["open"], "plan": [of[workflow.inspect]]}
    earlier = ["plan"]
    for stage in (*workflow.stages, *((step,) for step in workflow.final_steps)):
        for step in stage:
            after[of[step]] = sorted(earlier)
        earlier = [of[step] for step in stage]
    after["verdict"] = sorted(earlier)
    found = {task_id: sorted(task.upstream_task_ids) for task_id, task in tasks.items()}
    assert {
        t: [u for u in ups if u != "plan" or after[t] == ["plan"]] for t, ups in found.items()
    } == after

    always = {*(of[s] for stage in workflow.stages[1:] for s in stage), "verdict"}
    always |= {of[step] for step in workflow.final_steps}
    assert {t for t, task in tasks.items() if task.trigger_rule.value == "all_done"} == always
    assert [task.task_id for task in dag.leaves] == ["verdict"]

    for number, step in enumerate(workflow.steps):
        task = tasks[of[step]]
        made = getattr(task, "operator_class", type(task)).__name__
        assert made == ("LocalBatchOperator", "SlurmBatchOperator")[number % 2]
        assert task.pool == ("local", "genoa")[number % 2]
    assert dag.is_paused_upon_creation is False
    assert list(dag.params)[-1] == "quorum"


def test_a_workflow_that_there_is_not_is_told(site: Path) -> None:
    place_steps(site, load_workflow("resampling"))
    with pytest.raises(ConfigError, match="unknown workflow; got: mocks; expected: trait_infer"):
        make_dag("mocks", None, doc="…")


def test_a_step_that_the_site_does_not_place_is_told(site: Path) -> None:
    place_steps(site, load_workflow("resampling"))
    with pytest.raises(ConfigError, match="the site does not place this step"):
        make_dag("trait_inference", None, doc="…")


PODS = """
work = "s3://bucket/work"
[pools]
local = { backend = "local", slots = 2 }
pods = { backend = "kubernetes", slots = 9, image = "registry.example.org/muster:1" }
[placement]
"resampling.inspect" = { pool = "local" }
"resampling.resample" = { pool = "pods", time = "01:00:00" }
"resampling.merge" = { pool = "pods", time = "01:00:00" }
"""


def test_a_pool_on_kubernetes_gives_its_operator_mapped_or_not(site: Path) -> None:
    site.write_text(PODS)
    tasks: dict[str, Any] = {t.task_id: t for t in make_dag("resampling", None, doc="…").tasks}
    assert tasks["resample"].operator_class.__name__ == "KubernetesBatchOperator"
    assert type(tasks["merge"]).__name__ == "KubernetesBatchOperator"
    assert {tasks[name].pool for name in ("resample", "merge")} == {"pods"}


def test_an_airflow_without_the_provider_is_told_in_a_line(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write_text(PODS)
    monkeypatch.delitem(sys.modules, "operators.kubernetes", raising=False)
    monkeypatch.setitem(sys.modules, "airflow.providers.cncf.kubernetes.operators.pod", None)
    with pytest.raises(ConfigError, match=r"pool pods of site site.*make kubernetes"):
        make_dag("resampling", None, doc="…")
