"""A webhook: JSON by POST to a URL that is a secret, tried again, never followed elsewhere."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from muster.errors import ConfigError, InvalidInput, Transient

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPMessage
    from typing import IO

TIMEOUT_S = 10.0
TRIES = 3
PAUSE_S = 1.0
"""Before the second try; twice that before the third."""


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows nobody: who answers with another address would get what is sent."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Refuse."""
        return None


_OPENER = urllib.request.build_opener(_StayHere)


def post_json(
    url: str,
    content: Mapping[str, Any],
    *,
    timeout_s: float = TIMEOUT_S,
    tries: int = TRIES,
    pause_s: float = PAUSE_S,
) -> None:
    """Send JSON; messages name the host alone, as the rest of the URL may be a secret.

    Parameters
    ----------
    url : str
        ``https://…`` or ``http://…``.
    content : mapping
        What is sent.
    timeout_s : float
        How long one try may wait for the server, in seconds.
    tries : int
        How often it is tried where the server does not answer, or says that it cannot now.
    pause_s : float
        Pause before the second try in seconds; it doubles.

    Raises
    ------
    ConfigError
        When it is no such URL.
    InvalidInput
        When the server refuses it.
    Transient
        When the server has not taken it.
    """
    host = check_url(url)
    request = urllib.request.Request(
        url,
        data=json.dumps(content).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "muster"},
        method="POST",
    )
    for number in range(1, tries + 1):
        try:
            with _OPENER.open(request, timeout=timeout_s):
                return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 429 and error.code < 500:
                raise InvalidInput(
                    "the webhook refused the alert", where=host, got=f"HTTP {error.code}"
                ) from None
            got = f"HTTP {error.code}"
        except (OSError, HTTPException) as error:  # no name, no route, no answer in time
            got = str(getattr(error, "reason", error)) or type(error).__name__
        if number < tries:
            time.sleep(pause_s * 2 ** (number - 1))
    raise Transient("the webhook does not answer", where=host, got=f"{got}, {tries} ×")


def check_url(url: str) -> str:
    """Return the host of a URL.

    Raises
    ------
    ConfigError
        When it is none of http or https; the URL itself is not repeated.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in ("http", "https") or not host or not url.isascii():
        raise ConfigError(
            "the webhook's secret holds no URL", expected="https://host/path", got="(not shown)"
        )
    if any(c.isspace() or not c.isprintable() for c in url):
        raise ConfigError("the webhook's secret holds blanks", expected="https://host/path")
    return host
