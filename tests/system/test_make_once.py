"""A folder that the processes of a test run share is made once, and whole."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from subprocess import run
from typing import TYPE_CHECKING

import pytest

from tests.shared_fixtures import make_once

if TYPE_CHECKING:
    from pathlib import Path

ASK = """
import pathlib, sys, time
from tests.shared_fixtures import make_once

class Factory:
    def getbasetemp(self):
        return pathlib.Path(sys.argv[1])

def make(folder):
    (folder / "first").touch()
    time.sleep(0.5)
    (folder / "last").touch()
    with (folder.parent / "made").open("a") as file:
        file.write("x")

folder = make_once(Factory(), "shared", make)
assert (folder / "last").exists()
"""


def test_processes_of_one_run_make_it_once_and_see_it_whole(tmp_path: Path) -> None:
    environments = []
    for worker in ("gw0", "gw1", "gw2"):
        (tmp_path / worker).mkdir()
        environments.append({"PYTEST_XDIST_WORKER": worker})
    with ThreadPoolExecutor(3) as threads:
        ended = threads.map(
            lambda env: run(
                [sys.executable, "-c", ASK, str(tmp_path / env["PYTEST_XDIST_WORKER"])],
                env=env, capture_output=True, text=True, check=False,
            ),
            environments,
        )  # fmt: skip
        assert [end.stderr for end in ended] == [""] * 3
    assert (tmp_path / "made").read_text() == "x"


def test_after_a_maker_that_failed_the_next_starts_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(tmp_path_factory, "getbasetemp", lambda: tmp_path / "gw0")
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        make_once(tmp_path_factory, "shared", fail)
    folder = make_once(tmp_path_factory, "shared", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert make_once(tmp_path_factory, "shared", fail) == folder
