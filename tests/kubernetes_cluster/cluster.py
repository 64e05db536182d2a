"""The whole stand-in: its objects, its controllers, its two ports, and its files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.kubernetes_cluster.api import Api
from tests.kubernetes_cluster.collector import collect
from tests.kubernetes_cluster.control import Control
from tests.kubernetes_cluster.faults import Faults
from tests.kubernetes_cluster.job_controller import JobController
from tests.kubernetes_cluster.kubelet import Kubelets
from tests.kubernetes_cluster.nodes import NODES, make_node
from tests.kubernetes_cluster.scheduler import schedule
from tests.kubernetes_cluster.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Object = dict[str, Any]

SETTLE_S = 0.01
LOOK_S = 0.25


class StandIn:
    """A cluster on this machine.

    Files of its folder: ``standin.json`` (addresses and token), ``calls`` and ``refused`` (a JSON
    object a line), ``pods`` (folders of pods), ``errors`` (what went wrong in the stand-in itself).
    """

    def __init__(
        self, folder: Path, image: Mapping[str, str], *, bookmark_every_s: float = 5.0
    ) -> None:
        self.folder = folder
        self.bookmark_every_s = bookmark_every_s
        self._changed = asyncio.Event()
        self.store = Storage(self._changed.set)
        self.faults = Faults(secrets.token_urlsafe(16))
        self.kubelets = Kubelets(self.store, folder, image, self._changed.set, self.write_error)
        self._jobs = JobController(self.store, self.faults.deny)
        self._calls = (folder / "calls").open("a", buffering=1)
        self._refused = (folder / "refused").open("a", buffering=1)
        self._app = web.Application(client_max_size=4 << 20)
        self._app.router.add_route("*", "/{path:.*}", Api(self).handle)
        self._runner = web.AppRunner(self._app, shutdown_timeout=0.1)
        self._control = web.AppRunner(Control(self).app, shutdown_timeout=0.1)
        self._tasks: list[asyncio.Task[None]] = []
        self._port = 0
        self._site: web.TCPSite | None = None

    # -- life ------------------------------------------------------------------------------

    async def start(self, port: int = 0) -> str:
        """Open both ports and return the API's address."""
        for node in NODES:
            self.store.create("nodes", make_node(**node))
        self.store.create("runtimeclasses", {"metadata": {"name": "nvidia"}, "handler": "nvidia"})
        self.furnish("default", make=True)
        await self._runner.setup()
        self._port = await self._listen(port)
        await self._control.setup()
        control = web.TCPSite(self._control, "127.0.0.1", 0)
        await control.start()
        control_port = self._control.addresses[0][1]
        self._tasks = [
            asyncio.create_task(self._keep()),
            asyncio.create_task(self.kubelets.watch_sizes()),
        ]
        url = f"http://127.0.0.1:{self._port}"
        words = {
            "url": url,
            "control": f"http://127.0.0.1:{control_port}",
            "token": self.faults.token,
            "pid": os.getpid(),
        }
        (self.folder / "standin.json").write_text(json.dumps(words))
        return url

    async def _listen(self, port: int) -> int:
        self._site = web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True)
        await self._site.start()
        found: int = self._runner.addresses[0][1]
        return found

    async def close(self) -> None:
        """End all: first what runs, then the ports."""
        for task in self._tasks:
            task.cancel()
        await self.kubelets.close()
        self.faults.clear()
        self.break_watches()
        await self._runner.cleanup()
        await self._control.cleanup()

    async def go_away(self, seconds: float | None) -> None:
        """Refuse connections and cut those that are open; come back after a time, or when asked."""
        await self.stop_listening()
        if seconds is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(seconds, lambda: asyncio.ensure_future(self.come_back()))

    async def stop_listening(self) -> None:
        if self._site is not None:
            site, self._site = self._site, None
            await site.stop()
        server = self._runner.server
        for connection in list(server.connections) if server else ():
            if connection.transport is not None:
                connection.transport.abort()

    async def come_back(self) -> None:
        if self._site is None:
            await self._listen(self._port)

    def break_watches(self) -> int:
        """Cut the connection of every watch."""
        for _, queue in self.store.watchers:
            queue.put_nowait(None)
        return len(self.store.watchers)

    # -- controllers -----------------------------------------------------------------------

    async def _keep(self) -> None:
        """Run all controllers whenever something has changed, and now and then."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_S)
            await asyncio.sleep(SETTLE_S)
            self._changed.clear()
            try:
                collect(self.store)
                self._jobs.sync()
                schedule(self.store)
                self.kubelets.sync()
            except Exception:
                self.write_error()

    def furnish(self, namespace: str, *, make: bool = False) -> None:
        """Give a namespace what each one has from the start."""
        if make:
            meta = {"name": namespace, "finalizers": ["kubernetes"]}
            status = {"phase": "Active"}
            self.store.create("namespaces", {"metadata": meta, "spec": {}, "status": status})
        account = {"metadata": {"name": "default", "namespace": namespace}}
        self.store.create("serviceaccounts", account)

    # -- files -----------------------------------------------------------------------------

    def write_call(self, call: Object) -> None:
        self._calls.write(json.dumps({**call, "at": time.time()}) + "\n")

    def write_refused(self, call: Object) -> None:
        self._refused.write(json.dumps(call) + "\n")

    def write_error(self) -> None:
        """Write down what is a fault of the stand-in itself."""
        with (self.folder / "errors").open("a") as file:
            file.write(traceback.format_exc())
        traceback.print_exc(file=sys.stderr)
