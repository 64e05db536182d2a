from __future__ import annotations

import pytest
from rich.console import Console

from muster.errors import Transient
from muster.laptop.airflow_api import DagRun, TaskInstance
from muster.laptop.watch import arrange_tasks, render_lines, render_table, watch_run

TRAITS = ("leaf_area", "height")


def task(task_id, state, map_index=-1, label="", try_number=1, seconds=None):
    return TaskInstance(task_id, map_index, label, state, try_number, seconds, None)


TASKS = [
    task("open", "success", seconds=2.0),
    task("plan", "running"),
    task("trait.predict", "success", 0, "leaf_area", seconds=12.3),
    task("trait.predict", "running", 1, "1"),
    task("trait.aoa", "failed", 0, "leaf_area", try_number=3, seconds=4.0),
    task("trait.build", "none", -1),
    task("trait.cov", "removed", 0, "0"),
    task("verdict", "none"),
]


def dag_run(state="running"):
    return DagRun("r", state, "manual", {}, None, None, None)


def test_tasks_are_arranged_by_trait_and_step():
    arranged = arrange_tasks(TASKS, TRAITS)
    assert list(arranged) == ["leaf_area", "height"]
    assert set(arranged["leaf_area"]) == {"predict", "aoa"}
    # Not yet run, so Airflow shows the index: it is the second trait's.
    assert arranged["height"]["predict"].state == "running"


def test_table_shows_each_trait_and_step():
    console = Console(width=100, file=open("/dev/null", "w"), record=True)  # noqa: SIM115
    console.print(render_table(dag_run(), TASKS, TRAITS, 7.0))
    console.file.close()
    text = console.export_text()
    leaf = next(line for line in text.splitlines() if "leaf_area" in line)
    height = next(line for line in text.splitlines() if "height" in line)
    assert "success 12 s" in leaf
    assert "failed, try 3 4 s" in leaf
    assert leaf.count("waiting") == 2
    assert "running" in height
    assert "plan running" in text


def test_lines_tell_only_what_has_a_state():
    assert render_lines(TASKS, TRAITS) == [
        "open: success",
        "plan: running",
        "leaf_area predict: success 12 s",
        "leaf_area aoa: failed, try 3 4 s",
        "height predict: running",
    ]


class ScriptedApi:
    """Answers as a run that ends in its second poll."""

    def __init__(self):
        self.polls = 0

    def run(self, dag_id, run_id):
        self.polls += 1
        return dag_run("running" if self.polls == 1 else "failed")

    def task_instances(self, dag_id, run_id):
        states = ("running", "failed")
        return [task("open", states[self.polls - 1])]


def test_watch_tells_each_change_once_and_ends_with_the_run(capsys, monkeypatch):
    monkeypatch.setattr("muster.laptop.watch.POLL_S", 0.0)
    ended = watch_run(ScriptedApi(), "r", TRAITS, Console(force_terminal=False))
    assert ended.state == "failed"
    assert capsys.readouterr().out == "open: running\nopen: failed\n"


class AwayApi(ScriptedApi):
    """Is away for a while after its first answer."""

    def __init__(self, back_after):
        super().__init__()
        self.calls = 0
        self.back_after = back_after

    def run(self, dag_id, run_id):
        self.calls += 1
        if 1 < self.calls < self.back_after:
            raise Transient("away")
        return super().run(dag_id, run_id)


def test_watch_waits_for_a_server_that_comes_back(monkeypatch):
    monkeypatch.setattr("muster.laptop.watch.POLL_S", 0.0)
    assert watch_run(AwayApi(20), "r", TRAITS, Console(force_terminal=False)).ended


def test_watch_gives_up_on_a_server_that_stays_away(monkeypatch):
    monkeypatch.setattr("muster.laptop.watch.POLL_S", 0.01)
    monkeypatch.setattr("muster.laptop.watch.PATIENCE_S", 0.1)
    with pytest.raises(Transient):
        watch_run(AwayApi(10**9), "r", TRAITS, Console(force_terminal=False))
