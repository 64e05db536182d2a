"""Params that mean nothing end a run in its first task, for good, and open no run in the store.

The task's own function is called with what a run of the repository's DAG file would give it; that a
refusal fails the whole run is shown once for each workflow in a live Airflow.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from muster.store import runs
from operators import run
from tests.mock_campaigns import write_campaign
from tests.months import write_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from muster.store.database import Database

REPOSITORY = Path(__file__).resolve().parents[2]
SITE = """
[pools]
local = { backend = "local", slots = 2, max_memory = "60MiB" }
[placement]
"traits.inspect" = { pool = "local" }
"traits.predict" = { pool = "local" }
"traits.cov" = { pool = "local" }
"traits.aoa" = { pool = "local" }
"traits.build" = { pool = "local" }
"resampling.inspect" = { pool = "local" }
"resampling.resample" = { pool = "local" }
"resampling.merge" = { pool = "local" }
"mocks.inspect" = { pool = "local" }
"mocks.populate" = { pool = "local" }
"mocks.collect" = { pool = "local" }
"mocks.qa" = { pool = "local" }
"mocks.manifest" = { pool = "local" }
"""
GOOD = {
    "traits": ["leaf_area"],
    "predictors": ["/data/predictors.tif"],
    "models": "/data/models",
    "output": "/data/maps",
}


@pytest.fixture
def open_run(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, dict[str, Any]], Any]:
    """Call the task ``open`` of a DAG file as a run with this conf would."""
    site = tmp_path / "site.toml"
    site.write_text(SITE)
    monkeypatch.setenv("MUSTER_SITE", str(site))
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(run.Database, "from_environment", lambda: db)
    monkeypatch.syspath_prepend(str(REPOSITORY / "plugins"))

    def call(name: str, conf: dict[str, Any]) -> Any:
        found = runpy.run_path(str(REPOSITORY / "dags" / f"{name}.py"))
        (dag,) = (value for value in found.values() if isinstance(value, DAG))
        dag_run = SimpleNamespace(dag_id=name, run_id="x", run_type="manual", conf=conf)
        params = {key: conf.get(key, dag.params[key]) for key in dag.params}
        return run.open_run({"dag_run": dag_run, "dag": dag, "params": params})  # type: ignore[typeddict-item]

    return call


def assert_refused(db: Database, call: Callable[[], Any], says: str) -> None:
    with pytest.raises(AirflowFailException) as refused:  # Airflow retries any other exception
        call()
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert runs.list_runs(db) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trait": ["x"]}, "unknown params; got: trait"),
        ({"traits": []}, "traits"),
        ({"traits": ["../x"]}, "not safe in a path"),
        ({"output": "maps"}, "locations are relative"),
        ({"resources": {"traits.aoa": {"memory": "1TiB"}}}, "at most 60 in pool local"),
    ],
)
def test_of_trait_inference(
    db: Database, open_run: Callable[..., Any], changes: dict[str, Any], says: str
) -> None:
    assert_refused(db, lambda: open_run("trait_inference", {**GOOD, **changes}), says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"month": 3}, "month without year"),
        ({"configg": "x"}, "unknown params; got: configg"),
        ({"config": "/nowhere/resampling.yaml"}, "/nowhere/resampling.yaml"),
    ],
)
def test_of_resampling(
    db: Database, tmp_path: Path, open_run: Callable[..., Any], changes: dict[str, Any], says: str
) -> None:
    write_config(tmp_path)
    conf = {"config": str(tmp_path / "resampling.yaml"), **changes}
    assert_refused(db, lambda: open_run("resampling", conf), says)


def test_of_mock_campaign_in_one_line_of_the_log(
    db: Database,
    tmp_path: Path,
    open_run: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = write_campaign(tmp_path, pack=0)
    assert_refused(db, lambda: open_run("mock_campaign", {"config": str(file)}), "execution.pack")
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "execution.pack" in line.getMessage()
    assert line.exc_info is None


def test_good_params_open_the_run(db: Database, open_run: Callable[..., Any]) -> None:
    assert open_run("trait_inference", GOOD)["batches"].keys() == {"traits.inspect"}
    assert [record.id for record in runs.list_runs(db)] == ["trait_inference.x"]
