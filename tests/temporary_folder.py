"""A temporary folder of each test run's own, which no other run touches, with a short path.

pytest's own, /tmp/pytest-of-USER, is shared by all runs of a user, and each run that starts closes
it to other users.  As root, Postgres is another user: the servers of a run that is under way lose
their files, and end.  Slurm's sockets allow 71 characters for the folder of a cluster, of which
pytest's takes more the longer the user's name is.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

_made = pytest.StashKey[Path]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Make the folder, in the process that starts the others, before pytest reads the option."""
    if config.option.basetemp is None:
        config.stash[_made] = Path(tempfile.mkdtemp(prefix="muster-tests-"))
        config.option.basetemp = str(config.stash[_made] / "t")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remove the folder of a run in which nothing failed."""
    made = session.config.stash.get(_made, None)
    if made is not None and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        shutil.rmtree(made, ignore_errors=True)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say where the files of a failed run are."""
    made = config.stash.get(_made, None)
    if made is not None and terminalreporter.stats.keys() & {"failed", "error"}:
        terminalreporter.write_line(f"files of the tests: {made}")
