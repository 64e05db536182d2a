"""Start a stand-in cluster: ``python -m tests.kubernetes_cluster --folder F``.

It prints the address of its API and goes on until its standard input is closed or it is told to
end (SIGTERM, SIGINT); with it ends all that its pods have started.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.kubernetes_cluster.cluster import StandIn


async def serve(words: argparse.Namespace) -> None:
    """Serve until told to end."""
    image = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
        "HOME": str(words.folder),
        "LANG": "C.UTF-8",
        **dict(word.split("=", 1) for word in words.env),
    }
    cluster = StandIn(words.folder, image, bookmark_every_s=words.bookmark_every)
    print(await cluster.start(words.port), flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if not words.detached:
        loop.add_reader(sys.stdin.fileno(), _read_end, ended)
    await ended.wait()
    await cluster.close()


def _read_end(ended: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        ended.set()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kubernetes_cluster")
    parser.add_argument("--folder", type=Path, required=True, help="where its files are kept")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE",
                        help="a variable that every image has")  # fmt: skip
    parser.add_argument("--bookmark-every", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--detached", action="store_true", help="do not end with standard input")
    words = parser.parse_args()
    words.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve(words))


main()
