"""Which halo sources there are, and what it costs to ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from muster.errors import ConfigError
from muster.mocks.halos.source import HALO_SOURCES, fingerprint_inputs, load_source

REPOSITORY = Path(__file__).parents[4]

LOOK = """
import sys
from muster.mocks.coordinates import Coordinate
from muster.mocks.halos.source import HALO_SOURCES, load_source
options = {
    "AbacusSummit_small": {}, "abacus_box": {"root": "/nowhere", "cleaned": False},
    "hdf5": {"path": "/nowhere/{realization}.h5"}, "synthetic": {},
}
for name in HALO_SOURCES:
    source = load_source(name)
    parsed = source.parse_options(options[name])
    found = source.find_inputs(parsed, [Coordinate(0, 1.1)])
    source.name_parts(parsed, Coordinate(0, 1.1)), source.check_installed()
    print(name, *(state.state for state in found.values()))
heavy = {"numpy", "scipy", "h5py", "asdf", "astropy", "numba", "colossus", "abacusnbody", "jax"}
print(*(heavy & set(sys.modules)))
"""


def test_looking_for_inputs_imports_no_compute_library() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines() == [
        "AbacusSummit_small missing",
        "abacus_box missing",
        "hdf5 missing",
        "synthetic present",
        "",
    ]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("abacus_box", {"root": "/data"}, "a key is missing.*cleaned"),
        ("abacus_box", {"cleaned": True}, "a key is missing.*root"),
        ("AbacusSummit_small", {"box": 500}, "unknown key.*got: box; expected: cleaned"),
        ("AbacusSummit_small", {"first_phase": -1}, "first_phase"),
        ("AbacusSummit_small", {"root": "a\nb"}, "root"),
    ],
)
def test_wrong_options_are_refused_without_the_package(
    name: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        load_source(name).parse_options(options)


def test_a_package_that_is_absent_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    said = {name: str(load_source(name).check_installed()) for name in HALO_SOURCES}
    assert said["AbacusSummit_small"].startswith("abacusutils")
    assert said["AbacusSummit_small"].endswith("make abacus")
    assert said["synthetic"].startswith("colossus")
    assert said["hdf5"].endswith("make mocks")
    with pytest.raises(ConfigError, match=r"abacusutils.*not installed: make abacus"):
        load_source("abacus_box").read({}, min_mass_msunh=0)


def test_a_fingerprint_is_of_what_is_meant_and_not_of_its_order() -> None:
    first = fingerprint_inputs({"a": 1, "b": [1.5, None]})
    assert first == fingerprint_inputs({"b": [1.5, None], "a": 1})
    assert first != fingerprint_inputs({"a": 2, "b": [1.5, None]})
    assert len(first) == 64


@pytest.mark.parametrize("name", list(HALO_SOURCES))
def test_inputs_of_another_shape_are_refused(name: str) -> None:
    source = load_source(name)
    absent = source.check_installed()
    if absent is not None:
        pytest.skip(absent)
    with pytest.raises(ConfigError, match=f"inputs of the halo source {name}"):
        source.read({"folder": 3}, min_mass_msunh=0)
