"""Airflow on one machine, started and stopped as a whole: what ``make run`` and ``make stop`` do.

Starting is idempotent: what runs is left as it is, what has died is started.  Stopping leaves no
process.  Whoever starts may end; the components go on in sessions of their own.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from muster.errors import ConfigError, SoftwareError, Transient
from muster.laptop.airflow_api import AirflowApi, wait_until
from muster.laptop.databases import migrate_databases
from muster.laptop.environment import (
    HOST,
    Installation,
    render_commands,
    render_environment,
    render_fixed,
)
from muster.laptop.home import (
    ADMIN,
    Home,
    make_home,
    only_one,
    read_or_make_secrets,
)
from muster.laptop.postgres import ensure_database, find_postgres, start_postgres, stop_postgres
from muster.laptop.processes import (
    Children,
    Record,
    StartFailed,
    check_listeners,
    end_idle_orphans,
    end_processes,
    find_component,
    find_processes,
    forget_record,
    read_records,
    write_record,
)
from muster.site import SITE_VARIABLE, read_site, render_pools

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_PORT = 8080
READY_PATIENCE_S = 300.0
_HEALTH_KEYS = {
    "scheduler": "latest_scheduler_heartbeat",
    "dag_processor": "latest_dag_processor_heartbeat",
    "triggerer": "latest_triggerer_heartbeat",
}


@dataclass(frozen=True)
class Wishes:
    """What a caller may say about an installation; everything has a default.

    Attributes
    ----------
    dags_folder, plugins_folder : Path
        Where the DAG files and the plugins are.
    settings : mapping
        Environment variables above the defaults, as ``AIRFLOW__SECTION__KEY``.
    """

    dags_folder: Path = REPOSITORY / "dags"
    plugins_folder: Path = REPOSITORY / "plugins"
    settings: Mapping[str, str] = field(default_factory=dict)


def _say_nothing(_: str) -> None:
    """Discard what there is to tell."""


@dataclass
class Services:
    """The services of one home.

    Attributes
    ----------
    home : Home
        Where their files lie.
    inherited : mapping
        The caller's environment.  MUSTER_STORE_URL, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN and
        MUSTER_PORT are taken from it.
    wishes : Wishes
        What else the caller wants.
    tell : callable
        Called with a line for each thing that is done.
    """

    home: Home
    inherited: Mapping[str, str]
    wishes: Wishes = field(default_factory=Wishes)
    tell: Callable[[str], None] = _say_nothing
    children: Children = field(default_factory=Children)

    def start(self, patience_s: float = READY_PATIENCE_S) -> Installation:
        """Start what does not run, and return when everything answers.

        Raises
        ------
        StartFailed
            Naming the component, with the last lines of its log.
        ConfigError
            Where the port is taken, or something runs with other settings.
        """
        with only_one(self.home, self.tell):
            site = read_site(self.inherited.get(SITE_VARIABLE))
            installation = self._install()
            started = self._start_components(installation)
            self._wait_until_ready(installation, started, patience_s)
            problems = check_listeners(find_processes(self.home))
            if problems:
                end_processes(self.home, self.children)
                raise SoftwareError(
                    "reachable from other machines; stopped", got="; ".join(problems)
                )
            self.api(installation).set_pools(render_pools(site))
        return installation

    def stop(self) -> None:
        """End every process of the installation, the embedded Postgres last."""
        with only_one(self.home, self.tell):
            problems = end_processes(self.home, self.children)
            stop_postgres(self.home.postgres)
        if problems:
            raise SoftwareError("not everything could be stopped", got="; ".join(problems))

    def running(self) -> dict[str, int]:
        """Return the running components and their process ids, Postgres among them."""
        self.children.collect()
        found = {
            name: process.pid
            for name, record in read_records(self.home).items()
            if (process := find_component(self.home, record)) is not None
        }
        postgres = find_postgres(self.home.postgres)
        return found if postgres is None else {"postgres": postgres.pid, **found}

    def start_component(self, component: str, installation: Installation) -> None:
        """Start one component that does not run, without waiting for it."""
        environment = render_environment(installation, self.inherited)
        command = render_commands(installation, _count_api_workers())[component]
        process = self.children.start(
            command, environment, installation.repository, self.home.log(component)
        )
        try:
            created_s = psutil.Process(process.pid).create_time()
        except psutil.NoSuchProcess:
            raise StartFailed(component, "ended at once", self.home.log(component)) from None
        write_record(self.home, Record(component, process.pid, created_s, _digest(installation)))

    def api(self, installation: Installation) -> AirflowApi:
        """Return a client that is logged in as the page's user."""
        return AirflowApi(installation.page, ADMIN, installation.secrets.admin_password)

    def _install(self) -> Installation:
        """Find or make what the components need: port, secrets, databases with their tables."""
        port = self._choose_port()
        secrets = read_or_make_secrets(self.home)
        airflow_url = self.inherited.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
        store_url = self.inherited.get("MUSTER_STORE_URL")
        if not (airflow_url and store_url):
            if find_postgres(self.home.postgres) is None:
                self.tell("starting the embedded Postgres")
            server = start_postgres(self.home.postgres)
            if not airflow_url:
                ensure_database(server, "airflow")
                airflow_url = server.url("airflow", "psycopg2")
            if not store_url:
                ensure_database(server, "muster")
                store_url = server.url("muster")
        installation = Installation(
            home=self.home,
            repository=REPOSITORY,
            dags_folder=self.wishes.dags_folder.resolve(),
            plugins_folder=self.wishes.plugins_folder.resolve(),
            port=port,
            airflow_url=airflow_url,
            store_url=store_url,
            secrets=secrets,
            settings=self.wishes.settings,
        )
        self._check_settings(installation)
        self.home.port.write_text(f"{port}\n", encoding="utf-8")
        environment = render_environment(installation, self.inherited)
        migrate_databases(installation, environment, self.tell)
        return installation

    def _choose_port(self) -> int:
        wanted = self.inherited.get("MUSTER_PORT")
        if wanted and not (wanted.isdecimal() and 0 < int(wanted) < 65536):
            raise ConfigError("not a port", where="MUSTER_PORT", got=wanted, expected="1 to 65535")
        remembered = _read_port(self.home)
        if remembered is not None and self.running().keys() - {"postgres"}:
            # Those that run reach each other there.
            wanted = wanted or str(remembered)
        if wanted:
            port = int(wanted)
            if "api-server" not in self.running() and not _is_free(port):
                raise ConfigError(
                    "another program has the port",
                    where=f"{HOST}:{port}",
                    do="set MUSTER_PORT to a free one, after 'make stop' if something runs",
                )
            return port
        for usual in (remembered, DEFAULT_PORT):
            if usual is not None and _is_free(usual):
                return usual
        with socket.socket() as any_free:
            any_free.bind((HOST, 0))
            return int(any_free.getsockname()[1])

    def _check_settings(self, installation: Installation) -> None:
        """Refuse to add components to some that were started with other settings."""
        digest = _digest(installation)
        for component, record in read_records(self.home).items():
            if find_component(self.home, record) is None or record.settings == digest:
                continue
            names = {*digest, *record.settings}
            changed = sorted(n for n in names if digest.get(n) != record.settings.get(n))
            raise ConfigError(
                "running with other settings",
                where=component,
                got=f"changed: {', '.join(changed)}",
                do="run 'make stop' first",
            )

    def _start_components(self, installation: Installation) -> dict[str, float]:
        """Start what does not run; return when each of those was started, epoch seconds."""
        running = self.running()
        started = {}
        for component in render_commands(installation):
            if component in running:
                continue
            forget_record(self.home, component)
            if component == "scheduler":
                end_idle_orphans(self.home)
            self.tell(f"starting {component}")
            started[component] = time.time()
            self.start_component(component, installation)
        return started

    def _wait_until_ready(
        self, installation: Installation, started: Mapping[str, float], patience_s: float
    ) -> None:
        api = self.api(installation)
        waiting = set(render_commands(installation))

        def ready() -> bool:
            dead = set(render_commands(installation)) - set(self.running())
            for component in sorted(dead):
                raise StartFailed(component, "ended while starting", self.home.log(component))
            healthy = _find_healthy(api, started)
            for component in sorted(waiting & healthy):
                if component in started:
                    self.tell(f"{component} is ready")
            waiting.difference_update(healthy)
            return not waiting

        try:
            is_ready = wait_until(ready, patience_s)
        except Transient:
            is_ready = False
        if not is_ready:
            component = "api-server" if "api-server" in waiting else min(waiting)
            raise StartFailed(
                component, f"is not ready after {patience_s:.0f} s", self.home.log(component)
            )


