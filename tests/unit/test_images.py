"""The images' files: what a build takes in, from which locks, and what compose.yaml asks for."""

from __future__ import annotations

import base64
import os
import re
import runpy
import shlex
import subprocess
import tomllib
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

import pathspec
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from muster.site import read_site
from tests.unit.test_locks import LOCKS, PYPROJECT, REPOSITORY, direct, names, pins

if TYPE_CHECKING:
    from pathlib import Path

DOCKER = REPOSITORY / "docker"
IMAGES = ("airflow", "compute", "compute-gpu")
IMAGE_LOCKS = tuple(f"docker/locks/{name}.txt" for name in (*IMAGES, "build"))
EXTRAS = {
    "airflow": ("airflow", "ssh", "kubernetes", "celery"),
    "compute": ("compute", "hod", "mocks", "abacus"),
    "compute-gpu": ("compute", "hod", "mocks", "abacus", "gpu"),
}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|(^|_)KEY(_|$)")
COMPOSE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ENDS = {"migrate", "inputs", "example"}


@cache
def instructions(image: str) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions, each on one line, without comments."""
    text = (DOCKER / f"{image}.Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (word.upper(), " ".join(rest.split()))
        for word, _, rest in (line.strip().partition(" ") for line in joined.splitlines())
        if word
    ]


def of(image: str, word: str) -> list[str]:
    return [rest for name, rest in instructions(image) if name == word]


@pytest.mark.parametrize("image", [*IMAGES, "slurm"])
def test_all_that_is_built_on_is_a_build_argument(image: str) -> None:
    stages: set[str] = set()
    for line in of(image, "FROM"):
        source, *named = line.split(" AS ")
        assert source == "${BASE}" or source in stages, f"{source} cannot be replaced"
        stages.update(named)
    assert instructions(image)[0][0] == "ARG"
    assert instructions(image)[0][1].startswith("BASE=")
    assert ":latest" not in (DOCKER / f"{image}.Dockerfile").read_text()


@pytest.mark.parametrize("image", IMAGES)
def test_what_builds_does_not_stay_in_the_image(image: str) -> None:
    assert len(of(image, "FROM")) > 1
    first = next(
        n for n, (word, _) in reversed(list(enumerate(instructions(image)))) if word == "FROM"
    )
    for word, rest in instructions(image)[first:]:
        assert word != "RUN" or not re.search(r"\b(pip|uv|gcc)\b", rest)


@pytest.mark.parametrize("image", [*IMAGES, "slurm"])
def test_an_image_runs_as_a_numeric_user_that_is_not_root(image: str) -> None:
    # A cluster that asks for runAsNonRoot cannot tell by a name.
    assert of(image, "USER")[-1] == "50000:0"
    assert instructions(image)[-1][0] in {"CMD", "ENTRYPOINT"}


@pytest.mark.parametrize("image", [*IMAGES, "slurm"])
def test_an_image_says_what_it_is(image: str) -> None:
    labels = dict(word.split("=", 1) for word in shlex.split(of(image, "LABEL")[-1]))
    said = {name.removeprefix("org.opencontainers.image."): text for name, text in labels.items()}
    assert said["licenses"] == PYPROJECT["project"]["license"]
    assert said["title"] == f"muster-{image}"
    assert said.keys() >= {"description", "version", "revision", "source"}
    for name in ("version", "revision", "source"):
        assert said[name] == f"${{{name.upper()}}}"
        assert any(line.startswith(f"{name.upper()}=") for line in of(image, "ARG"))


@pytest.mark.parametrize("image", [*IMAGES, "slurm"])
def test_no_build_argument_and_no_variable_holds_a_secret(image: str) -> None:
    declared = " ".join([*of(image, "ARG"), *of(image, "ENV")])
    for name in re.findall(r"(\w+)=", declared):
        assert not SECRET.search(name)
    assert not of(image, "ADD")


@pytest.mark.parametrize("image", [*IMAGES, "slurm"])
def test_the_context_holds_what_an_image_copies(image: str) -> None:
    for line in of(image, "COPY"):
        words = [word for word in line.split() if not word.startswith("--")]
        if "--from=" in line:
            continue
        for source in words[:-1]:
            assert source != "."
            assert (REPOSITORY / source).exists()
            assert is_sent(source) or is_sent(f"{source}/file")


@cache
def ignored() -> pathspec.GitIgnoreSpec:
    """Return .dockerignore, whose patterns begin at the root, where those of git need a slash."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    return pathspec.GitIgnoreSpec.from_lines(
        line if line.startswith("#") else re.sub(r"^(!?)(?!\*\*/)", r"\1/", line) for line in lines
    )


