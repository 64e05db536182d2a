"""Images that are really built, without a registry, by podman; opt-in: ``make test-images``.

The base is Debian, made by mmdebstrap under the name of an image; MUSTER_TEST_IMAGE_BASE names one
that is there already.  Everything that is built is removed in the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from muster.laptop.postgres import SETTINGS, ensure_database, start_postgres, stop_postgres
from tests.unit.test_locks import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PREFIX = "localhost/muster-tests"
BASE = f"{PREFIX}-base:trixie"
PROGRAMS = ("podman", "runc", "mmdebstrap", "iptables")
RUNC = next((path for path in ("/usr/sbin/runc", "/usr/bin/runc") if os.access(path, os.X_OK)), "")
# crun fails where control groups of both versions are mounted.
PODMAN = ("podman", "--cgroup-manager=cgroupfs", "--runtime", RUNC)
CERTIFICATES = "/etc/ssl/certs"
LOCKED_DOWN = (
    "--read-only", "--tmpfs=/tmp:rw,mode=1777,size=2g", "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)  # fmt: skip
"""What a careful cluster gives a pod."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "images: builds images (many minutes); only by make test-images"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests of this folder out unless they are asked for by their marker."""
    asked = "images" in (config.getoption("markexpr") or "").split()
    missing = [
        name for name in PROGRAMS if shutil.which(name, path=os.defpath + ":/usr/sbin") is None
    ]
    for item in items:
        if "images" not in item.keywords:
            continue
        if not asked:
            item.add_marker(pytest.mark.skip(reason="builds images: make test-images"))
        elif missing or os.geteuid() != 0:
            what = f"root and the Debian packages {' '.join(PROGRAMS)}"
            item.add_marker(pytest.mark.skip(reason=f"needs {what}"))


@dataclass(frozen=True)
class Image:
    """An image that was built.

    Attributes
    ----------
    name : str
        Name and tag.
    log : str
        What the builder said.
    """

    name: str
    log: str = field(repr=False)

    def run(
        self,
        *command: str,
        options: tuple[str, ...] = (),
        network: str = "none",
        timeout_s: float = 300.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a careful cluster would, without a network by default."""
        return podman(
            "run", "--rm", "--pull=never", f"--network={network}", "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=4096:4096", *LOCKED_DOWN, *options, self.name, *command,
            timeout_s=timeout_s,
        )  # fmt: skip

    def python(self, code: str, *options: str) -> str:
        """Run Python in the image and return what it prints."""
        ran = self.run("python", "-c", code, options=options)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    @property
    def size_bytes(self) -> int:
        """Bytes of all layers, unpacked, the base's among them."""
        return image_size_bytes(self.name)


def podman(*arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PODMAN, *arguments], capture_output=True, text=True, check=False, timeout=timeout_s
    )


def image_size_bytes(name: str) -> int:
    return int(podman("image", "inspect", "--format={{.Size}}", name).stdout)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of a base image with Python."""
    named = os.environ.get("MUSTER_TEST_IMAGE_BASE")
    if named:
        yield named
        return
    tarball = tmp_path_factory.mktemp("base") / "base.tar"
    packages = "ca-certificates,python3,python3-pip,python3-venv"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}"]
    made = subprocess.run(
        [*command, "trixie", str(tarball)], capture_output=True, text=True, check=False, timeout=900
    )
    assert made.returncode == 0, made.stderr
    imported = podman("import", "--quiet", str(tarball), BASE, timeout_s=300)
    assert imported.returncode == 0, imported.stderr
    tarball.unlink()
    yield BASE
    podman("rmi", "--force", BASE)


@pytest.fixture(scope="session")
def build(base: str) -> Iterator[Callable[..., Image]]:
    """Build an image of docker/ by what ``make images`` calls."""
    built: list[str] = []

    def build_image(name: str, **variables: str) -> Image:
        environment = {
            **os.environ,
            "BUILDER": "podman",
            "BUILDER_OPTIONS": " ".join(PODMAN[1:]),
            "BUILD_OPTIONS": (
                f"--pull=never --network=host --volume={CERTIFICATES}:{CERTIFICATES}:ro --force-rm"
            ),
            "IMAGES": name,
            "IMAGE_PREFIX": PREFIX,
            "IMAGE_TAG": "test",
            "BASE": base,
            **variables,
        }
        image = f"{PREFIX}-{name}:test"
        built.append(image)
        made = subprocess.run(
            ["sh", "docker/build_images.sh"],
            cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False,
            timeout=1800,
        )  # fmt: skip
        assert made.returncode == 0, f"{made.stdout[-3000:]}\n{made.stderr[-3000:]}"
        return Image(image, made.stdout + made.stderr)

    yield build_image
    for image in reversed(built):
        podman("rmi", "--force", image, timeout_s=300)
    podman("image", "prune", "--force", timeout_s=300)


@pytest.fixture(scope="session")
def airflow_image(build: Callable[..., Image]) -> Image:
    """The image of Airflow."""
    return build("airflow")


@pytest.fixture(scope="session")
def compute_image(build: Callable[..., Image]) -> Image:
    """The image of jobs."""
    return build("compute")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that belongs to the images' user, as a volume would."""
    folder = tmp_path / "shared"
    folder.mkdir()
    os.chown(folder, 50000, 0)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """The socket of a Postgres that users of other numbers may connect to."""
    folder = tmp_path / "postgres"
    server = start_postgres(folder, {**SETTINGS, "unix_socket_permissions": "0777"})
    ensure_database(server, "muster")
    yield server.socket_folder / ".s.PGSQL.5432"
    stop_postgres(folder)
