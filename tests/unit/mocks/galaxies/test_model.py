"""The registry of galaxy models, and that asking for one imports no compute library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from muster.errors import ConfigError
from muster.mocks.errors import ModelNotInstalled
from muster.mocks.galaxies.model import load_model
from muster.mocks.galaxies.parameters import RgrspitParams
from muster.mocks.galaxies.stream import RandomStream
from tests.unit.mocks.galaxies.haloes import draw_masses, make_halos

REPOSITORY = Path(__file__).parents[4]

LIGHT = """
import sys
from muster.mocks.galaxies.model import MODEL_REGISTRY, load_model
for name in MODEL_REGISTRY.names():
    model = load_model(name)
    model.check_installed()
    model.parse({})
load_model("rgrspit_diffsky_v1.2").parse({})
heavy = {"numpy", "scipy", "jax", "diffsky", "diffstar", "diffmah", "dsps", "h5py"}
print(sorted(heavy & set(sys.modules)))
"""


def test_models_and_parameters_need_no_compute_library():
    ended = subprocess.run(
        [sys.executable, "-c", LIGHT],
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert ended.stdout.strip() == "[]"


def test_a_version_in_the_name_is_the_version_that_must_be_installed():
    model = load_model("rgrspit_diffsky_v0.0.7")
    assert model.name == "rgrspit"
    assert model.parse({}).version == "0.0.7"
    assert "0.0.7" in (model.check_installed() or "0.0.7") or "needs" in model.check_installed()
    with pytest.raises(ConfigError, match="two versions"):
        model.parse({"version": "0.0.8"})
    for name in ("rgrspit_diffsky_v", "rgrspit_diffsky_v1/2", "rgrspit_diffsky_v1 "):
        with pytest.raises(ConfigError, match="unknown galaxy model"):
            load_model(name)


def test_a_model_that_is_not_installed_says_what_is_missing_and_refuses_to_run():
    model = load_model("rgrspit")
    missing = model.check_installed()
    if missing is None:
        pytest.skip("rgrspit_diffsky is installed here")
    assert "rgrspit_diffsky" in missing
    assert "docs/galaxy_models.md" in missing
    with pytest.raises(ModelNotInstalled, match="rgrspit_diffsky"):
        model.generate(make_halos(draw_masses(3)), RgrspitParams(), RandomStream(1))


def test_versions_of_hod():
    versions = load_model("hod").versions()
    assert versions.keys() == {"hod", "numpy", "scipy"}


def test_streams_of_jax_and_numpy_follow_the_coordinates():
    draws = {
        tuple(RandomStream(*where).numpy(purpose).integers(0, 2**60, 2).tolist())
        for where in [(1,), (2,), (1, 1), (1, 0, 1), (1, 0, 0, 1), (2**40 + 1,)]
        for purpose in (0, 1)
    }
    assert len(draws) == 12


@pytest.mark.slow
def test_key_of_jax_is_the_seed_with_the_coordinates_folded_in():
    random = pytest.importorskip("jax.random")
    from muster.mocks.galaxies.jax_runtime import prepare_jax

    prepare_jax()
    key = random.key(5)
    for coordinate in (3, 2, 1):
        key = random.fold_in(key, coordinate)
    found = RandomStream(5, 3, 2, 1).jax()
    assert (random.key_data(found) == random.key_data(key)).all()
    keys = {
        tuple(random.key_data(RandomStream(seed).jax()).tolist())
        for seed in (0, 1, 2**31, 2**31 + 1, 2**40)
    }
    assert len(keys) == 5
