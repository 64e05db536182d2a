"""A command in this process ends as one in a process of its own, and leaves nothing behind here."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import click
import pytest

from muster.cli import COMMANDS
from tests.system.desk import Desk, assert_says_once

if TYPE_CHECKING:
    from collections.abc import Iterator

DEAD_STORE = "postgresql://nobody@127.0.0.1:1/none"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk whose store does not answer."""
    folder = tmp_path_factory.mktemp("invoked")
    made = Desk(folder / "at", DEAD_STORE, folder)
    made.write_params(["a/b"])
    return made


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--version"], 0, ""),
        (["status", "--jsno"], 64, "No such option '--jsno'"),
        (["traits", "infer", "--params", "params.yaml"], 65, "'a/b' is not safe in a path"),
        (["traits", "infer", "--params", "absent.yaml"], 66, "no such file"),
        (["status"], 75, "the store does not answer"),
    ],
)
def test_a_process_ends_as_the_call_does(
    desk: Desk, arguments: list[str], code: int, part: str
) -> None:
    ran = desk.muster(*arguments)
    assert ran.code == code, ran.stderr
    assert part in ran.stderr
    assert desk.invoke(*arguments) == ran


@click.command()
@click.option("--how", default="")
@click.option("--verbose", is_flag=True)
def disturb(how: str, *, verbose: bool) -> int:
    """Change what belongs to the whole process, and end in one of several ways."""
    del verbose  # of its own, as status of a campaign has one
    os.chdir("/")
    os.environ["MUSTER_STORE_URL"] = "changed"
    os.environ["MUSTER_NEW"] = "new"
    del os.environ["PATH"]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.getLogger("muster").setLevel(logging.ERROR)
    logging.getLogger("muster.new_here").setLevel(logging.ERROR)
    logging.getLogger("muster.new_here").error("logged")
    tempfile.gettempdir()
    sys.argv.append("more")
    os.write(1, b"from C\n")
    print("from Python")
    if how == "raise":
        raise RuntimeError("on\ntwo lines")
    if how == "exit":
        sys.exit(143)
    return 256 + 7


@pytest.fixture
def disturbing() -> Iterator[None]:
    with mock.patch.dict(COMMANDS, disturb=f"{__name__}:disturb"):
        yield


def process_state() -> list[Any]:
    root = logging.getLogger()
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return [
        Path.cwd(),
        dict(os.environ),
        {number: signal.getsignal(number) for number in signal.valid_signals()},
        (root.level, [id(handler) for handler in root.handlers]),
        [logging.getLogger(name).level for name in ("muster", "muster.new_here", "botocore")],
        (tempfile.tempdir, sys.argv[:], [id(stream) for stream in streams]),
        [os.fstat(number).st_ino for number in range(3)],
        len(os.listdir("/proc/self/fd")),
    ]


@pytest.mark.parametrize(("how", "code"), [("", 7), ("raise", 70), ("exit", 143)])
@pytest.mark.usefixtures("disturbing")
def test_what_a_command_changes_in_this_process_is_put_back(
    desk: Desk, how: str, code: int
) -> None:
    before = process_state()
    ran = desk.invoke("disturb", "--how", how)
    assert process_state() == before
    assert ran.code == code
    assert sorted(ran.stdout.splitlines()) == ["from C", "from Python"]
    assert re.search(r"^\S+Z ERROR logged$", ran.stderr, re.MULTILINE)


@pytest.mark.usefixtures("disturbing")
def test_an_unexpected_error_is_one_line_and_no_traceback(desk: Desk) -> None:
    ran = desk.invoke("disturb", "--how", "raise")
    assert ran.code == 70
    assert_says_once(ran, "muster: RuntimeError: on two lines", "do: run 'muster --verbose …'")
    with pytest.raises(RuntimeError, match="two lines"):
        desk.invoke("--verbose", "disturb", "--how", "raise")


@pytest.mark.usefixtures("disturbing")
def test_an_option_of_a_command_changes_not_how_errors_are_shown(desk: Desk) -> None:
    ran = desk.invoke("disturb", "--how", "raise", "--verbose")
    assert ran.code == 70
    assert_says_once(ran, "muster: RuntimeError: on two lines")
