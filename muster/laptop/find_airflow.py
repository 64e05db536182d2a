"""The Airflow that a command may hand its run to: one that is named, or this machine's own."""

from __future__ import annotations

import os

from muster.errors import ConfigError, MusterError, Transient
from muster.laptop.airflow_api import AirflowApi
from muster.laptop.home import ADMIN, Home, read_or_make_secrets
from muster.site import home_folder

URL_VARIABLE = "MUSTER_AIRFLOW_URL"
USER_VARIABLE = "MUSTER_AIRFLOW_USER"
PASSWORD_VARIABLE = "MUSTER_AIRFLOW_PASSWORD"
PATIENCE_S = 5.0


def find_airflow() -> AirflowApi | None:
    """Return the Airflow that answers; None where none is there.

    ``MUSTER_AIRFLOW_URL``, with ``MUSTER_AIRFLOW_USER`` and ``MUSTER_AIRFLOW_PASSWORD``, names one;
    else that of this machine's installation is asked, where one was started.

    Raises
    ------
    Transient
        When the one that is named does not answer.
    ConfigError
        When it is named without user and password.
    """
    named = os.environ.get(URL_VARIABLE)
    api = _named(named) if named else _own()
    if api is None:
        return None
    try:
        api.health()
    except MusterError as error:
        if named is None:
            return None
        raise Transient("Airflow does not answer", where=URL_VARIABLE, got=error) from error
    api.timeout_s = 60.0
    return api


def _named(url: str) -> AirflowApi:
    user, password = os.environ.get(USER_VARIABLE), os.environ.get(PASSWORD_VARIABLE)
    if not user or not password:
        raise ConfigError(
            "Airflow is named without a login",
            where=URL_VARIABLE,
            do=f"set {USER_VARIABLE} and {PASSWORD_VARIABLE}",
        )
    return AirflowApi(url.rstrip("/"), user, password, timeout_s=PATIENCE_S)


def _own() -> AirflowApi | None:
    home = Home(home_folder())
    if not home.port.exists():
        return None
    try:
        port = int(home.port.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    password = read_or_make_secrets(home).admin_password
    return AirflowApi(f"http://127.0.0.1:{port}", ADMIN, password, timeout_s=PATIENCE_S)
