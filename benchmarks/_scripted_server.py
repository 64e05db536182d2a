"""The scripted cluster as a process of its own, so that what it costs is not taken for ours.

A call is a line of JSON with its arguments; the answer is a line of JSON with the exit code and two
sizes, and then that many bytes.  ``report`` instead of arguments is answered with what happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from muster.backends.remote.transport import Answer
from muster.errors import Transient
from tests.scripted_cluster import ScaledClock, Script, ScriptedCluster
from tests.scripted_slurm import ScriptedSlurm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MOST_BYTES = 1 << 26


@dataclass
class ClusterSocket:
    """A transport to a scripted cluster in another process."""

    path: str

    async def call(self, arguments: Sequence[str], *, timeout_s: float) -> Answer:
        """Ask it, and wait for its answer."""
        try:
            async with asyncio.timeout(timeout_s):
                header, body = await self._ask({"arguments": list(arguments)})
        except TimeoutError as error:
            raise Transient("the command did not end in time", where=arguments[0]) from error
        except (OSError, EOFError) as error:
            raise Transient("the cluster is not reached", where=arguments[0], got=error) from error
        size = header["stdout"]
        return Answer(header["exit_code"], body[:size].decode(), body[size:].decode())

    async def close(self) -> None:
        """Do nothing."""

    async def report(self) -> dict[str, Any]:
        """Ask what happened."""
        _, body = await self._ask({"report": True})
        return json.loads(body)

    async def _ask(self, asked: dict[str, Any]) -> tuple[dict[str, int], bytes]:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=MOST_BYTES)
        try:
            writer.write(json.dumps(asked).encode() + b"\n")
            await writer.drain()
            header = json.loads(await reader.readline())
            return header, await reader.readexactly(header["stdout"] + header["stderr"])
        finally:
            writer.close()


@contextlib.contextmanager
def scripted_server(folder: Path, script: Script, speed: float) -> Iterator[ClusterSocket]:
    """Start a scripted cluster in a process of its own, and end it."""
    path = str(folder / "cluster.sock")
    said = json.dumps({"path": path, "script": asdict(script), "speed": speed})
    process = subprocess.Popen(
        [sys.executable, __file__, said],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        while not os.path.exists(path):
            if process.poll() is not None:
                raise SystemExit("the scripted cluster did not start")
            time.sleep(0.05)
        yield ClusterSocket(path)
    finally:
        process.terminate()
        process.wait()


async def serve(path: str, script: Script, speed: float) -> None:
    slurm = ScriptedSlurm(ScriptedCluster(script, ScaledClock(speed)))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(await reader.readline())
        if "report" in asked:
            stdout, stderr, code = json.dumps(tell(slurm)).encode(), b"", 0
        else:
            found = await slurm.call(asked["arguments"], timeout_s=60)
            stdout, stderr, code = found.stdout.encode(), found.stderr.encode(), found.exit_code
        header = {"exit_code": code, "stdout": len(stdout), "stderr": len(stderr)}
        writer.write(json.dumps(header).encode() + b"\n" + stdout + stderr)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, path):
        while True:  # results appear when they are made, and not at the next question
            slurm.cluster.advance()
            await asyncio.sleep(0.05)


def tell(slurm: ScriptedSlurm) -> dict[str, Any]:
    cluster = slurm.cluster
    return {
        "now_s": cluster.clock.now_s(),
        "refused": slurm.refused,
        "calls": [[c.at_s, c.command, c.rows, c.exit_code] for c in slurm.calls],
        "looks_wall_s": [
            cluster.clock.wall_s(c.at_s) for c in slurm.calls if c.command == "squeue"
        ],
        "status_calls": slurm.status_calls(),
        "begun_twice": sum(count > 1 for count in cluster.begun.values()),
        "begun": len(cluster.begun),
        "ended": [[*where, *how] for where, how in cluster.published.items()],
        "cpu_s": time.process_time(),
    }


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    asked["script"]["runs_s"] = tuple(asked["script"]["runs_s"])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(asked["path"], Script(**asked["script"]), asked["speed"]))