def is_sent(path: str) -> bool:
    """Tell whether .dockerignore lets a file into the context."""
    return not ignored().match_file(path)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".env", "config/.env.local", ".venv/bin/python", ".muster/secrets.json",
        "tests/conftest.py", "docs/images.md", "helm/values.yaml", "requirements.txt", "site.key",
        "config/tls.pem", "muster/tls/server.key", "muster/__pycache__/config.cpython-313.pyc",
        "campaigns/own.yaml", "core.123", "docker/compose/site.toml",
    ],
)  # fmt: skip
def test_the_context_leaves_out_what_no_image_is_made_of(path: str) -> None:
    assert not is_sent(path)


def test_a_secret_that_compose_reads_is_never_committed() -> None:
    spec = pathspec.GitIgnoreSpec.from_lines((REPOSITORY / ".gitignore").read_text().splitlines())
    assert spec.match_file(".env")


@pytest.mark.parametrize("lock", IMAGE_LOCKS)
def test_every_line_of_an_image_lock_is_a_pin_with_hashes(lock: str) -> None:
    assert pins(lock)
    assert not re.search(r"://|(^|[ =])/|^-", (REPOSITORY / lock).read_text(), re.MULTILINE)


def test_images_run_the_versions_that_are_tested() -> None:
    versions = defaultdict(set)
    for lock in (*LOCKS, *IMAGE_LOCKS):
        for pinned, version in pins(lock).items():
            versions[pinned].add(version)
    assert {pinned: found for pinned, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_lock_pins_what_its_extras_may_need(image: str) -> None:
    lock = f"docker/locks/{image}.txt"
    excluded = requirements("excluded.txt")
    for package in [
        *map(Requirement, PYPROJECT["project"]["dependencies"]),
        *direct(*EXTRAS[image]),
    ]:
        name = canonicalize_name(package.name)
        if name == "muster":
            continue
        found = {version for (pinned, _), version in pins(lock).items() if pinned == name}
        assert bool(found) != (name in {canonicalize_name(each.name) for each in excluded}), name
        assert all(package.specifier.contains(version) for version in found), package
    default = next(line for line in of(image, "ARG") if line.startswith("EXTRAS="))
    assert set(default.removeprefix("EXTRAS=").strip('"').split()) <= set(EXTRAS[image])


def test_no_image_has_what_another_is_for() -> None:
    assert not names("docker/locks/airflow.txt") & {"rasterio", "lightgbm", "scipy", "numba", "jax"}
    for image in ("compute", "compute-gpu"):
        assert not {name for name in names(f"docker/locks/{image}.txt") if "airflow" in name}


def requirements(name: str) -> list[Requirement]:
    lines = (DOCKER / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_everything_on_the_gpu_is_built_for_one_cuda() -> None:
    pinned = {name: version for (name, _), version in pins("docker/locks/compute-gpu.txt").items()}
    added = tomllib.loads((DOCKER / "compute-gpu" / "pyproject.toml").read_text())["project"]
    for package in map(Requirement, added["dependencies"]):
        assert package.specifier.contains(pinned[canonicalize_name(package.name)])
    assert pinned.keys() >= {
        "cupy-cuda12x",
        "onnxruntime-gpu",
        "jax-cuda12-plugin",
        "nvidia-cudnn-cu12",
    }
    assert not {name for name in pinned if re.search(r"cuda1[013]|-cu1[013]", name)}
    # The first version that is built for CUDA 13.
    assert tuple(map(int, pinned["onnxruntime-gpu"].split(".")[:2])) < (1, 27)


@pytest.fixture
def builder(tmp_path: Path) -> Path:
    """Stand in for a builder: it writes down its arguments, a line a call."""
    program = tmp_path / "podman"
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n')
    program.chmod(0o755)
    return program


def build_images(builder: Path | None, **variables: str) -> subprocess.CompletedProcess[str]:
    path = "/nonexistent" if builder is None else f"{builder.parent}:{os.environ['PATH']}"
    environment = {"PATH": path, **variables}
    if builder is not None:
        environment.setdefault("BUILDER", "podman")
    command = ["/bin/sh", "docker/build_images.sh"]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


def test_make_images_builds_each_with_its_version(builder: Path) -> None:
    built = build_images(builder, IMAGE_PREFIX="registry.example/muster", BASE="python:own")
    assert built.returncode == 0, built.stderr
    calls = (builder.parent / "calls").read_text().splitlines()
    version = PYPROJECT["project"]["version"]
    for name, call in zip(("airflow", "compute", "slurm"), calls, strict=True):
        assert call.startswith("build --file docker/")
        assert (
            f"--file docker/{name}.Dockerfile --tag registry.example/muster-{name}:{version} "
            in call
        )
        assert f"--build-arg VERSION={version} " in call
        assert re.search(r"--build-arg REVISION=[0-9a-f]{40}(-changed)? ", call)
    assert "BASE=python:own" in calls[0]
    # Jobs of the small Slurm run in the image of the jobs.
    assert f"BASE=registry.example/muster-compute:{version}" in calls[2]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"IMAGES": "computer"}, "error: no such image; got: computer; expected: one of airflow"),
        ({"IMAGES": "airflow compute", "EXTRAS": "mocks"}, "error: EXTRAS are those of one image"),
    ],
)
def test_make_images_refuses_what_it_cannot_build(
    builder: Path, variables: dict[str, str], said: str
) -> None:
    refused = build_images(builder, **variables)
    assert refused.returncode == 64
    assert refused.stderr.startswith(said)
    assert refused.stderr.count("\n") == 1
    assert not (builder.parent / "calls").exists()


