"""Alerts by the site's notifiers: Airflow's own for mail and Slack, a webhook of ours.

A DAG's failure is told at once, by its callback; what else is worth an alert is found by the DAG
muster_alerts.  Both enter it in the store first, so that it is told once.
"""

from __future__ import annotations

import html
import importlib.util
import logging
import os
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, BaseNotifier
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from muster.errors import ConfigError, MissingInput, StoreUnavailable, Transient
from muster.imports import load_named
from muster.jobs.runs.alerts import Alert, send_alerts, send_once
from muster.jobs.runs.webhook import post_json
from muster.model.notifier import PROVIDERS, SlackNotifier, SmtpNotifier, WebhookNotifier
from muster.site import read_site
from muster.store import runs
from muster.store.database import Database
from operators.run import run_id_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context

    from muster.site import Site

log = logging.getLogger(__name__)

NOTIFIERS = {
    "smtp": "airflow.providers.smtp.notifications.smtp:SmtpNotifier",
    "slack": "airflow.providers.slack.notifications.slack:SlackNotifier",
}
SUBJECT_CHARACTERS = 150


class FailureNotifier(BaseNotifier):
    """Tells one notifier of the site that a DAG run failed.

    Parameters
    ----------
    name : str
        The notifier's name in the site file.
    notifier : WebhookNotifier, SmtpNotifier or SlackNotifier
        Who is told.
    """

    def __init__(self, name: str, notifier: WebhookNotifier | SmtpNotifier | SlackNotifier) -> None:
        super().__init__()
        self.name = name
        self.notifier = notifier

    def notify(self, context: Context) -> None:
        """Send the alert, unless this run's failure was told before."""
        workflow, run_id = _name_run(context)
        try:
            db = Database.from_environment()
            message = runs.read_run(db, run_id).message
        except (ConfigError, MissingInput, StoreUnavailable) as error:
            # What failed before it was recorded, or with the store, is told all the same.
            send(self.name, self.notifier, Alert("failure", run_id, workflow, str(error)))
            return
        told = message or str(context.get("reason") or "a task failed, or a person marked it")
        send_once(db, self.name, self.notifier, Alert("failure", run_id, workflow, told), send)


def _name_run(context: Context) -> tuple[str, str]:
    """Name the workflow and the run of a callback, whose context may lack the DAG run."""
    dag_run = context.get("dag_run")
    if dag_run is not None:
        return dag_run.dag_id, run_id_of(context)
    workflow: str = context["dag"].dag_id
    return workflow, f"{workflow}.{context['run_id']}"


def failure_callbacks(site: Site, workflow: str) -> list[Callable[[Context], None]] | None:
    """Make the callbacks of a workflow's DAG for its failure; None where nobody is told.

    Raises
    ------
    ConfigError
        When the provider of a notifier is not installed.
    """
    check_providers(site)
    told: list[Callable[[Context], None]] = [
        FailureNotifier(name, notifier)
        for name, notifier in site.notify.items()
        if notifier.wants("failure", workflow)
    ]
    return told or None


def check_providers(site: Site) -> None:
    """Refuse notifiers whose provider of Airflow's is not installed; nothing is imported.

    Raises
    ------
    ConfigError
        At the first.
    """
    for name, notifier in site.notify.items():
        package = PROVIDERS.get(notifier.kind)
        if package is not None and not _is_installed(f"airflow.providers.{notifier.kind}"):
            raise ConfigError(
                f"the {notifier.kind} provider is not installed",
                where=f"{site.name}.toml [notify.{name}]",
                do=f"pip install {package}, or use a webhook",
            )


def send_due_alerts() -> dict[str, int]:
    """Send what the site's notifiers are to be told of all runs; count it.

    Raises
    ------
    AirflowFailException
        When an alert could not be sent; the next run of the DAG sends it.
    """
    try:
        site = read_site()
        check_providers(site)
    except ConfigError as error:
        raise AirflowFailException(str(error)) from None
    done = send_alerts(Database.from_environment(), site.notify, send)
    for line in done.sent:
        log.info("%s", line)
    for line in done.failed:
        log.warning("%s", line)
    if done.failed:
        raise AirflowFailException(f"not every alert could be sent: {done.failed[0]}")
    return {"sent": len(done.sent)}


def send(name: str, notifier: WebhookNotifier | SmtpNotifier | SlackNotifier, alert: Alert) -> None:
    """Send an alert.

    Raises
    ------
    ConfigError
        When the notifier's secret is not there, or its provider is not installed.
    InvalidInput, Transient
        When it was refused, or could not be sent now.
    """
    if isinstance(notifier, WebhookNotifier):
        post_json(_read_url(name, notifier), {**alert.to_dict(), "notifier": name})
        return
    told = _make_airflow_notifier(name, notifier, alert)
    try:
        told.notify({})
    except (AirflowException, OSError, ValueError) as error:
        raise Transient(
            "the alert could not be sent", where=f"[notify.{name}]", got=f"{error!r}"
        ) from error


def _make_airflow_notifier(name: str, notifier: SmtpNotifier | SlackNotifier, alert: Alert) -> Any:
    """Make Airflow's own notifier; its texts are no templates, as they are not rendered."""
    try:
        made = load_named(NOTIFIERS[notifier.kind])
    except ImportError as error:
        raise ConfigError(
            f"the {notifier.kind} provider is not installed",
            where=f"[notify.{name}]",
            got=error,
            do=f"pip install {PROVIDERS[notifier.kind]}",
        ) from error
    if isinstance(notifier, SmtpNotifier):
        return made(
            to=list(notifier.to),
            from_email=notifier.from_email,
            subject=alert.text[:SUBJECT_CHARACTERS],
            html_content=f"<p>{html.escape(alert.text)}</p>",
            smtp_conn_id=notifier.connection,
        )
    return made(slack_conn_id=notifier.connection, channel=notifier.channel, text=alert.text)


def _read_url(name: str, notifier: WebhookNotifier) -> str:
    """Read a webhook's URL from where the site file says that it is."""
    if notifier.url_variable is not None:
        url = os.environ.get(notifier.url_variable)
        if not url:
            raise ConfigError(
                "the webhook's variable is not set",
                where=f"[notify.{name}]",
                got=notifier.url_variable,
                do="set it where Airflow's services start",
            )
        return url
    try:
        connection = BaseHook.get_connection(str(notifier.connection))
    except AirflowException as error:
        raise ConfigError(
            "Airflow has no such connection", where=f"[notify.{name}]", got=notifier.connection
        ) from error
    return str(connection.password or connection.host or "")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of a package above it
        return False
