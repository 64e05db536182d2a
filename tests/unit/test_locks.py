"""The locks have hashes, agree and cover pyproject.toml; make run installs no test package."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
RUN = "requirements.txt"
LOCKS = (
    RUN,
    *(f"requirements/{name}.txt" for name in ("gpu", "helm", "kubernetes", "ssh", "tests", "uv")),
)
PIN = re.compile(
    r"(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?P<marker> ; .+)?(?P<hashes>( sha256:\w{64})+)"
)
AIRFLOW_NEEDS_TOO = {"jsonschema"}
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


@cache
def pins(lock: str) -> dict[tuple[str, str], str]:
    """Return the version of each package and marker; every line of a lock must be a hashed pin."""
    text = re.sub(r" *#.*\n", "", (REPOSITORY / lock).read_text())
    lines = text.replace(" \\\n    --hash=", " ").splitlines()
    found = [PIN.fullmatch(line) for line in lines if line]
    unhashed = [line for line, pin in zip(filter(None, lines), found, strict=True) if pin is None]
    assert found
    assert not unhashed
    return {(pin["name"], pin["marker"] or ""): pin["version"] for pin in found if pin}


def names(lock: str) -> set[str]:
    return {name for name, _ in pins(lock)}


def direct(*extras: str) -> list[Requirement]:
    optional = PYPROJECT["project"]["optional-dependencies"]
    return [Requirement(line) for extra in extras for line in optional[extra]]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_is_a_pin_with_hashes(lock: str) -> None:
    assert pins(lock)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_no_path(lock: str) -> None:
    assert not re.search(r"://|(^|[ =])/|^-", (REPOSITORY / lock).read_text(), re.MULTILINE)


def test_the_locks_agree_on_versions() -> None:
    versions = defaultdict(set)
    for lock in LOCKS:
        for pinned, version in pins(lock).items():
            versions[pinned].add(version)
    assert {pinned: found for pinned, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("lock", LOCKS[1:])
def test_what_is_added_is_not_in_the_lock_of_make_run(lock: str) -> None:
    assert names(lock) & names(RUN) == set()


def test_make_run_installs_no_package_of_the_tests() -> None:
    tests = {
        canonicalize_name(package.name)
        for package in direct("test", "ssh", "kubernetes", "gpu", "helm")
    }
    assert (tests - AIRFLOW_NEEDS_TOO | {"sympy"}) & names(RUN) == set()


@pytest.mark.parametrize(
    ("locks", "wanted"),
    [
        pytest.param(
            (RUN,),
            [
                *map(Requirement, PYPROJECT["project"]["dependencies"]),
                *direct("airflow", "compute"),
            ],
            id="run",
        ),
        pytest.param(("requirements/ssh.txt",), direct("ssh"), id="ssh"),
        pytest.param(("requirements/gpu.txt",), direct("gpu"), id="gpu"),
        pytest.param((RUN, "requirements/kubernetes.txt"), direct("kubernetes"), id="kubernetes"),
        pytest.param(("requirements/helm.txt",), direct("helm"), id="helm"),
        pytest.param(
            (RUN, "requirements/tests.txt"), direct("ssh", "kubernetes", "test"), id="tests"
        ),
        pytest.param(
            ("requirements/uv.txt",),
            [Requirement(line) for line in PYPROJECT["dependency-groups"]["uv"]],
            id="uv",
        ),
    ],
)
def test_each_direct_dependency_is_pinned_as_pyproject_allows(
    locks: tuple[str, ...], wanted: list[Requirement]
) -> None:
    versions = defaultdict(set)
    for lock in locks:
        for (name, _), version in pins(lock).items():
            versions[name].add(version)
    for package in wanted:
        pinned = versions[canonicalize_name(package.name)]
        assert pinned, f"{package} is not pinned; do: make lock"
        assert all(package.specifier.contains(version) for version in pinned), package
