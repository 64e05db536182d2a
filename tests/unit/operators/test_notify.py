"""Airflow's side of the alerts: callbacks, secrets, and mail by Airflow's own notifier."""

from __future__ import annotations

import contextlib
import json
import runpy
import socketserver
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from muster.errors import ConfigError, Transient
from muster.jobs.runs.alerts import Alert
from muster.model.notifier import SlackNotifier, SmtpNotifier, WebhookNotifier
from muster.site import read_site
from muster.store import runs
from muster.store.database import URL_VARIABLE
from muster.store.records import RunState
from operators import notify
from operators.workflow_dag import make_dag
from tests.unit.jobs.test_webhook import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.store.database import Database

ALERT = Alert("failure", "resampling.x", "resampling", "<3 of 5> succeeded {{ x }}")
WEBHOOK = WebhookNotifier(kind="webhook", url_variable="MUSTER_TEST_HOOK")
SITE = """
[pools]
local = { backend = "local", slots = 1 }
[placement]
"resampling.inspect" = { pool = "local" }
"resampling.resample" = { pool = "local" }
"resampling.merge" = { pool = "local" }
"""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with Receiver.running() as running:
        monkeypatch.setenv("MUSTER_TEST_HOOK", f"{running.url}/hook")
        yield running


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "site.toml"
    monkeypatch.setenv("MUSTER_SITE", str(path))
    path.write_text(SITE)
    return path


def context() -> Any:
    return {"dag_run": SimpleNamespace(dag_id="resampling", run_id="x")}


def test_a_dag_tells_its_failure_to_the_sites_notifiers(site: Path) -> None:
    assert not make_dag("resampling", None, doc="…").on_failure_callback
    site.write_text(
        SITE + '[notify.ops]\nkind = "webhook"\nurl_variable = "A"\n'
        '[notify.others]\nkind = "webhook"\nurl_variable = "A"\nworkflows = ["mock_campaign"]\n'
        '[notify.idle]\nkind = "webhook"\nurl_variable = "A"\nevents = ["no_progress"]\n'
    )
    dag = make_dag("resampling", None, doc="…")
    assert [callback.name for callback in dag.on_failure_callback] == ["ops"]


def test_the_alerts_have_a_timetable_where_somebody_is_told(site: Path) -> None:
    path = str(Path(__file__).resolve().parents[3] / "dags" / "alerts.py")
    assert runpy.run_path(path)["dag"].schedule is None
    site.write_text(SITE + '[notify.ops]\nkind = "webhook"\nurl_variable = "A"\n')
    dag = runpy.run_path(path)["dag"]
    assert dag.schedule.expression == "*/5 * * * *"
    assert [task.task_id for task in dag.tasks] == ["send_alerts"]


def test_a_provider_that_airflow_lacks_is_told_when_the_dag_is_parsed(site: Path) -> None:
    site.write_text(SITE + '[notify.mail]\nkind = "smtp"\nto = ["a@b.org"]\n')
    notify.check_providers(read_site())
    site.write_text(SITE + '[notify.chat]\nkind = "slack"\nchannel = "#a"\n')
    with pytest.raises(ConfigError, match=r"slack provider is not installed.*\[notify.chat\].*pip"):
        make_dag("resampling", None, doc="…")
    with pytest.raises(ConfigError, match="slack provider is not installed"):
        notify.send("chat", SlackNotifier(kind="slack", channel="#a"), ALERT)
    with pytest.raises(AirflowFailException, match="slack provider is not installed"):
        notify.send_due_alerts()


@pytest.mark.parametrize(
    "found",
    [context(), {"dag": SimpleNamespace(dag_id="resampling"), "run_id": "x", "reason": "all_done"}],
    ids=["whole", "of a dag processor"],
)
def test_the_callback_sends_once_what_the_verdict_said(
    db: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, found: Any
) -> None:
    monkeypatch.setenv(URL_VARIABLE, db.url)
    runs.open_run(db, "resampling.x", workflow="resampling", params={}, work_uri="/nowhere")
    runs.end_run(db, "resampling.x", RunState.FAILED, "3 of 5 succeeded")
    callback = notify.FailureNotifier("ops", WEBHOOK)
    callback.notify(found)
    callback.notify(found)
    ((path, _, told),) = receiver.got
    assert path == "/hook"
    assert (told["kind"], told["run"], told["notifier"]) == ("failure", "resampling.x", "ops")
    assert told["text"] == "Muster: failure: resampling.x: 3 of 5 succeeded"


