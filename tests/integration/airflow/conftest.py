"""One live Airflow for all tests here: the repository's DAGs, and one of bare batches."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from muster.laptop.airflow_api import wait_until
from muster.laptop.services import Wishes
from muster.store.database import Database
from tests.batches import STEPS_FOLDER
from tests.integration.live_airflow import LiveAirflow, start_live_airflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from muster.laptop.airflow_api import AirflowApi, TaskInstance

REPOSITORY = Path(__file__).resolve().parents[3]

# The cap on memory is what lets a test make a step fail for good: see test_trait_inference.
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
"""


@dataclass
class Muster:
    """A live Airflow with its store."""

    live: LiveAirflow
    db: Database
    folder: Path

    @property
    def api(self) -> AirflowApi:
        return self.live.api

    def states(self, dag_id: str, run_id: str) -> dict[tuple[str, str], str]:
        """Return task and label → state."""
        return {
            (task.task_id, task.label): task.state
            for task in self.api.task_instances(dag_id, run_id)
        }

    def task(self, dag_id: str, run_id: str, task_id: str) -> TaskInstance:
        found = [t for t in self.api.task_instances(dag_id, run_id) if t.task_id == task_id]
        assert len(found) == 1, found
        return found[0]

    def wait(self, reached: Callable[[], object], patience_s: float = 120.0) -> None:
        assert wait_until(lambda: bool(reached()), patience_s, 0.1), self.live.tails()


@pytest.fixture(scope="package")
def muster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Muster]:
    folder = tmp_path_factory.mktemp("muster")
    dags = folder / "dags"
    dags.mkdir()
    for path in (
        REPOSITORY / "dags" / "maintenance.py",
        REPOSITORY / "dags" / "resampling.py",
        REPOSITORY / "dags" / "trait_inference.py",
        Path(__file__).parent / "dags" / "batches.py",
    ):
        shutil.copy(path, dags)
    site = folder / "site.toml"
    site.write_text(SITE)
    environment = {"MUSTER_SITE": str(site), "PYTHONPATH": str(STEPS_FOLDER)}
    with start_live_airflow(folder / "home", Wishes(dags_folder=dags), environment) as live:
        for dag_id in ("trait_inference", "resampling", "batches"):
            live.api.wait_for_dag(dag_id)
            live.api.unpause(dag_id)
        db = Database(live.installation.store_url)
        yield Muster(live, db, folder)
        db.close()


def processes_of(folder: Path) -> list[int]:
    """Find everything that works for a batch below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if str(folder) in environment.get("MUSTER_WORK", ""):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found
