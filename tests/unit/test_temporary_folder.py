"""The folder of a test run's own: short whoever runs it, kept only where something failed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = """
from pathlib import Path

def test_says_its_folder(tmp_path_factory):
    Path("folder").write_text(str(tmp_path_factory.mktemp("live")))

def test_may_fail():
    assert not Path("fail").exists()
"""


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_has_a_short_folder_of_its_own(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """In a process that is one of several; pytest's own path holds the user's name."""
    pytester.makeconftest('pytest_plugins = ["tests.temporary_folder"]')
    pytester.makepyfile(TESTS)
    if fails:
        (pytester.path / "fail").touch()
    elsewhere = pytester.mkdir("elsewhere")
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setenv("LOGNAME", "somebody-with-a-name-as-long-as-this")
    result = pytester.run(sys.executable, "-m", "pytest", "-n", "1")
    result.assert_outcomes(passed=1 if fails else 2, failed=int(fails))
    folder = Path((pytester.path / "folder").read_text())
    made = elsewhere / folder.relative_to(elsewhere).parts[0]
    assert len(str(folder.relative_to(elsewhere))) <= 50
    assert made.name.startswith("muster-tests-")
    assert made.exists() == fails
    assert (f"files of the tests: {made}" in result.stdout.str()) == fails
