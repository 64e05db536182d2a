"""Steps, workflows, halo sources and galaxy models: found by name, and added by packages."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from muster.errors import ConfigError
from muster.jobs.planning.workflow import WORKFLOW_REGISTRY, find_workflow, load_workflow
from muster.mocks.galaxies.model import MODEL_REGISTRY, load_model
from muster.mocks.halos.source import SOURCE_REGISTRY, load_source
from muster.model.step import STEP_REGISTRY, load_step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from muster.entry_points import Registry

LOADERS: list[tuple[Registry[Any], Callable[[str], Any]]] = [
    (STEP_REGISTRY, load_step),
    (WORKFLOW_REGISTRY, load_workflow),
    (SOURCE_REGISTRY, load_source),
    (MODEL_REGISTRY, load_model),
]

OF_EACH_KIND = pytest.mark.parametrize(
    ("registry", "load"), LOADERS, ids=[registry.noun for registry, _ in LOADERS]
)

MODULE = """
class Part:
    name = "bright"

PART, OTHER = Part(), Part()
"""


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bright_parts.py").write_text(MODULE)
    (tmp_path / "dim_parts.py").write_text("raise KeyError('DIM_HOME')\n")
    monkeypatch.delitem(sys.modules, "bright_parts", raising=False)
    return tmp_path


def install(site_packages: Path, name: str, group: str, *entries: str) -> None:
    """Install a package that adds entry points, lines "name = module:attribute"."""
    info = site_packages / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("\n".join((f"[{group}]", *entries, "")))


@OF_EACH_KIND
def test_a_package_adds_a_part_which_is_imported_when_it_is_loaded(
    registry: Registry[Any], load: Callable[[str], Any], site_packages: Path
) -> None:
    install(site_packages, "bright", registry.group, "bright = bright_parts:PART")
    assert registry.names()[: len(registry.own)] == list(registry.own)
    assert "bright" in registry.names()
    assert "bright" in registry
    assert "bright_parts" not in sys.modules
    assert load("bright").name == "bright"


@OF_EACH_KIND
def test_an_unknown_name_is_told_with_those_that_there_are(
    registry: Registry[Any], load: Callable[[str], Any], site_packages: Path
) -> None:
    install(site_packages, "bright", registry.group, "bright = bright_parts:PART")
    own = ", ".join(registry.own)
    with pytest.raises(ConfigError, match=f"unknown {registry.noun}; got: brigth; expected: {own}"):
        load("brigth")
    with pytest.raises(ConfigError, match="bright"):
        load("brigth")
    assert "brigth" not in registry


@pytest.mark.parametrize(
    ("registry", "load"), LOADERS[1:], ids=[registry.noun for registry, _ in LOADERS[1:]]
)
def test_our_own_bear_the_name_by_which_they_are_found(
    registry: Registry[Any], load: Callable[[str], Any]
) -> None:
    assert {name: load(name).name for name in registry.own} == {n: n for n in registry.own}


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("bright_parts:NO_SUCH", "AttributeError"),
        ("no_such_parts:PART", "No module named 'no_such_parts'"),
        ("dim_parts:PART", "KeyError: 'DIM_HOME'"),
        ("of no shape", "AttributeError|ValueError"),
    ],
)
def test_a_broken_part_is_told_with_its_package_and_ends_no_other(
    target: str, said: str, site_packages: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries = ("bright = bright_parts:PART", f"dim = {target}")
    install(site_packages, "parts", WORKFLOW_REGISTRY.group, *entries)
    with pytest.raises(
        ConfigError, match=rf"workflow dim cannot be loaded.*of parts 1\.2.*({said})"
    ):
        load_workflow("dim")
    assert find_workflow("dim") is None
    assert "of parts 1.2" in caplog.text
    assert load_workflow("bright").name == "bright"
    assert {"bright", "dim", *WORKFLOW_REGISTRY.own} <= set(WORKFLOW_REGISTRY.names())


def test_packages_that_disagree_about_a_name_are_told_and_end_no_other(site_packages: Path) -> None:
    group = MODEL_REGISTRY.group
    install(site_packages, "one", group, "bright = bright_parts:PART", "same = bright_parts:PART")
    install(site_packages, "two", group, "bright = bright_parts:OTHER", "same = bright_parts:PART")
    with pytest.raises(ConfigError, match=r"bright is there more than once") as told:
        load_model("bright")
    assert "bright_parts:PART of one 1.2" in str(told.value)
    assert "bright_parts:OTHER of two 1.2" in str(told.value)
    assert MODEL_REGISTRY.names().count("bright") == 1
    assert load_model("same").name == "bright"


def test_no_package_takes_the_name_of_our_own(site_packages: Path) -> None:
    install(site_packages, "bright", MODEL_REGISTRY.group, "hod = bright_parts:PART")
    assert load_model("hod").name == "hod"
    assert MODEL_REGISTRY.names().count("hod") == 1
