"""Which halo sources there are, and what it costs to ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from muster.errors import ConfigError
from muster.mocks.halos.source import HALO_SOURCES, fingerprint_inputs, load_source, source_names

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


def test_our_own_sources_are_found_by_name() -> None:
    assert source_names()[:4] == ["AbacusSummit_small", "abacus_box", "hdf5", "synthetic"]
    for name in HALO_SOURCES:
        assert load_source(name).name == name


def test_an_unknown_source_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="got: AbacusSummit_smal; expected: AbacusSummit_small"):
        load_source("AbacusSummit_smal")


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


def test_a_package_adds_a_source_by_an_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_halos.py").write_text("class Source:\n    name = 'uchuu'\n\nUCHUU = Source()\n")
    info = tmp_path / "my_halos-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-halos\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[muster.halo_sources]\nuchuu = my_halos:UCHUU\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert source_names()[-1] == "uchuu"
    assert load_source("uchuu").name == "uchuu"


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
