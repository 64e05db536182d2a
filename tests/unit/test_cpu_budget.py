"""The budget of CPU seconds: what counts, who may exceed it, and what the summary says."""

from __future__ import annotations

import pytest

CONFTEST = """
import time, pytest
pytest_plugins = ["tests.cpu_budget"]

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

@pytest.fixture(scope="module")
def shared():
    burn(0.4)

@pytest.fixture
def own():
    burn(0.4)

@pytest.fixture
def late():
    yield
    burn(0.4)

@pytest.fixture(scope="module")
def shared_late():
    yield
    burn(0.4)
"""
TESTS = """
import subprocess, sys
import pytest
from conftest import burn

def test_cheap(shared): pass
def test_waits(): __import__("time").sleep(0.4)
def test_burns(): burn(0.4)
def test_fixture(own): pass
def test_late(late): pass
def test_child():
    code = "import time\\nwhile time.process_time() < 0.4: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
@pytest.mark.slow
def test_marked(): burn(0.4)
def test_compiles():
    from numba import njit
    njit(lambda x: x + 1)(1)
def test_last(shared_late): pass
"""


@pytest.mark.slow
def test_a_test_that_exceeds_its_budget_fails(pytester: pytest.Pytester) -> None:
    """In a process that is one of several, as ``make test`` runs them."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(**{"slow/test_budget": TESTS})  # a folder's name is no marker
    pytester.makeini("[pytest]\nmarkers = slow: dear")
    ran = pytester.runpytest_subprocess("--cpu-budget", "0.3", "-n", "1", "-p", "no:cacheprovider")
    ran.assert_outcomes(passed=9, errors=4)
    for name in ("burns", "fixture", "late", "child"):
        ran.stdout.fnmatch_lines([f"*ERROR at teardown of test_{name} *"])
    ran.stdout.fnmatch_lines(
        [
            "CPU budget exceeded: * s of 0.3 s;*",
            "*the 20 dearest of * CPU seconds*",
            "*0.* s  module fixture shared",
        ]
    )