def test_make_images_says_what_is_missing_where_nothing_builds() -> None:
    refused = build_images(None)
    assert refused.returncode == 69
    assert "expected: docker with an engine, podman or buildah" in refused.stderr


def variables_of(service: dict[str, Any]) -> dict[str, str]:
    return service.get("environment", {})


def test_compose_holds_no_secret_and_refuses_one_that_is_unset() -> None:
    for service in SERVICES.values():
        for name, text in variables_of(service).items():
            if SECRET.search(name) and "FILE" not in name:
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", text), f"{name} is not asked for"
    text = (REPOSITORY / "compose.yaml").read_text()
    for login in re.findall(r"postgresql\S*://\w+:(.*)@postgres/", text):
        assert login.startswith("${POSTGRES_PASSWORD:?")


def test_the_env_file_has_what_compose_asks_for_and_fresh_each_time() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", (REPOSITORY / "compose.yaml").read_text()))
    render = runpy.run_path(str(DOCKER / "compose" / "make_env.py"))["render_env"]
    first, second = (
        dict(line.split("=", 1) for line in render().splitlines() if not line.startswith("#"))
        for _ in range(2)
    )
    assert first.keys() == asked
    assert not set(first.values()) & set(second.values())
    assert len(base64.urlsafe_b64decode(first["FERNET_KEY"])) == 32
    assert all(len(text) >= 40 for text in first.values())


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_of_compose_is_well_formed(name: str) -> None:
    service = SERVICES[name]
    assert not service["image"].endswith(":latest")
    assert ":" in service["image"]
    if name not in ENDS:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert source in COMPOSE["volumes"] or (REPOSITORY / source).is_file(), volume
    for other, needed in service.get("depends_on", {}).items():
        if needed["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        if needed["condition"] == "service_completed_successfully":
            assert SERVICES[other].get("restart", "no") == "no"
    if "muster}-" in service["image"]:
        assert service["cap_drop"] == ["ALL"]
        assert "privileged" not in service


def test_compose_runs_every_component_of_airflow() -> None:
    commands = [" ".join(service.get("command", [])) for service in SERVICES.values()]
    for component in ("api-server", "scheduler", "dag-processor", "triggerer", "db migrate"):
        assert any(f"airflow {component}" in command for command in commands), component
    assert {"postgres", "s3", "slurm"} <= SERVICES.keys()


def test_the_site_of_compose_places_every_step_on_its_slurm() -> None:
    site = read_site(str(DOCKER / "compose" / "site.toml"))
    laptop = read_site("laptop")
    assert site.placement.keys() == laptop.placement.keys()
    assert {pool.backend for pool in site.pools.values()} == {"slurm"}
    cluster = site.clusters["slurm"]
    assert cluster.host == SERVICES["slurm"]["hostname"]
    assert f"Port {cluster.port}\n" in (DOCKER / "slurm" / "sshd_config").read_text()
    assert f"work:{site.work}" in SERVICES["slurm"]["volumes"]
    assert f"work:{site.work}" in SERVICES["scheduler"]["volumes"]
    endpoint = SERVICES["scheduler"]["environment"]["AWS_ENDPOINT_URL"]
    assert cluster.environment is not None
    assert cluster.environment["AWS_ENDPOINT_URL"] == endpoint
    assert endpoint.endswith(SERVICES["s3"]["environment"]["VGW_PORT"])
