"""An HTTP server that notes what it is asked, and answers as Airflow would."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = {
    "dag_run_id": "r",
    "state": "success",
    "run_type": "manual",
    "conf": {},
    "logical_date": None,
    "data_interval_start": None,
    "data_interval_end": None,
}
ANSWER = {
    **RUN,
    "access_token": "t0k3n",
    "try_number": 2,
    "content": [],
    "id": 7,
    "completed_at": None,
    "dag_runs": [RUN],
    "task_instances": [],
    "import_errors": [],
    "total_entries": 1,
}
"""All keys of all answers: whoever asks takes what is his."""


@contextmanager
def recording_airflow() -> Iterator[tuple[str, list[str]]]:
    """Serve on loopback; give the address, and the requests as text."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            names = ("Accept", "Authorization", "Content-Type")
            headers = [f"{name}: {self.headers[name]}" for name in names if self.headers[name]]
            said = [f"{self.command} {self.path}", "; ".join(headers), body or "without a body"]
            asked.append("\n    ".join(said))
            refused = self.command == "POST" and self.path.endswith("/pools")
            content = json.dumps(ANSWER).encode()
            self.send_response(409 if refused else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
