"""One S3 server (moto) per session, in a process of its own, and empty buckets on it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import boto3
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from types_boto3_s3 import S3Client

_SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Start the server on a free loopback port and return its address.

    In a process of its own: rasterio holds the interpreter's lock while it opens a file, so that a
    server in a thread would never answer.  The process ends when its stdin is closed.
    """
    with subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield f"http://{server.stdout.readline().strip()}"


@contextlib.contextmanager
def empty_bucket(server: str, name: str) -> Iterator[S3Client]:
    """Empty the server, make a bucket, and point boto3 and GDAL to it by the environment alone."""
    with urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST")):
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket=name)
        yield client
        client.close()
