"""What Airflow is told on a laptop, all of it by environment variables and in this one place.

The values were chosen for a loaded machine of two cores, where Airflow's own defaults fail tasks
that have not even started: short time-outs between its parts, and pools that run out of database
connections.  What the user sets by hand wins over DEFAULTS, never over what holds the installation
together.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from muster.laptop.home import ADMIN, Home, Secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

MARKER = "MUSTER_SERVICES"
"""Set to the home folder in every process of the installation, and in no other."""

HOST = "127.0.0.1"

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        # Workers are forked at once and stay, 150 MB each where they do not share.
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "16",
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "128",
        # Under load the execution API takes more than the 5 s that a task start waits for it.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "8",
        # A task may wait in the executor for longer than the ten minutes that its token lasts.
        "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": "7200",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "3600",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "10",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW": "30",
        # A worker that died is noticed in two minutes, not in five.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "60",
        # A DAG file that was changed or added shows within seconds.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__DAG_PROCESSOR__PRINT_STATS_INTERVAL": "600",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "120",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "60",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o700",
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o600",
        "AIRFLOW__API__INSTANCE_NAME": "Muster",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
)
"""Settings that the user's own environment may replace."""

_NEVER_INHERITED = {
    # Without byte code every start of a task takes seconds longer.
    "PYTHONDONTWRITEBYTECODE",
    # Another Airflow's files.
    "AIRFLOW_CONFIG",
    "AIRFLOW_HOME",
}


def hostname() -> str:
    """Name this machine to Airflow without asking a name server."""
    return "localhost"


@dataclass(frozen=True)
class Installation:
    """One Airflow on one machine, and what it must be told.

    Attributes
    ----------
    home : Home
        Where its files lie.
    repository : Path
        The folder that its processes work in.
    dags_folder, plugins_folder : Path
        Where the DAG files and the plugins are.
    port : int
        The page's TCP port, on loopback.
    airflow_url, store_url : str
        Airflow's database for SQLAlchemy, and Muster's own for libpq.
    secrets : Secrets
        What its processes share.
    settings : mapping
        Environment variables of the caller's own, above DEFAULTS.
    """

    home: Home
    repository: Path
    dags_folder: Path
    plugins_folder: Path
    port: int
    airflow_url: str = field(repr=False)
    store_url: str = field(repr=False)
    secrets: Secrets
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def page(self) -> str:
        """Address of the page and of the REST API."""
        return f"http://{HOST}:{self.port}"


def render_environment(
    installation: Installation, inherited: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Render the whole environment of the installation's processes.

    Parameters
    ----------
    installation : Installation
        What to tell them.
    inherited : mapping
        The environment of whoever starts them; what it sets for Airflow goes above DEFAULTS.

    Returns
    -------
    dict of str to str
        Pure: equal arguments give equal environments.
    """
    kept = {name: value for name, value in inherited.items() if name not in _NEVER_INHERITED}
    return {
        **DEFAULTS,
        **kept,
        **installation.settings,
        **render_fixed(installation),
        # The package's own programs first, whatever else is installed.
        "PATH": f"{Path(sys.executable).parent}:{inherited.get('PATH', '/usr/bin:/bin')}",
        "NO_PROXY": _with_loopback(inherited.get("NO_PROXY", inherited.get("no_proxy", ""))),
        "no_proxy": _with_loopback(inherited.get("no_proxy", inherited.get("NO_PROXY", ""))),
    }


def render_fixed(installation: Installation) -> dict[str, str]:
    """Render the variables that hold the installation together and that nothing may replace."""
    home, secrets = installation.home, installation.secrets
    return {
        MARKER: str(home.folder),
        "MUSTER_HOME": str(home.folder),
        "MUSTER_STORE_URL": installation.store_url,
        # setproctitle would write over the variables above, by which processes are found again.
        "SPT_NOENV": "1",
        "AIRFLOW_HOME": str(home.airflow),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": installation.airflow_url,
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__DAGS_FOLDER": str(installation.dags_folder),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(installation.plugins_folder),
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "muster.laptop.environment.hostname",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{installation.page}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": secrets.fernet_key,
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home.passwords),
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(installation.port),
        "AIRFLOW__API__BASE_URL": installation.page,
        "AIRFLOW__API__SECRET_KEY": secrets.api_secret_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.jwt_secret,
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home.logs / "tasks"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(home.logs / "dags"),
    }


def render_commands(installation: Installation, api_workers: int = 1) -> dict[str, list[str]]:
    """Render the command line of each component, in the order of starting."""
    airflow = [sys.executable, "-m", "airflow"]
    return {
        "api-server": [
            *(*airflow, "api-server", "--host", HOST, "--port", str(installation.port)),
            *("--workers", str(api_workers)),
        ],
        # serve-logs would listen on all interfaces; the page reads the same folder instead.
        "scheduler": [*airflow, "scheduler", "--skip-serve-logs"],
        "dag-processor": [*airflow, "dag-processor"],
        "triggerer": [*airflow, "triggerer", "--skip-serve-logs"],
    }


def _with_loopback(no_proxy: str) -> str:
    hosts = [host for host in no_proxy.split(",") if host]
    return ",".join(dict.fromkeys((*hosts, HOST, "localhost")))
