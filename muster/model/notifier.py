"""Notifiers of a site: who is told when a run fails, cannot succeed any more, or stands still.

A site file holds no secret: it names an Airflow connection, or an environment variable.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from muster.frozen import Frozen

AlertKind = Literal["failure", "quorum_out_of_reach", "no_progress"]
KINDS: tuple[AlertKind, ...] = ("failure", "quorum_out_of_reach", "no_progress")
PROVIDERS = {"smtp": "apache-airflow-providers-smtp", "slack": "apache-airflow-providers-slack"}

_CONNECTION = r"[A-Za-z0-9_.-]{1,200}"
_VARIABLE = r"[A-Z_][A-Z0-9_]{0,199}"


class _Told(Frozen):
    """What notifiers of all kinds say.

    Attributes
    ----------
    events : tuple of str
        What is told: failure, quorum_out_of_reach, no_progress.
    no_progress_minutes : int
        Minutes in which nothing of a run has started, ended or reported progress.
    workflows : tuple of str
        The only workflows that it is told of; none are all.
    """

    events: Annotated[tuple[AlertKind, ...], Field(min_length=1)] = KINDS
    no_progress_minutes: Annotated[int, Field(ge=5, le=60 * 24 * 60)] = 60
    workflows: tuple[str, ...] = ()

    def wants(self, kind: AlertKind, workflow: str) -> bool:
        """Tell whether it is told of this."""
        return kind in self.events and (not self.workflows or workflow in self.workflows)


class WebhookNotifier(_Told):
    """A URL that is sent JSON by POST.

    Attributes
    ----------
    url_variable : str or None
        The environment variable that holds the URL.
    connection : str or None
        The Airflow connection whose password, or else host, is the URL.
    """

    kind: Literal["webhook"]
    url_variable: str | None = None
    connection: str | None = None

    @model_validator(mode="after")
    def _check(self) -> WebhookNotifier:
        if (self.url_variable is None) == (self.connection is None):
            raise ValueError(
                "a webhook says where its URL is: either url_variable, an environment variable, "
                "or connection, of Airflow; never the URL itself, which is a secret"
            )
        _check_name("url_variable", self.url_variable, _VARIABLE)
        _check_name("connection", self.connection, _CONNECTION)
        return self


class SmtpNotifier(_Told):
    """Mail by Airflow's SMTP provider.

    Attributes
    ----------
    to : tuple of str
        Addresses.
    from_email : str or None
        The sender; by default that of the connection.
    connection : str
        The Airflow connection of the server.
    """

    kind: Literal["smtp"]
    to: Annotated[tuple[str, ...], Field(min_length=1)]
    from_email: str | None = None
    connection: str = "smtp_default"

    @field_validator("to")
    @classmethod
    def _check_to(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            if not re.fullmatch(r"[^\s@,;]+@[^\s@,;]+", address):
                raise ValueError(f"{address!r} is no address: you@example.org")
        return addresses

    @model_validator(mode="after")
    def _check(self) -> SmtpNotifier:
        _check_name("connection", self.connection, _CONNECTION)
        return self


class SlackNotifier(_Told):
    """A message by Airflow's Slack provider.

    Attributes
    ----------
    channel : str
        As in "#mocks".
    connection : str
        The Airflow connection with the token.
    """

    kind: Literal["slack"]
    channel: Annotated[str, Field(pattern=r"^[#@]?[^\s#@]{1,200}$")]
    connection: str = "slack_api_default"

    @model_validator(mode="after")
    def _check(self) -> SlackNotifier:
        _check_name("connection", self.connection, _CONNECTION)
        return self


Notifier = Annotated[
    WebhookNotifier | SmtpNotifier | SlackNotifier,
    Field(discriminator="kind"),
]
"""Somebody who is told."""


def _check_name(key: str, name: str | None, pattern: str) -> None:
    # Called for the whole section: the message of a field alone repeats it, and it may be a secret.
    if name is not None and not re.fullmatch(pattern, name):
        raise ValueError(f"{key} is the name of a secret, not the secret: letters, digits, _")
