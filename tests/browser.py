"""A real Chromium, driven through its DevTools pipe: what it fetches, and what it complains of."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 60.0
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip


@dataclass
class Page:
    """A page that is loaded, and all that happened while it was."""

    browser: Browser
    session: str
    events: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, expression: str) -> Any:
        """Evaluate an expression, a promise being waited for."""
        answer = self.browser.call(
            "Runtime.evaluate",
            {"expression": expression, "returnByValue": True, "awaitPromise": True},
            self.session,
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def requests(self) -> list[str]:
        """Every URL that was asked for, what the page itself holds left out."""
        urls = [e["params"]["request"]["url"] for e in self._of("Network.requestWillBeSent")]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """Everything on the console that is no plain talk, uncaught errors and policies too."""
        logged = [e["params"]["entry"] for e in self._of("Log.entryAdded")]
        called = [e["params"] for e in self._of("Runtime.consoleAPICalled")]
        return [
            *(e["text"] for e in logged if e["level"] in ("warning", "error")),
            *(str(c["args"]) for c in called if c["type"] in ("warning", "error", "assert")),
            *(str(e["params"]) for e in self._of("Runtime.exceptionThrown")),
        ]

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Save what is to be seen, or the whole length of it."""
        answer = self.browser.call(
            "Page.captureScreenshot", {"captureBeyondViewport": whole}, self.session
        )
        path.write_bytes(base64.b64decode(answer["data"]))

    def _of(self, method: str) -> list[dict[str, Any]]:
        self.browser.call("Runtime.evaluate", {"expression": "0"}, self.session)
        return [event for event in self.events if event["method"] == method]


class Browser:
    """A running Chromium with a profile of its own."""

    def __init__(self, process: subprocess.Popen[bytes], write_fd: int, read_fd: int) -> None:
        self.process = process
        self._write, self._read = write_fd, read_fd
        self._received = b""
        self._number = 0
        self._pages: dict[str, Page] = {}

    def open(self, path: Path, width: int = 1280, height: int = 900) -> Page:
        """Load a file and wait until everything in it is there."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(self, session["sessionId"])
        self._pages[page.session] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", {}, page.session)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", size, page.session)
        page.events.clear()
        self.call("Page.navigate", {"url": path.as_uri()}, page.session)
        self._until(lambda: any(e["method"] == "Page.loadEventFired" for e in page.events))
        return page

    def call(
        self, method: str, params: dict[str, Any], session: str | None = None
    ) -> dict[str, Any]:
        """Send a command and return its result; what happens meanwhile goes to its page."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answers: list[dict[str, Any]] = []
        self._until(lambda: bool(answers), number, answers)
        assert "error" not in answers[0], answers[0]
        result: dict[str, Any] = answers[0]["result"]
        return result

    def _until(
        self, true: Any, number: int | None = None, answers: list[dict[str, Any]] | None = None
    ) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            left = deadline - time.monotonic()
            assert left > 0, "Chromium does not answer"
            ready, _, _ = select.select([self._read], [], [], left)
            if not ready:
                continue
            chunk = os.read(self._read, 1 << 20)
            assert chunk, f"Chromium ended with {self.process.poll()}"
            *whole, self._received = (self._received + chunk).split(b"\0")
            for text in whole:
                message = json.loads(text)
                if answers is not None and message.get("id") == number:
                    answers.append(message)
                elif message.get("sessionId") in self._pages and "method" in message:
                    self._pages[message["sessionId"]].events.append(message)


def find_chromium() -> str | None:
    """Return a Chromium or Chrome of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if (found := shutil.which(name))), None)


@contextlib.contextmanager
def start_browser(folder: Path) -> Iterator[Browser]:
    """Start a Chromium whose profile lies in a folder; skip the test where there is none."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    to_child, write_fd = os.pipe()
    read_fd, from_child = os.pipe()
    # Chromium reads descriptor 3 and writes 4; high numbers are in the way of neither.
    ours = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (to_child, from_child)]
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{ours[0]} 4>&{ours[1]}', "bash", program, *FLAGS,
         f"--user-data-dir={folder / 'profile'}", "about:blank"],
        pass_fds=ours, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "HOME": str(folder)},
        start_new_session=True,
    )  # fmt: skip
    for fd in (to_child, from_child, *ours):
        os.close(fd)
    try:
        yield Browser(process, write_fd, read_fd)
    finally:
        os.close(write_fd)
        os.close(read_fd)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
