"""Commands on this machine: what they get, what they say, and that none is left behind."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from muster.backends.remote.local_commands import LocalCommands, client_environment
from muster.backends.slurm.clients import SLURM_CLIENTS
from muster.errors import ConfigError, InvalidInput, Transient

if TYPE_CHECKING:
    from pathlib import Path

    from muster.backends.remote.transport import Answer

HOSTILE = ["", " ", "a b", "'", '"', "$(id)", "`id`", "\\", "a\nb", "*", "-n", "é€", "!x", "\t;&|"]


def call(*arguments: str, timeout_s: float = 20, environment: dict[str, str] | None = None):
    async def ask() -> Answer:
        return await LocalCommands(SLURM_CLIENTS, environment).call(arguments, timeout_s=timeout_s)

    return asyncio.run(ask())


def python(program: str, *arguments: str, **options):
    return call(sys.executable, "-c", program, *arguments, **options)


def wait_until_dead(pid: int) -> None:
    for _ in range(100):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} still runs")


def test_answer_holds_both_streams_and_the_code():
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    answer = python(program)
    assert (answer.exit_code, answer.stdout, answer.stderr) == (3, "out\n", "err\n")


def test_signal_is_told_as_a_shell_does():
    assert python("import os; os.kill(os.getpid(), 15)").exit_code == 128 + 15


def test_wrong_bytes_are_replaced():
    assert python(r"import sys; sys.stdout.buffer.write(b'a\xffb')").stdout == "a\ufffdb"


def test_arguments_arrive_unchanged():
    answer = python("import json, sys; print(json.dumps(sys.argv[1:]))", *HOSTILE)
    assert json.loads(answer.stdout) == HOSTILE


def test_input_is_at_its_end():
    assert python("import sys; print(repr(sys.stdin.read()))", timeout_s=5).stdout == "''\n"


def test_environment_holds_what_slurm_needs_and_no_more(monkeypatch):
    unwanted = [
        "MUSTER_STORE_URL",
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW_HOME",
        "AWS_SECRET_ACCESS_KEY",
        "SBATCH_ACCOUNT",
        "SQUEUE_FORMAT",
        "SCANCEL_USER",
        "SACCT_FORMAT",
        "SLURM_JOB_ID",
        "SLURM_CLUSTERS",
        "SLURM_CONF_X",
        "PGPASSWORD",
        "PYTHONPATH",
        "XPATH",
    ]
    for name in unwanted:
        monkeypatch.setenv(name, "hostile")
    monkeypatch.setenv("SLURM_CONF", "/etc/one.conf")
    monkeypatch.setenv("KRB5CCNAME", "/tmp/ticket")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    seen = json.loads(python(program, environment={"SLURM_CONF": "/etc/other.conf"}).stdout)
    assert not set(unwanted) & set(seen)
    assert seen["SLURM_CONF"] == "/etc/other.conf"
    assert seen["KRB5CCNAME"] == "/tmp/ticket"
    assert seen["LC_ALL"] == "C.UTF-8"
    assert seen["HOME"] == "/home/somebody"
    assert seen["SLURM_TIME_FORMAT"] == "%s"
    assert seen["PATH"]


def test_path_is_never_missing():
    assert client_environment({}, SLURM_CLIENTS)["PATH"]


def test_absent_program_is_named_and_what_to_do():
    with pytest.raises(ConfigError, match=r"muster-no-such.*install Slurm's clients"):
        call("muster-no-such-program", "--version")


def test_file_that_is_no_program_is_a_wrong_configuration(tmp_path: Path):
    (tmp_path / "sbatch").write_text("no program")
    with pytest.raises(ConfigError, match="sbatch"):
        call(str(tmp_path / "sbatch"))


@pytest.mark.parametrize("arguments", [[], [""], ["true", "a\0b"]])
def test_what_no_program_can_get_is_refused(arguments: list[str]):
    with pytest.raises(InvalidInput):
        call(*arguments)


def test_arguments_that_are_too_long_are_refused():
    with pytest.raises(InvalidInput, match="too long"):
        call("true", "x" * 200_000)


def test_long_answers_arrive_whole():
    assert len(python("print('x' * 5_000_000)").stdout) == 5_000_001


FAMILY = """
import subprocess, sys, pathlib, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1] + ".new").write_text(str(child.pid))
pathlib.Path(sys.argv[1] + ".new").rename(sys.argv[1])
time.sleep(600)
"""


def test_too_slow_a_command_is_killed_with_its_children(tmp_path: Path):
    pids = tmp_path / "pids"
    started = time.monotonic()
    with pytest.raises(Transient, match="did not end in time"):
        python(FAMILY, str(pids), timeout_s=2)
    assert time.monotonic() - started < 8
    wait_until_dead(int(pids.read_text()))


def test_child_that_holds_the_pipes_open_is_no_reason_to_wait(tmp_path: Path):
    pids = tmp_path / "pids"
    program = """
import subprocess, sys, pathlib
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
"""
    started = time.monotonic()
    with pytest.raises(Transient):
        python(program, str(pids), timeout_s=1)
    assert time.monotonic() - started < 8
    psutil.Process(int(pids.read_text())).kill()


def test_cancelled_task_leaves_no_process(tmp_path: Path):
    pids = tmp_path / "pids"
    before = set(psutil.Process().children())

    async def cancel_it() -> None:
        arguments = [sys.executable, "-c", FAMILY, str(pids)]
        task = asyncio.create_task(LocalCommands(SLURM_CLIENTS).call(arguments, timeout_s=60))
        while not pids.exists():
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_it())
    wait_until_dead(int(pids.read_text()))
    assert set(psutil.Process().children()) <= before


def test_calls_run_beside_each_other():
    async def many() -> list[Answer]:
        commands = LocalCommands(SLURM_CLIENTS)
        sleep = [sys.executable, "-S", "-c", "import time; time.sleep(1)"]
        return await asyncio.gather(*(commands.call(sleep, timeout_s=20) for _ in range(8)))

    started = time.monotonic()
    assert [answer.exit_code for answer in asyncio.run(many())] == [0] * 8
    assert time.monotonic() - started < 5
