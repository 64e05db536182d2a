"""rgrspit beside the original itself, in an environment that has rgrspit_diffsky.

MUSTER_TEST_RGRSPIT_PYTHON=/envs/rgrspit/bin/python pytest -m rgrspit
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.unit.mocks.galaxies.haloes import draw_masses, make_halos

PYTHON = os.environ.get("MUSTER_TEST_RGRSPIT_PYTHON")
REPOSITORY = Path(__file__).parents[4]
PROGRAM = Path(__file__).with_name("rgrspit_program.py")
ROUNDS = 3

pytestmark = [
    pytest.mark.rgrspit,
    pytest.mark.thorough,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(PYTHON is None, reason="MUSTER_TEST_RGRSPIT_PYTHON names no interpreter"),
]


def run(way: str, folder: Path) -> dict[str, float]:
    ended = subprocess.run(
        [str(PYTHON), PROGRAM, way, folder / "halos.npz", folder / f"{way}.npz"],
        # Both with threads enough not to deadlock, and neither with programs of the other.
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "NPROC": "8"},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_baseline_is_the_original_at_its_cost(tmp_path):
    halos = make_halos(draw_masses(2000))
    np.savez(
        tmp_path / "halos.npz", pos=halos.positions, vel=halos.velocities, radii=halos.radii,
        masses=halos.masses, box=100.0, redshift=1.1,
    )  # fmt: skip
    costs = {"direct": [], "adapter": []}
    for _ in range(ROUNDS):
        for way, of in costs.items():
            of.append(run(way, tmp_path))
    direct, adapter = (dict(np.load(tmp_path / f"{way}.npz")) for way in costs)
    assert direct.keys() == adapter.keys()
    assert len(direct["pos"]) > 4000
    for name, values in direct.items():
        assert values.dtype == adapter[name].dtype, name
        np.testing.assert_array_equal(values, adapter[name], err_msg=name)
    for cost in ("cpu_s", "peak_kib"):
        theirs, ours = (min(used[cost] for used in costs[way]) for way in costs)
        print(f"{cost}: original {theirs:.1f}, adapter {ours:.1f}")
        assert ours <= 1.05 * theirs, cost


OTHER = """
import numpy as np
from muster.mocks.galaxies.boxes import generate_box
from muster.mocks.galaxies.model import load_model
from tests.unit.mocks.galaxies.haloes import draw_masses, make_halos, columns
import importlib.metadata
version = importlib.metadata.version("rgrspit_diffsky")
model = load_model(f"rgrspit_diffsky_v{version}")
assert model.check_installed() is None
assert "9.9" in load_model("rgrspit_diffsky_v9.9").check_installed()
halos = make_halos(draw_masses(200))
params = model.parse({"log_min_subhalo_mass": 11.0, "baseline": False})
where = dict(seed=5, redshift_index=0, slabs=2)
one, same, other = (
    generate_box(halos, model, params, realization=r, **where) for r in (1, 1, 2)
)
for name, values in columns(one).items():
    assert np.array_equal(values, columns(same)[name]), name
assert len(one) != len(other) or not np.array_equal(one.positions, other.positions)
satellite = one.properties["upid"] != -1
hosts = halos.ids[one.parent_halos[satellite]]
assert satellite.any() and np.array_equal(one.properties["upid"][satellite], hosts)
expected = model.expect(halos, params)
assert abs(len(one) - expected.mean) < 5 * expected.standard_deviation, (len(one), expected)
empty = model.generate(make_halos(np.zeros(0)), params, None)
assert len(empty) == 0 and model.expect(make_halos(np.zeros(0)), params).mean == 0
print(model.versions())
"""


def test_a_key_of_its_own_for_each_slab():
    ended = subprocess.run(
        [str(PYTHON), "-c", OTHER],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "'diffstar': '0.3.5'" in ended.stdout
