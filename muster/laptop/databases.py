"""The tables of both databases, made or brought up to date before anything uses them.

Airflow's own migration takes eighteen seconds of a core even where there is nothing to do, so what
it was last brought to is remembered, and compared with what the database says itself.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg2

from muster.errors import Transient
from muster.laptop.home import Home, write_private
from muster.laptop.processes import StartFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from muster.laptop.environment import Installation


def migrate_databases(
    installation: Installation, environment: Mapping[str, str], tell: Callable[[str], None]
) -> None:
    """Bring Airflow's and Muster's databases up to date.

    Raises
    ------
    StartFailed
        With the end of the log, where a migration fails.
    Transient
        Where a database does not answer.
    """
    home = installation.home
    stamp = read_stamp(installation.airflow_url)
    if stamp is None or stamp != _remembered_stamp(home):
        tell("preparing Airflow's database")
        _run_once(installation, "airflow-migrate", ["-m", "airflow", "db", "migrate"], environment)
        write_private(home.migrated, json.dumps(read_stamp(installation.airflow_url)))
    tell("preparing Muster's database")
    _run_once(installation, "muster-migrate", ["-m", "muster", "migrate"], environment)


def read_stamp(airflow_url: str) -> dict[str, str] | None:
    """Return this Airflow's version and its database's revision; None where that has no tables."""
    url = airflow_url.replace("postgresql+psycopg2:", "postgresql:", 1)
    if not url.startswith("postgresql:"):
        return None
    try:
        connection = psycopg2.connect(url)
    except psycopg2.OperationalError as error:
        raise Transient("Airflow's database does not answer", got=error) from error
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT version_num FROM alembic_version")
            row = cursor.fetchone()
    except psycopg2.errors.UndefinedTable:
        return None
    finally:
        connection.close()
    if row is None:
        return None
    return {"airflow": importlib.metadata.version("apache-airflow"), "revision": row[0]}


def _remembered_stamp(home: Home) -> object:
    try:
        return json.loads(home.migrated.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _run_once(
    installation: Installation, name: str, arguments: list[str], environment: Mapping[str, str]
) -> None:
    log = installation.home.log(name)
    with log.open("ab") as file:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=dict(environment),
            cwd=installation.repository,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise StartFailed(name, f"failed with exit code {done.returncode}", log)
