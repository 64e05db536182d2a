"""A real Airflow of a test's own: its components as separate processes, and a way to kill them.

Tests share the one of tests/integration/airflow/conftest.py; a test that needs other DAG files or
settings uses :func:`start_live_airflow`, which starts through the code that ``make run`` uses, with
the times shortened after which Airflow misses a process that has died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.laptop.airflow_api import wait_until
from muster.laptop.environment import render_environment
from muster.laptop.home import make_home, read_tail
from muster.laptop.processes import find_processes
from muster.laptop.services import Services, Wishes
from tests.airflow_client import AirflowClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import psutil

    from muster.laptop.environment import Installation

QUICK_DEATHS = {
    # A worker that was killed is missed after 20 s instead of minutes, a scheduler after 10.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
    # No test changes a DAG file, and parsing them over and over takes a quarter of a processor.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
}


@dataclass
class LiveAirflow:
    """A running Airflow.

    Attributes
    ----------
    services : Services
        What starts and stops it.
    installation : Installation
        Its addresses and folders.
    api : AirflowClient
        A client, logged in.
    environment : dict of str to str
        The environment of its processes; a command run in it uses its databases.
    """

    services: Services
    installation: Installation
    api: AirflowClient
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        """MUSTER_HOME."""
        return self.services.home.folder

    def pid(self, component: str) -> int:
        """Return the process id of a component that runs."""
        return self.services.running()[component]

    def kill(self, component: str) -> None:
        """Kill a component's main process with SIGKILL; its children are left to themselves."""
        pid = self.pid(component)
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: component not in self.services.running(), 10, 0.05), component

    def restart(self, component: str) -> None:
        """Start a component that was killed, and wait until it answers."""
        self.installation = self.services.start(patience_s=120)
        assert component in self.services.running()

    def processes(self) -> list[psutil.Process]:
        """Return all processes of this Airflow, orphans included, without Postgres."""
        return find_processes(self.services.home)

    def tails(self) -> str:
        """Return the ends of the components' logs, for the message of a test that failed."""
        logs = sorted(self.services.home.logs.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{read_tail(log)}" for log in logs)


def _free_port() -> int:
    """Find a port for this Airflow alone: two that start at once would both find 8080 free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def start_live_airflow(
    folder: Path, wishes: Wishes | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[LiveAirflow]:
    """Start an Airflow in a folder, and end every process of it in the end.

    Parameters
    ----------
    folder : Path
        Its MUSTER_HOME.
    wishes : Wishes, optional
        DAG files, plugins and settings; the settings go above QUICK_DEATHS.
    environment : mapping, optional
        Variables above those of this process.
    """
    wishes = wishes or Wishes()
    settings = {**QUICK_DEATHS, **wishes.settings}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "MUSTER"))
    }
    services = Services(
        make_home(folder),
        {**inherited, "MUSTER_PORT": str(_free_port()), **(environment or {})},
        Wishes(wishes.dags_folder, wishes.plugins_folder, settings),
        print,
    )
    try:
        installation = services.start()
        own = services.api(installation)
        yield LiveAirflow(
            services,
            installation,
            AirflowClient(own.address, own.user, own.password),
            render_environment(installation, services.inherited),
        )
    finally:
        services.stop()