def open_services(
    folder: Path | None = None,
    wishes: Wishes | None = None,
    tell: Callable[[str], None] = _say_nothing,
) -> Services:
    """Return the services of a home: the folder, or MUSTER_HOME, or .muster in the repository.

    This is where the environment of the process is read, once.
    """
    environment = dict(os.environ)
    home = make_home(folder or Path(environment.get("MUSTER_HOME") or REPOSITORY / ".muster"))
    return Services(home, environment, wishes or Wishes(), tell)


def embedded_store_url(folder: Path) -> str:
    """Start the embedded Postgres of a home, if need be, and return the store's address there."""
    home = make_home(folder)
    server = start_postgres(home.postgres)
    ensure_database(server, "muster")
    return server.url("muster")


def _find_healthy(api: AirflowApi, started: Mapping[str, float]) -> set[str]:
    """Return the components that answer, or whose heartbeat is younger than their start."""
    health = api.health()
    healthy = {"api-server"} if health["metadatabase"]["status"] == "healthy" else set()
    for key, heartbeat in _HEALTH_KEYS.items():
        component = key.replace("_", "-")
        seen = (health.get(key) or {}).get(heartbeat)
        if seen and datetime.fromisoformat(seen).timestamp() > started.get(component, 0.0):
            healthy.add(component)
    return healthy


def _digest(installation: Installation) -> dict[str, str]:
    """Return a short digest of each variable that the components must agree on."""
    variables = {**installation.settings, **render_fixed(installation)}
    return {
        name: hashlib.sha256(value.encode()).hexdigest()[:16] for name, value in variables.items()
    }


def _count_api_workers() -> int:
    # A worker takes 250 MB and ten seconds of a core to start; one serves two cores' tasks.
    return max(1, min(4, (os.cpu_count() or 1) // 4))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As uvicorn binds: connections that linger after the last server do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _read_port(home: Home) -> int | None:
    try:
        return int(home.port.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
