"""The small Slurm of compose.yaml: Airflow logs in by ssh, and jobs run in the image of jobs."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.images.conftest import PREFIX, Image, podman
from tests.unit.test_locks import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.images, pytest.mark.thorough, pytest.mark.timeout(3600)]

NAME = "muster-tests-slurm"
SITE = REPOSITORY / "docker" / "compose" / "site.toml"


@pytest.fixture
def volumes(shared: Path) -> tuple[str, ...]:
    """Work directory and keys, as both containers mount them."""
    keys = shared.parent / "ssh"
    keys.mkdir(mode=0o700)
    os.chown(keys, 50000, 0)
    return (f"--volume={shared}:/work", f"--volume={keys}:/home/muster/.ssh")


@pytest.fixture
def cluster(
    build: Callable[..., Image], compute_image: Image, volumes: tuple[str, ...]
) -> Iterator[str]:
    """The container of the cluster, once its nodes take jobs."""
    image = build("slurm")
    assert compute_image.name.startswith(PREFIX)
    started = podman(
        "run", "--detach", "--pull=never", f"--name={NAME}", "--hostname=slurm", "--network=bridge",
        "--cap-drop=ALL", "--security-opt=no-new-privileges",
        "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096",
        "--env=AWS_ACCESS_KEY_ID=of-a-test", "--env=AWS_SECRET_ACCESS_KEY=of-a-test",
        *volumes, image.name,
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    try:
        deadline = time.monotonic() + 60
        while podman("exec", NAME, "sinfo", "--noheader").returncode != 0:
            assert time.monotonic() < deadline, podman("logs", NAME).stdout
            time.sleep(0.5)
        yield NAME
    finally:
        podman("rm", "--force", "--time=5", NAME)


def test_airflow_reaches_the_cluster_and_jobs_run_there(
    airflow_image: Image, cluster: str, store: Path, volumes: tuple[str, ...]
) -> None:
    ran = airflow_image.run(
        "sh", "-c", "muster migrate >&2 && muster doctor --json",
        options=(
            *volumes,
            f"--volume={SITE}:/etc/muster/site.toml:ro",
            f"--volume={store}:/run/postgresql/.s.PGSQL.5432",
            "--env=MUSTER_SITE=/etc/muster/site.toml",
            "--env=MUSTER_STORE_URL=postgresql://postgres:@/muster?host=/run/postgresql",
        ),
        network=f"container:{cluster}",
    )  # fmt: skip
    report = json.loads(ran.stdout)
    assert report["good"], ran.stdout
    assert ran.returncode == 0
    assert {"look", "cpu"} <= {word for check in report["checks"] for word in check["name"].split()}


def test_keys_of_the_s3_server_are_private(cluster: str) -> None:
    said = podman("exec", cluster, "stat", "--format=%a %u", "/home/muster/.aws/credentials")
    assert said.stdout.split() == ["600", "50000"]
