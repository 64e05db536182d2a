"""Processes that share the slabs of a box end with the process that is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from muster import storage
from tests.batches import STEPS_FOLDER
from tests.mock_campaigns import write_campaign

pytest.importorskip("colossus", reason="colossus is not installed: make mocks")
pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[4]
PATIENCE_S = 60.0
PROGRAM = """
import sys
from pathlib import Path
from muster.mocks.campaign.config import read_campaign
from muster.mocks.coordinates import Coordinate
from muster.mocks.plan.catalogue_inputs import plan_one
from muster.mocks.populate import populate_mock
from muster.model.step import StepContext
if __name__ == "__main__":
    inputs = plan_one(read_campaign(Path(sys.argv[1])), Coordinate(0, 1.1))
    populate_mock(**inputs, catalogue=Path("made.hdf5"), context=StepContext(threads=2))
"""


def test_no_process_of_a_box_outlives_the_one_that_is_killed(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    (tmp_path / "program.py").write_text(PROGRAM)
    file = write_campaign(
        tmp_path,
        model="faulty",
        parameters={"wait_for": str(tmp_path / "never"), "ledger": str(ledger)},
        box={"box_size_mpch": 50, "lowest_mass_msunh": 1e12},
        slabs=4,
    )
    process = subprocess.Popen(
        [sys.executable, "program.py", str(file)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{STEPS_FOLDER}"},
        stdin=subprocess.DEVNULL,
    )
    below: list[psutil.Process] = []
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not any(p.read_text().count("\n") == 2 for p in ledger.iterdir()):
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        below = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        assert len(below) >= 2
        psutil.wait_procs(below, timeout=10)
        assert not [p.cmdline() for p in below if storage.is_alive(p.pid)]
    finally:
        for left in (process, *below):
            if storage.is_alive(left.pid):
                left.kill()
