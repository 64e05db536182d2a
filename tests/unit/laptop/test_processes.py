from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from muster.laptop.environment import MARKER
from muster.laptop.home import make_home
from muster.laptop.processes import (
    Children,
    Record,
    end_processes,
    find_component,
    find_processes,
    read_records,
    write_record,
)

# A component with a child in its session, and a job in a session of its own.
FAMILY = """
import subprocess, sys, time, signal
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
job = subprocess.Popen(
    [sys.executable, "-c", "import signal as s, time; s.signal(15, s.SIG_IGN); time.sleep(600)"],
    start_new_session=True,
)
print(child.pid, job.pid, flush=True)
{on_term}
time.sleep(600)
"""


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path / "home")


@pytest.fixture
def children(home):
    children = Children()
    yield children
    end_processes(home, children, patience_s=0.1)


def start_family(home, children, on_term="") -> list[psutil.Process]:
    log = home.log("family")
    process = children.start(
        [sys.executable, "-c", FAMILY.format(on_term=on_term)],
        {**os.environ, MARKER: str(home.folder)},
        home.folder,
        log,
    )
    parent = psutil.Process(process.pid)
    write_record(home, Record("family", process.pid, parent.create_time(), {}))
    deadline = time.monotonic() + 20
    while not log.read_text().endswith("\n"):  # it may be written word by word
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [parent, *(psutil.Process(int(pid)) for pid in log.read_text().split())]


def runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_whole_family_is_found_and_ended(home, children):
    family = start_family(home, children)
    assert {process.pid for process in find_processes(home)} == {process.pid for process in family}
    assert end_processes(home, children) == []
    assert not any(runs(process) for process in family)
    assert read_records(home) == {}


def test_orphans_of_a_killed_component_are_ended(home, children):
    parent, *orphans = start_family(home, children)
    os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while runs(parent) and time.monotonic() < deadline:
        time.sleep(0.02)
    children.collect()
    assert find_component(home, read_records(home)["family"]) is None
    assert {process.pid for process in find_processes(home)} == {p.pid for p in orphans}
    assert end_processes(home, children) == []
    assert not any(runs(process) for process in orphans)


def test_only_components_are_asked_to_end(home, children):
    """A job that saw TERM would take it for a cancellation."""
    mark = home.folder / "asked"
    ask = f"signal.signal(15, lambda *_: (open({str(mark)!r}, 'w').close(), sys.exit()))"
    start_family(home, children, ask)
    assert end_processes(home, children) == []
    assert mark.exists()


def test_component_that_ignores_the_request_is_killed(home, children):
    family = start_family(home, children, "signal.signal(15, signal.SIG_IGN)")
    assert end_processes(home, children, patience_s=0.3) == []
    assert not any(runs(process) for process in family)


def test_other_homes_and_own_ancestors_are_spared(home, children, tmp_path):
    family = start_family(home, children)
    other = make_home(tmp_path / "other")
    assert find_processes(other) == []
    assert end_processes(other, Children()) == []
    assert all(runs(process) for process in family)
    # The same search from inside a marked process leaves that process and its parents out.
    script = (
        "import sys; from pathlib import Path; from muster.laptop.home import Home\n"
        "from muster.laptop.processes import find_processes\n"
        "print(len(find_processes(Home(Path(sys.argv[1])))))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, str(other.folder)],
        env={**os.environ, MARKER: str(other.folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "0\n"


def test_recycled_process_id_is_not_the_component(home, children):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        created = psutil.Process(stranger.pid).create_time()
        record = Record("scheduler", stranger.pid, created - 1000, {})
        write_record(home, record)
        assert find_component(home, record) is None
        assert find_processes(home) == []
        assert end_processes(home, children) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_clock_that_was_set_does_not_lose_the_component(home, children):
    parent, *_ = start_family(home, children)
    moved = Record("family", parent.pid, parent.create_time() - 3600, {})
    assert find_component(home, moved) == parent


def test_garbled_record_is_no_record(home):
    (home.processes / "scheduler.json").write_text("{")
    (home.processes / "triggerer.json").write_text('{"pid": 1}')
    assert read_records(home) == {}
