"""A webhook gets the alert, is tried again where that can help, and is named by its host alone."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from muster.errors import ConfigError, InvalidInput, MusterError, Transient
from muster.jobs.runs.webhook import check_url, post_json

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "/services/T0/xyzzy"


class Receiver:
    """An HTTP server that keeps what it is sent, and answers as it is told."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[str, str, dict[str, Any]]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                self.send_header("Location", f"{receiver.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[Receiver]:
        receiver = cls()
        thread = threading.Thread(target=receiver.server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield receiver
        finally:
            receiver.server.shutdown()
            thread.join()
            receiver.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver.running() as running:
        yield running


def post(url: str, **options: Any) -> None:
    post_json(url, {"text": "é ✓"}, **{"pause_s": 0.01, "timeout_s": 2.0, **options})


def test_it_gets_the_content_once(receiver: Receiver) -> None:
    post(receiver.url + SECRET)
    assert receiver.got == [(SECRET, "application/json", {"text": "é ✓"})]


@pytest.mark.parametrize("answer", [500, 503, 429])
def test_a_server_that_cannot_now_is_asked_again(receiver: Receiver, answer: int) -> None:
    receiver.answers = [answer, answer]
    post(receiver.url + SECRET)
    assert len(receiver.got) == 3


def test_a_server_that_never_can_is_transient(receiver: Receiver) -> None:
    receiver.answers = [502] * 9
    with pytest.raises(Transient, match="does not answer.*127.0.0.1.*HTTP 502, 3 ×") as caught:  # noqa: RUF043
        post(receiver.url + SECRET)
    assert "xyzzy" not in str(caught.value)
    assert len(receiver.got) == 3


@pytest.mark.parametrize("answer", [400, 403, 404, 410])
def test_a_refusal_is_told_and_not_tried_again(receiver: Receiver, answer: int) -> None:
    receiver.answers = [answer]
    with pytest.raises(InvalidInput, match=f"refused the alert.*HTTP {answer}") as caught:
        post(receiver.url + SECRET)
    assert "xyzzy" not in str(caught.value)
    assert len(receiver.got) == 1


@pytest.mark.parametrize("answer", [301, 302, 307, 308])
def test_another_address_is_never_followed(receiver: Receiver, answer: int) -> None:
    receiver.answers = [answer]
    with pytest.raises(InvalidInput, match=f"HTTP {answer}"):
        post(receiver.url + SECRET)
    assert [path for path, _, _ in receiver.got] == [SECRET]


def test_who_never_answers_does_not_hold_the_caller() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}{SECRET}"
        with pytest.raises(Transient, match="timed out, 2 ×"):
            post(url, timeout_s=0.1, tries=2)
    with pytest.raises(Transient, match="refused, 2 ×"):
        post(url, tries=2)


def test_who_answers_nonsense_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"what?\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Transient):
            post(f"http://127.0.0.1:{server.getsockname()[1]}/", tries=1)
        thread.join()


@pytest.mark.parametrize(
    "url",
    ["", "xyzzy", "file:///etc/passwd/xyzzy", "ftp://h/xyzzy", "https:///xyzzy", "https://h:x/xyzzy",
     "https://h/xyzzy\n", "https://h/xy zzy", "http://[::1/xyzzy", "https://hé/xyzzy"],
)  # fmt: skip
def test_what_is_no_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        post(url)
    assert "zzy" not in str(caught.value)
    assert isinstance(caught.value, MusterError)


def test_a_url_has_a_host() -> None:
    assert check_url("https://hooks.example.org:8443/a?b=c") == "hooks.example.org"