def test_a_run_that_the_store_does_not_know_is_told_all_the_same(
    db: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, db.url)
    notify.FailureNotifier("ops", WEBHOOK)(context())
    monkeypatch.setenv(URL_VARIABLE, "postgresql://nobody@127.0.0.1:1/none")
    notify.FailureNotifier("ops", WEBHOOK)(context())
    monkeypatch.delenv(URL_VARIABLE)
    notify.FailureNotifier("ops", WEBHOOK)(context())
    assert ["knows no such run" in receiver.got[0][2]["text"],
            "does not answer" in receiver.got[1][2]["text"],
            "no store is configured" in receiver.got[2][2]["text"]] == [True] * 3  # fmt: skip


def test_the_task_sends_what_is_due_and_fails_where_it_could_not(
    db: Database, site: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write_text(SITE + '[notify.ops]\nkind = "webhook"\nurl_variable = "MUSTER_TEST_HOOK"\n')
    monkeypatch.setenv(URL_VARIABLE, db.url)
    runs.open_run(db, "resampling.x", workflow="resampling", params={}, work_uri="/nowhere")
    assert notify.send_due_alerts() == {"sent": 0}
    runs.end_run(db, "resampling.x", RunState.FAILED, "over")
    receiver.answers = [404]
    with pytest.raises(AirflowFailException, match="not every alert could be sent.*HTTP 404"):  # noqa: RUF043
        notify.send_due_alerts()
    assert runs.read_run(db, "resampling.x").state is RunState.FAILED
    assert notify.send_due_alerts() == {"sent": 1}
    assert notify.send_due_alerts() == {"sent": 0}


def test_a_webhook_without_its_secret_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSTER_TEST_HOOK", raising=False)
    with pytest.raises(ConfigError, match="variable is not set.*MUSTER_TEST_HOOK"):  # noqa: RUF043
        notify.send("ops", WEBHOOK, ALERT)


@pytest.mark.parametrize("form", ["password", "host"])
def test_a_webhook_may_be_a_connection_of_airflow(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_OPS_HOOK",
        f'{{"conn_type": "http", "{form}": "{receiver.url}/secret/hook"}}',
    )
    notify.send("ops", WebhookNotifier(kind="webhook", connection="ops_hook"), ALERT)
    assert receiver.got[0][0] == "/secret/hook"


class _Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP as a message takes."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper().strip()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                text = b""
                while (part := self.rfile.readline()) != b".\r\n":
                    text += part
                self.server.mail.append(text.decode())  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


@contextlib.contextmanager
def mail_server() -> Iterator[Any]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mailbox) as server:
        server.mail = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_mail_goes_by_airflows_notifier(monkeypatch: pytest.MonkeyPatch) -> None:
    mail = SmtpNotifier(kind="smtp", to=("a@example.org", "b@example.org"), connection="post")
    with mail_server() as server:
        connection = {
            "conn_type": "smtp",
            "host": "127.0.0.1",
            "port": server.server_address[1],
            "extra": {
                "disable_ssl": True, "disable_tls": True, "from_email": "muster@example.org"
            },
        }  # fmt: skip
        monkeypatch.setenv("AIRFLOW_CONN_POST", json.dumps(connection))
        notify.send("mail", mail, ALERT)
        (text,) = server.mail
    assert "Subject: Muster: failure: resampling.x: <3 of 5> succeeded {{ x }}" in text
    assert "a@example.org" in text
    assert "muster@example.org" in text
    with pytest.raises(Transient, match="could not be sent"):
        notify.send("mail", mail, ALERT)


def test_mail_without_its_connection_is_told() -> None:
    mail = SmtpNotifier(kind="smtp", to=("a@example.org",), connection="nowhere_to_be_found")
    with pytest.raises((Transient, ConfigError)):
        notify.send("mail", mail, ALERT)
