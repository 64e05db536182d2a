"""Memory and disk that run out while traits are mapped: told, recorded, and made good later."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import HOSTILE, TRAITS
from tests.system.desk import (
    Desk,
    Ran,
    Running,
    assert_says_once,
    files_of,
    read_bands,
    say_states,
)
from tests.system.test_infer_inputs import namespace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS = ("inspect", "predict", "cov", "aoa", "build")
LARGEST_FILE_BYTES = 32 * 1024


def write_site(path: Path, pool: str = "", **placements: str) -> Path:
    """Write a site of one local pool, without limits but those that are given."""
    lines = ["[pools]", f'local = {{ backend = "local", slots = 2{pool} }}', "[placement]"]
    for step in STEPS:
        lines.append(f'"traits.{step}" = {{ pool = "local"{placements.get(step, "")} }}')
    path.write_text("\n".join(lines))
    return path


def limit_file_size() -> None:
    """Let no file of a process and its children grow beyond a size, as on a disk with a quota."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE_BYTES, resource.RLIM_INFINITY))


@pytest.fixture(scope="module")
def tight(open_desk: Callable[[], Desk], mapped: Desk) -> tuple[Desk, Ran]:
    """A run whose one band to be computed has less memory than it needs."""
    desk = open_desk()
    site = write_site(
        desk.folder / "tight.toml", pool=', max_memory = "64MiB"', aoa=', memory = "60MiB"'
    )
    desk.borrow_bands(mapped, *TRAITS)
    desk.stage("leaf_area", "aoa").unlink()
    desk.write_params(TRAITS)
    return desk, desk.invoke_infer("--site", str(site), "--json")


@pytest.mark.slow
def test_a_band_that_lacks_memory_is_left_out(tight: tuple[Desk, Ran]) -> None:
    desk, ran = tight
    assert ran.code == 1
    report = {trait["trait"]: trait for trait in ran.json()["traits"]}
    assert report["leaf_area"]["state"] == "failed"
    assert report["leaf_area"]["steps"]["traits.aoa"] == "out_of_memory"
    (reason,) = report["leaf_area"]["reasons"]
    assert "MiB of memory; limit: 64 MiB" in reason
    assert report[HOSTILE]["state"] == "succeeded"
    assert_says_once(ran, "limit: 60 MiB", "leaf_area", "out_of_memory", "used ")
    states = say_states("succeeded", bands="reused", aoa="out_of_memory")
    assert desk.states(ran.run_id)["leaf_area"] == states
    attempts = {(e["group"], e["step"]): e["attempts"] for e in desk.status(ran.run_id)["elements"]}
    assert attempts["leaf_area", "traits.aoa"] == 2, "60 MiB, then all that the pool gives"
    logs = desk.invoke("logs", ran.run_id, "leaf_area", "--step", "traits.aoa").stdout
    assert "== traits.aoa attempt 1: out_of_memory" in logs
    assert "== traits.aoa attempt 2: out_of_memory" in logs
    bands = read_bands(desk.maps / "leaf_area.tif")
    assert list(bands) == ["leaf_area prediction", "coefficient of variation"]
    assert len(read_bands(desk.maps / f"{HOSTILE}.tif")) == 3
    desk.assert_nothing_half_written()


@pytest.mark.thorough
def test_a_band_that_lacked_memory_is_added_where_there_is_room(tight: tuple[Desk, Ran]) -> None:
    desk, _ = tight
    before = desk.stages()

    ran = desk.invoke_infer("--site", str(write_site(desk.folder / "roomy.toml")))

    assert ran.code == 0
    states = desk.states(ran.run_id)
    assert states["leaf_area"] == say_states("succeeded", predict="reused", cov="reused")
    assert states[HOSTILE] == say_states("reused")
    assert len(read_bands(desk.maps / "leaf_area.tif")) == 3
    after = desk.stages()
    assert {name for name in after if after[name] != before.get(name)} == {"leaf_area/aoa"}


def test_more_than_the_pool_gives_is_refused_before_anything_runs(desk: Desk) -> None:
    desk.write_params(["leaf_area"], resources={"traits.build": {"memory": "900GiB"}})
    ran = desk.invoke_infer()
    assert ran.code == 65
    assert_says_once(ran, "more than the pool gives", "traits.build", "pool local")
    assert desk.invoke("status").stdout == "no runs yet\n"


@pytest.mark.slow
def test_a_full_disk_is_waited_for_and_the_product_is_whole_when_there_is_room(
    desk: Desk, mapped: Desk
) -> None:
    """The output folder is a file system of 112 KiB until a person makes it larger."""
    desk.borrow_bands(mapped, "leaf_area")
    desk.write_params(["leaf_area"])
    desk.maps.mkdir()
    saved = desk.folder / "saved"
    script = 'mount -t tmpfs -o size=112k none "$0" && "$@"; code=$?; cp -a "$0" saved; exit $code'
    running = desk.start_infer(before=[*namespace(), "sh", "-c", script, str(desk.maps)])
    running.wait_for("traits.build leaf_area transient")
    assert run_beside(running, "find", str(desk.maps), "-type", "f") == ""
    run_beside(running, "mount", "-o", "remount,size=8m", str(desk.maps))
    ran = running.wait()
    assert ran.code == 0
    assert sorted(path.name for path in saved.glob("*.*")) == files_of("leaf_area")
    assert len(read_bands(saved / "leaf_area.tif")) == 3
    assert_says_once(ran, "traits.build leaf_area transient", "disk is full", "bytes free", "do")
    assert desk.states(ran.run_id)["leaf_area"] == say_states("succeeded", bands="reused")


def run_beside(running: Running, *command: str) -> str:
    """Run a command where a running one sees its mounts."""
    enter = ["nsenter", "--target", str(running.process.pid), "--user", "--mount", "--"]
    if (
        os.stat("/proc/self/ns/user").st_ino
        == os.stat(f"/proc/{running.process.pid}/ns/user").st_ino
    ):
        enter.remove("--user")
    ended = subprocess.run([*enter, *command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.thorough
def test_a_disk_that_stays_full_is_transient_in_the_end(desk: Desk) -> None:
    desk.write_params(["leaf_area"])
    ran = desk.infer("--predict-only", preexec=limit_file_size)
    assert ran.code == 1
    assert desk.states(ran.run_id)["leaf_area"]["predict"] == "transient"
    said = [line for line in ran.complaints if "traits.predict leaf_area transient" in line]
    assert len(said) == 4, "the first attempt and three more"
    for line in said:
        for part in ("limit of a file's size is reached", f"limit {LARGEST_FILE_BYTES}", "do: "):
            assert part in line
    assert "leaf_area: failed: predict transient" in ran.stdout
    assert not desk.stages()
    desk.assert_nothing_half_written()
    assert not desk.products()
