"""An inference that is killed or interrupted anywhere: nothing runs on, nothing is done twice."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.system.desk import (
    PATIENCE_S,
    POLL_S,
    Desk,
    Running,
    files_of,
    read_bands,
    say_states,
    sha256,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS_TO_STOP = 20.0
"""Most that an interrupted run may take to end, on a machine that does other things."""


def kill(desk: Desk, running: Running) -> None:
    running.kill(signal.SIGKILL)
    running.wait()
    desk.assert_quiet()
    for path in desk.bands.rglob("*.tif"):
        read_bands(path)  # whatever has its name is whole


@pytest.mark.slow
def test_killed_between_its_steps_it_goes_on_from_what_was_finished(desk: Desk) -> None:
    desk.write_params(["leaf_area"])
    running = desk.start_infer("--predict-only")
    running.wait_for("traits.predict leaf_area succeeded")
    running.wait_for("traits.build.leaf_area")
    kill(desk, running)
    finished = desk.stages()
    assert set(finished) == {"leaf_area/predict"}
    assert all(name.endswith(".part") for name in desk.products())

    ran = desk.invoke_infer("--predict-only")
    assert ran.code == 0
    states = say_states("succeeded", bands="not_asked", predict="reused")
    assert desk.states(ran.run_id)["leaf_area"] == states
    assert desk.stages() == finished
    assert desk.products() == files_of("leaf_area")
    desk.assert_nothing_half_written()
    assert_reconciled(desk, ran.run_id)


@pytest.mark.thorough
def test_killed_at_any_moment_it_goes_on_from_what_was_finished(desk: Desk) -> None:
    desk.write_params(["leaf_area"])

    running = desk.start_infer()
    running.wait_for("submitted inputs")
    kill(desk, running)
    assert not desk.stages()
    assert desk.states(desk.newest_run())["inputs"]["inspect"] in {"waiting", "running"}

    running = desk.start_infer("--max-parallel", "1")
    running.wait_for(" leaf_area succeeded")
    kill(desk, running)
    finished = desk.stages()
    assert finished
    assert not desk.maps.exists()

    running = desk.start_infer()
    running.wait_for("submitted leaf_area to pool local as ")
    running.wait_for("traits.build.leaf_area")
    assert desk.stages().items() >= finished.items(), "finished before, computed again"
    stages = desk.stages()
    wait_until(lambda: any(desk.maps.glob(".leaf_area.tif.*.part")))
    kill(desk, running)
    assert all(name.endswith(".part") for name in desk.products())

    ran = desk.invoke_infer()
    assert ran.code == 0
    assert desk.states(ran.run_id)["leaf_area"] == say_states("succeeded", bands="reused")
    assert desk.stages() == stages
    assert desk.products() == files_of("leaf_area")
    desk.assert_nothing_half_written()

    assert_reconciled(desk, ran.run_id)


def assert_reconciled(desk: Desk, newest: str) -> None:
    """Reconcile, and expect every run but the newest cancelled."""
    left_open = [run["id"] for run in desk.invoke("status", "--json").json()[1:]]
    ends = desk.invoke("reconcile", "--silent-for", "0", "--json")
    assert ends.code == 0
    assert {element["state"] for end in ends.json()["batches"] for element in end["elements"]} <= {
        "cancelled",
        "succeeded",
    }
    for run in left_open:
        assert desk.status(run)["run"]["state"] == "cancelled"
        for steps in desk.states(run).values():
            assert not {"pending", "waiting", "running"} & set(steps.values())
    again = desk.invoke("reconcile", "--silent-for", "0")
    assert again.stdout == "nothing is unattended\n"
    assert desk.states(newest)["leaf_area"]["build"] == "succeeded"


@pytest.mark.thorough
def test_killed_while_it_builds_anew_it_leaves_the_product_that_was_there_whole(
    desk: Desk, mapped: Desk
) -> None:
    desk.write_params(["leaf_area"])
    ran = desk.invoke_infer("--predict-only")
    assert ran.code == 0, ran.stderr
    before = {name: (desk.maps / name).read_bytes() for name in desk.products()}

    running = desk.start_infer()
    running.wait_for("traits.build.leaf_area")
    wait_until(lambda: any(desk.maps.glob(".leaf_area.tif.*.part")))
    kill(desk, running)
    whole = {n: (desk.maps / n).read_bytes() for n in desk.products() if not n.endswith(".part")}
    assert whole == before

    ran = desk.invoke_infer()
    assert ran.code == 0
    assert desk.products() == files_of("leaf_area")
    assert sha256(desk.maps / "leaf_area.tif") == sha256(mapped.maps / "leaf_area.tif")
    desk.assert_nothing_half_written()


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "moment", "inspected"),
    [
        (signal.SIGINT, 130, "submitted leaf_area", True),
        (signal.SIGTERM, 143, "submitted inputs", False),
        pytest.param(signal.SIGINT, 130, "submitted inputs", False, marks=pytest.mark.thorough),
        pytest.param(signal.SIGTERM, 143, "submitted leaf_area", True, marks=pytest.mark.thorough),
    ],
    ids=["ctrl-c", "sigterm", "ctrl-c-early", "sigterm-late"],
)
def test_interrupted_it_stops_and_says_so_in_the_record(
    desk: Desk, number: signal.Signals, code: int, moment: str, *, inspected: bool
) -> None:
    desk.write_params(["leaf_area"])
    # A test run in the background of a shell ignores SIGINT, and so would what it starts.
    running = desk.start_infer(before=["env", "--default-signal=INT"])
    running.wait_for(moment)
    wait_until(desk.runners)
    running.kill(number)
    ran = running.wait(SECONDS_TO_STOP)
    assert ran.code == code
    assert not desk.processes()
    run = desk.newest_run()
    assert desk.status(run)["run"]["state"] == "cancelled"
    found = desk.states(run)
    assert found["inputs"] == {"inspect": "succeeded" if inspected else "cancelled"}
    if inspected:
        # What was quicker than the signal has ended as it ended.
        for step, state in say_states("cancelled").items():
            assert found["leaf_area"][step] in {state, "succeeded"}
    assert found.get("leaf_area", {}).get("build", "cancelled") == "cancelled"
    desk.assert_nothing_half_written()
    assert not desk.maps.exists()
    assert not list(desk.scratch.iterdir())
    assert desk.invoke("reconcile", "--silent-for", "0").stdout == "nothing is unattended\n"


@pytest.mark.thorough
def test_a_reconciler_that_takes_a_living_run_over_ends_it_cleanly(desk: Desk) -> None:
    desk.write_params(["leaf_area"])
    running = desk.start_infer("--predict-only")
    running.wait_for("traits.predict.leaf_area")
    wait_until(desk.runners)
    taken = desk.invoke("reconcile", "--silent-for", "0", "--json")
    ran = running.wait()
    if taken.json()["batches"]:
        assert ran.code == 1
        assert "predict cancelled" in ran.stdout
        assert desk.states(ran.run_id)["leaf_area"]["predict"] == "cancelled"
        assert not desk.stages()
    else:  # it was over before the reconciler had started
        assert ran.code == 0
    desk.assert_quiet()
    desk.assert_nothing_half_written()
