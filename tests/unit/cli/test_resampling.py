"""`muster resampling` before anything runs: what it refuses, and what it says it would do."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from muster.cli import main
from muster.model import step as step_module
from muster.model.plan import Decision, Plan, PlannedElement

if TYPE_CHECKING:
    from pathlib import Path

    from muster.model.step import StepContext

LAYER = {"kind": "block", "reason": "10 × 10 whole pixels make a cell"}
ESTIMATE = {"windows": 12, "window": [2048, 1024], "memory_mib": 310, "seconds": 200.0}


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "resampling.yaml"
    write(path)
    return path


def write(path: Path, **changes: Any) -> None:
    data: dict[str, Any] = {
        "target": {"crs": "EPSG:4326", "resolution": 0.1, "extent": [5, 45, 10, 50]},
        "datasets": [
            {"name": "wind", "path": "wind-{year}-{month}.tif", "method": "average"},
            {"name": "soil", "path": "soil.tif", "method": "mode"},
        ],
        "output": "out",
        "merge": {"output": "all.parquet", "table": "everything"},
    } | changes
    path.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}))


def say(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Call the command; return its exit code and its one line of complaint."""
    code = main(["resampling", *arguments])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("muster: ")]
    assert len(lines) == 1
    return code, lines[0]


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_dataset_that_the_file_does_not_have(
    params: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    told = ("--params", str(params), "--year", "2024", "--month", "3", "--dataset", "snow")
    code, line = say(capsys, command, *told)
    assert code == os.EX_DATAERR
    assert "unknown dataset" in line
    assert "got: snow; expected: wind, soil" in line


@pytest.mark.parametrize("command", ["run", "plan", "merge"])
def test_what_cannot_be_meant_is_one_line(
    params: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code, line = say(capsys, command, "--params", str(params), "--month", "3")
    assert (code, "month without year" in line) == (os.EX_DATAERR, True)
    code, line = say(capsys, command, "--params", str(params.with_name("none.yaml")))
    assert (code, "none.yaml" in line) == (os.EX_NOINPUT, True)
    code, line = say(capsys, command, "--params", str(params))
    assert (code, "no value for the placeholder {year}" in line) == (os.EX_DATAERR, True)
    code, line = say(capsys, command, "--params", str(params), "--memory", "512")
    assert (code, "a size needs its unit" in line) == (os.EX_DATAERR, True)
    write(params, dataset=[])
    code, line = say(capsys, command, "--params", str(params))
    assert (code, "unknown key; where:" in line, "got: dataset" in line) == (65, True, True)


def test_a_site_that_computes_elsewhere(params: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(params, datasets=[{"name": "soil", "path": "soil.tif", "method": "mode"}])
    told = ("--params", str(params), "--site", "laptop", "--backend", "slurm")
    code, line = say(capsys, "run", *told)
    assert (code, "the site computes elsewhere" in line) == (os.EX_DATAERR, True)


def test_a_merge_that_nobody_asks_for(params: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(params, merge=None)
    told = ("--params", str(params), "--year", "2024", "--month", "3")
    code, line = say(capsys, "merge", *told)
    assert (code, "no merge is asked for" in line) == (os.EX_DATAERR, True)


class Steps:
    """Stand for the steps: note what they are asked, and plan the month without wind."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.merged: list[dict[str, Any]] = []
        self.wind = Decision.MISSING_INPUT
        self.soil = Decision.RUN

    def inspect(
        self, *, params: dict[str, Any], bands: str, plan: Path, gpus: dict[str, int],
        context: StepContext,
    ) -> None:  # fmt: skip
        self.params = params
        context.progress(0.5, "inspecting wind")
        step = "resampling.resample"
        elements = [
            PlannedElement(step=step, name="wind", group="wind", decision=self.wind,
                           reason="no such file; where: wind-2024-03.tif"),
            PlannedElement(step=step, name="soil", group="soil", decision=self.soil,
                           reason="not there yet", inputs={"layer": LAYER, "estimate": ESTIMATE}),
        ]  # fmt: skip
        if params["merge"]:
            elements.append(
                PlannedElement(
                    step="resampling.merge", name="merge", group="merge", decision=Decision.RUN,
                    reason="asked for", inputs={"layers": [LAYER]},
                    outputs={"out": params["merge"]["output"]},
                )
            )  # fmt: skip
        made = Plan(workflow="resampling", elements=tuple(elements), products={"soil": "/o/soil"})
        plan.write_text(made.model_dump_json())

    def merge(self, *, layers: list[dict[str, Any]], out: Path) -> dict[str, Any]:
        self.merged = layers
        out.write_text("rows")
        return {"rows": 7}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    stand_in = Steps()
    of = {"resampling.inspect": stand_in.inspect, "resampling.merge": stand_in.merge}
    monkeypatch.setattr(step_module, "load_step", of.__getitem__)
    monkeypatch.setenv("MUSTER_STORE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("MUSTER_SITE", "laptop")
    return stand_in


def test_the_plan_says_decision_reason_windows_memory_and_time(
    params: Path, steps: Steps, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ("--params", str(params), "--year", "2024", "--month", "3", "--memory", "1GiB")
    assert main(["resampling", "plan", *told]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["decision", "how", "windows", "memory", "time"]
    wind, soil = (next(n for n, t in enumerate(lines) if t.startswith(d)) for d in ("wind", "soil"))
    assert lines[wind].split() == ["wind", "missing_input"]
    assert "wind-2024-03.tif" in lines[wind + 1]
    assert lines[soil].split("  ")[-1].strip() == "about 3 min"
    assert "block" in lines[soil]
    assert "12 of 2048 × 1024" in lines[soil]
    assert "310 MiB" in lines[soil]
    assert lines[soil + 1].strip() == "not there yet"
    assert steps.params["interval_start"] == "2024-03-01T00:00:00Z"
    assert steps.params["interval_end"] == "2024-04-01T00:00:00Z"
    assert steps.params["memory"] == "1024MiB"


def test_a_plan_of_what_would_fail_exits_so(
    params: Path, steps: Steps, capsys: pytest.CaptureFixture[str]
) -> None:
    month = ("--params", str(params), "--year", "2024", "--month", "3")
    write(params, merge=None)
    for soil, wind, code in (
        (Decision.REUSED, Decision.MISSING_INPUT, 0),
        (Decision.RUN, Decision.INVALID_INPUT, 1),
        (Decision.MISSING_INPUT, Decision.MISSING_INPUT, 1),
    ):
        steps.soil, steps.wind = soil, wind
        for more in ((), ("--json",)):
            assert main(["resampling", "plan", *month, *more]) == code
            assert "soil" in capsys.readouterr().out


def test_the_plan_as_json_for_some_datasets(
    params: Path, steps: Steps, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ("--params", str(params), "--year", "2024", "--month", "3", "--dataset", "soil")
    assert main(["resampling", "plan", *told, "--json"]) == 0
    rows = {row["dataset"]: row for row in json.loads(capsys.readouterr().out)["datasets"]}
    assert rows["soil"] == {
        "dataset": "soil", "decision": "run", "reason": "not there yet", "kind": "block",
        "kind_reason": LAYER["reason"], "product": "/o/soil", **ESTIMATE,
    }  # fmt: skip
    assert [dataset["name"] for dataset in steps.params["datasets"]] == ["soil"]
    assert steps.params["merge"] is None, "a table of a part would take the place of the whole"


def test_a_merge_goes_where_it_is_told_to(
    params: Path, steps: Steps, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    told = ("--params", str(params), "--year", "2024", "--month", "3", "--output", "x.parquet")
    assert main(["resampling", "merge", *told]) == 0
    assert (tmp_path / "x.parquet").read_text() == "rows"
    assert steps.merged == [LAYER]
    assert steps.params["merge"]["table"] is None
    assert steps.params["overwrite"] is True
    assert "rows 7" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resampling.yaml", "x.parquet"]
