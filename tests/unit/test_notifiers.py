"""[notify] of a site file: strict, and without secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.errors import ConfigError
from muster.model.notifier import KINDS, SlackNotifier, SmtpNotifier, WebhookNotifier
from muster.site import read_site

if TYPE_CHECKING:
    from pathlib import Path

    from muster.site import Site

SITE = """
[pools]
local = { backend = "local", slots = 1 }
[placement]
"traits.predict" = { pool = "local" }
"""


def read(folder: Path, notify: str) -> Site:
    path = folder / "mine.toml"
    path.write_text(SITE + notify)
    return read_site(str(path))


def test_notifiers_are_what_the_file_says(tmp_path: Path) -> None:
    site = read(
        tmp_path,
        """
        [notify.ops]
        kind = "webhook"
        url_variable = "MUSTER_ALERT_URL"
        events = ["failure"]
        workflows = ["mock_campaign"]
        [notify.mail]
        kind = "smtp"
        to = ["you@example.org"]
        [notify.chat]
        kind = "slack"
        channel = "#mocks"
        no_progress_minutes = 30
        """,
    )
    assert site.notify == {
        "ops": WebhookNotifier(
            kind="webhook",
            url_variable="MUSTER_ALERT_URL",
            events=("failure",),
            workflows=("mock_campaign",),
        ),
        "mail": SmtpNotifier(kind="smtp", to=("you@example.org",), connection="smtp_default"),
        "chat": SlackNotifier(kind="slack", channel="#mocks", no_progress_minutes=30),
    }
    assert site.notify["mail"].events == KINDS
    assert site.notify["ops"].wants("failure", "mock_campaign")
    assert not site.notify["ops"].wants("failure", "resampling")
    assert not site.notify["ops"].wants("no_progress", "mock_campaign")
    assert site.notify["chat"].wants("no_progress", "resampling")


@pytest.mark.parametrize(
    ("notify", "says"),
    [
        ('kind = "pager"', "notify.a.kind: unknown"),
        ('kind = "webhook"', "either url_variable, an environment variable, or connection"),
        ('kind = "webhook"\nurl = "https://h/xyzzy"', "unknown key"),
        ('kind = "webhook"\nurl_variable = "https://h/xyzzy"', "the name of a secret, not"),
        ('kind = "webhook"\nconnection = "https://h/xyzzy"', "the name of a secret, not"),
        ('kind = "webhook"\nurl_variable = "A"\nconnection = "b"', "either url_variable"),
        ('kind = "smtp"', "expected: notify.a.smtp.to|a key is missing"),
        ('kind = "smtp"\nto = []', "needs at least 1"),
        ('kind = "smtp"\nto = ["a,b@c"]', "is no address"),
        ('kind = "smtp"\nto = ["a@b"]\nconnection = "smtp://u:xyzzy@h"', "the name of a secret"),
        ('kind = "slack"', "a key is missing"),
        ('kind = "slack"\nchannel = "#a"\nconnection = "xoxb xyzzy"', "the name of a secret"),
        ('kind = "slack"\nchannel = "#a"\nevents = ["success"]', "failure"),
        ('kind = "slack"\nchannel = "#a"\nevents = []', "at least 1"),
        ('kind = "slack"\nchannel = "#a"\nno_progress_minutes = 1', "greater than or equal to 5"),
    ],
)
def test_what_is_wrong_is_told_without_the_secret(tmp_path: Path, notify: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read(tmp_path, f"[notify.a]\n{notify}\n")
    assert "xyzzy" not in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_name_is_plain(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="notifier name"):
        read(tmp_path, '[notify."a b"]\nkind = "slack"\nchannel = "#a"\n')
