"""Commands over ssh, on a real server: what arrives, what is shared, and what every break says."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from muster.backends.remote.ssh import SshCommands
from muster.backends.slurm.clients import SLURM_CLIENTS
from muster.errors import ConfigError, InvalidInput, Transient
from tests.integration.backends.sshd import Sshd, sshd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from muster.backends.remote.transport import Answer

pytestmark = pytest.mark.slow

__all__ = ["sshd"]

HOSTILE = ["", " ", "a b", "'", '"', "$(id)", "`id`", "\\", "a\nb", "*", "-n", "é€", "!x", "\t;&|"]
PRINT = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]
NOISE = "echo 'Welcome!  Maintenance on Monday.'; echo 'quota: 93 %' >&2; printf 'no line feed'\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without keys and configuration, and no agent."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@contextlib.asynccontextmanager
async def commands(server: Sshd, **settings: object) -> AsyncIterator[SshCommands]:
    quick = {"keepalive_s": 0.5, "back_off_s": 0.1, "connect_s": 10.0}
    timing = {name: settings.pop(name, default) for name, default in quick.items()}
    ssh = SshCommands(server.cluster(**settings), SLURM_CLIENTS, **timing)  # type: ignore[arg-type]
    try:
        yield ssh
    finally:
        await ssh.close()


def on(server: Sshd, scenario: Callable[[SshCommands], Awaitable[object]], **settings: object):
    async def play() -> object:
        async with commands(server, **settings) as ssh:
            return await scenario(ssh)

    return asyncio.run(play())


def call(server: Sshd, *arguments: str, timeout_s: float = 20, **settings: object) -> Answer:
    return on(server, lambda ssh: ssh.call(arguments, timeout_s=timeout_s), **settings)


async def until(condition: Callable[[], object], patience_s: float = 10.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


def is_running(pid_file: Path) -> bool:
    try:
        process = psutil.Process(int(pid_file.read_text()))
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_answer_holds_both_streams_and_the_code(sshd: Sshd):
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    answer = call(sshd, sys.executable, "-c", program)
    assert (answer.exit_code, answer.stdout, answer.stderr) == (3, "out\n", "err\n")


def test_signal_is_told_as_a_shell_does(sshd: Sshd):
    answer = call(sshd, sys.executable, "-c", "import os; os.kill(os.getpid(), 15)")
    assert answer.exit_code == 128 + 15


def test_hostile_arguments_arrive_unchanged(sshd: Sshd):
    assert json.loads(call(sshd, *PRINT, *HOSTILE).stdout) == HOSTILE


def test_long_arguments_and_answers_arrive_whole(sshd: Sshd):
    many = [f"{'x' * 900}{number}" for number in range(1000)]
    assert json.loads(call(sshd, *PRINT, *many).stdout) == many


def test_nul_is_refused(sshd: Sshd):
    with pytest.raises(InvalidInput):
        call(sshd, "true", "a\0b")


def test_input_is_at_its_end(sshd: Sshd):
    program = "import sys; print(repr(sys.stdin.read()))"
    assert call(sshd, sys.executable, "-c", program, timeout_s=10).stdout == "''\n"


def test_noise_of_the_login_shell_is_no_answer(sshd: Sshd):
    (sshd.home / ".bashrc").write_text(NOISE + "trap 'echo bye' EXIT\n")
    seen = subprocess.run(
        [
            *("ssh", "-i", sshd.key, "-p", str(sshd.port), "-o", "BatchMode=yes"),
            *("-o", f"UserKnownHostsFile={sshd.known_hosts}", sshd.host, "true"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Welcome" not in seen.stdout:
        pytest.skip("the account's login shell is not bash")
    answer = call(sshd, *PRINT, *HOSTILE)
    assert json.loads(answer.stdout) == HOSTILE
    assert answer.stderr == ""


def test_variables_of_the_account_do_not_change_slurms_answers(sshd: Sshd):
    sshd.stop()
    sshd.start("SetEnv SBATCH_ACCOUNT=other SQUEUE_FORMAT=%i SLURM_JOB_ID=7 SLURM_CONF=/etc/it")
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    seen = json.loads(call(sshd, sys.executable, "-c", program).stdout)
    assert not {"SBATCH_ACCOUNT", "SQUEUE_FORMAT", "SLURM_JOB_ID"} & set(seen)
    assert seen["SLURM_CONF"] == "/etc/it"
    assert seen["SLURM_TIME_FORMAT"] == "%s"


def test_nothing_of_this_side_goes_along(sshd: Sshd, home: Path, monkeypatch: pytest.MonkeyPatch):
    sshd.stop()
    sshd.start("AcceptEnv *")
    (home / ".ssh" / "config").write_text("Host *\n  SendEnv *\n")
    monkeypatch.setenv("MUSTER_STORE_URL", "postgresql://secret")
    answer = call(sshd, "env")
    assert "secret" not in answer.stdout


def test_absent_program_is_a_wrong_configuration(sshd: Sshd):
    with pytest.raises(ConfigError, match=r"no such program on the login node.*PATH"):
        call(sshd, "muster-no-such-program")


def test_shell_that_runs_nothing_is_told(sshd: Sshd):
    sshd.stop()
    sshd.start("ForceCommand echo This account is not available; exit 1")
    with pytest.raises(Transient, match="This account is not available"):
        call(sshd, "true")


def test_many_calls_share_one_connection(sshd: Sshd):
    async def scenario(ssh: SshCommands) -> list[Answer]:
        calls = (ssh.call(["echo", str(n)], timeout_s=60) for n in range(30))
        answers = await asyncio.gather(*calls)
        await ssh.call(["true"], timeout_s=20)
        assert sshd.count_connections() == 1
        return answers

    answers = on(sshd, scenario)
    assert [answer.stdout for answer in answers] == [f"{n}\n" for n in range(30)]
    assert sshd.count_logins() == 1


def test_too_slow_a_command_is_ended_over_there(sshd: Sshd, tmp_path: Path):
    pid_file = tmp_path / "pid"
    program = (
        f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(99)"
    )

    async def scenario(ssh: SshCommands) -> None:
        started = time.monotonic()
        with pytest.raises(Transient, match="did not end in time"):
            await ssh.call([sys.executable, "-c", program], timeout_s=4)
        assert time.monotonic() - started < 6
        assert (await ssh.call(["echo", "alive"], timeout_s=20)).stdout == "alive\n"
        await until(lambda: not is_running(pid_file))

    on(sshd, scenario)
    assert sshd.count_logins() == 1


def test_cancelled_call_is_ended_over_there(sshd: Sshd, tmp_path: Path):
    pid_file = tmp_path / "pid"
    program = (
        f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(99)"
    )

    async def scenario(ssh: SshCommands) -> None:
        task = asyncio.create_task(ssh.call([sys.executable, "-c", program], timeout_s=60))
        await until(lambda: pid_file.exists() and pid_file.read_text())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not is_running(pid_file))

    on(sshd, scenario)


def test_cut_in_a_call_is_transient_and_the_next_connects_anew(sshd: Sshd, tmp_path: Path):
    begun = tmp_path / "begun"

    async def scenario(ssh: SshCommands) -> None:
        slow = ["sh", "-c", f"echo partial; touch '{begun}'; sleep 5"]
        task = asyncio.create_task(ssh.call(slow, timeout_s=60))
        await until(begun.exists)
        started = time.monotonic()
        sshd.cut()
        with pytest.raises(Transient):
            await task
        assert time.monotonic() - started < 4
        assert (await ssh.call(["echo", "again"], timeout_s=20)).stdout == "again\n"

    on(sshd, scenario)
    assert sshd.count_logins() == 2


def test_cut_while_idle_is_not_noticed_by_the_next_call(sshd: Sshd):
    async def scenario(ssh: SshCommands) -> None:
        for count in range(3):
            assert (await ssh.call(["echo", "here"], timeout_s=20)).stdout == "here\n"
            assert sshd.count_logins() == count + 1
            sshd.cut()
            await until(lambda: sshd.count_connections() == 0)
            await asyncio.sleep(0.1)

    on(sshd, scenario)


def test_server_that_comes_back_is_waited_for(sshd: Sshd):
    async def scenario(ssh: SshCommands) -> None:
        await ssh.call(["true"], timeout_s=20)
        sshd.stop()
        await asyncio.sleep(0.1)
        for _ in range(3):
            with pytest.raises(Transient, match="cannot be reached"):
                await ssh.call(["true"], timeout_s=5)
        sshd.start()
        calls = (ssh.call(["echo", "back"], timeout_s=20) for _ in range(5))
        assert {answer.stdout for answer in await asyncio.gather(*calls)} == {"back\n"}

    on(sshd, scenario)
    assert sshd.count_logins() == 2


def test_server_that_is_away_is_not_asked_all_the_time(sshd: Sshd):
    async def scenario(ssh: SshCommands) -> None:
        sshd.stop()
        with pytest.raises(Transient, match="cannot be reached"):
            await ssh.call(["true"], timeout_s=5)
        started = time.monotonic()
        for _ in range(20):
            with pytest.raises(Transient, match="cannot be reached"):
                await ssh.call(["true"], timeout_s=1)
        assert time.monotonic() - started < 1
        sshd.start()
        with pytest.raises(Transient):
            await ssh.call(["true"], timeout_s=1)

    on(sshd, scenario, back_off_s=20.0)
    assert sshd.count_logins() == 0


def test_hanging_peer_is_noticed(sshd: Sshd):
    async def scenario(ssh: SshCommands) -> None:
        await ssh.call(["true"], timeout_s=20)
        task = asyncio.create_task(ssh.call(["sleep", "50"], timeout_s=60))
        await asyncio.sleep(0.3)
        sshd.pause()
        started = time.monotonic()
        try:
            with pytest.raises(Transient, match="broke"):
                await task
            assert time.monotonic() - started < 5
            with pytest.raises(Transient, match="in time"):
                await ssh.call(["true"], timeout_s=20)
        finally:
            sshd.resume()
        assert (await ssh.call(["echo", "here"], timeout_s=20)).stdout == "here\n"

    on(sshd, scenario, connect_s=2.0)


def test_unknown_host_is_refused_and_what_to_type(sshd: Sshd):
    sshd.known_hosts.write_text("")
    with pytest.raises(ConfigError, match=r"not known.*SHA256:.*ssh -p \d+.*UserKnownHostsFile="):
        call(sshd, "true")
    assert sshd.known_hosts.read_text() == ""
    assert sshd.count_logins() == 0


def test_known_hosts_file_that_is_not_there_trusts_nobody(sshd: Sshd):
    sshd.known_hosts.unlink()
    with pytest.raises(ConfigError, match="not known"):
        call(sshd, "true")


@pytest.mark.parametrize("setting", ["UserKnownHostsFile none", "StrictHostKeyChecking no"])
def test_configuration_cannot_switch_the_check_off(sshd: Sshd, home: Path, setting: str):
    (home / ".ssh" / "config").write_text(f"Host *\n  {setting}\n")
    with pytest.raises(ConfigError, match="not known"):
        call(sshd, "true", known_hosts=None)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_changed_host_key_is_refused_and_what_to_type(sshd: Sshd, kind: str):
    sshd.stop()
    sshd.change_host_key(kind)
    sshd.start()
    with pytest.raises(ConfigError, match=r"another one than before.*ssh-keygen -R '\["):
        call(sshd, "true")
    sshd.trust()
    assert call(sshd, "echo", "known").stdout == "known\n"


def test_known_hosts_are_mended_while_it_runs(sshd: Sshd):
    async def scenario(ssh: SshCommands) -> None:
        sshd.known_hosts.write_text("")
        with pytest.raises(ConfigError):
            await ssh.call(["true"], timeout_s=20)
        sshd.trust()
        await asyncio.sleep(0.3)
        assert (await ssh.call(["echo", "known"], timeout_s=20)).stdout == "known\n"

    on(sshd, scenario)


def test_refused_key_is_temporary_and_tried_slowly(sshd: Sshd, tmp_path: Path):
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)

    async def scenario(ssh: SshCommands) -> None:
        for _ in range(10):
            with pytest.raises(Transient, match=r"refused to let this account in.*try: ssh"):
                await ssh.call(["true"], timeout_s=1)

    on(sshd, scenario, key=str(other), back_off_s=1.0)
    # sshd writes this before it answers; that the connection is closed, at any time later
    assert sshd.log.read_text().count("Failed publickey for") == 1


def test_key_that_is_not_there_is_a_wrong_configuration(sshd: Sshd, tmp_path: Path):
    with pytest.raises(ConfigError, match="nowhere"):
        call(sshd, "true", key=str(tmp_path / "nowhere"))


def test_key_with_a_passphrase_is_never_asked_for(sshd: Sshd, tmp_path: Path):
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked], check=True)
    with pytest.raises(ConfigError, match="ssh-add"):
        call(sshd, "true", key=str(locked))


def test_openssh_configuration_is_respected(sshd: Sshd, home: Path):
    (home / ".ssh" / "config").write_text(
        f"Host login\n  HostName {sshd.host}\n  Port {sshd.port}\n  User {sshd.user}\n"
        f"  IdentityFile {sshd.key}\n  UserKnownHostsFile {sshd.known_hosts}\n"
    )
    nothing = {"port": None, "user": None, "key": None, "known_hosts": None}
    assert call(sshd, "echo", "found", host="login", **nothing).stdout == "found\n"


def test_default_known_hosts_file_is_used(sshd: Sshd, home: Path):
    (home / ".ssh" / "known_hosts").write_text(sshd.known_hosts.read_text())
    assert call(sshd, "echo", "known", known_hosts=None).stdout == "known\n"


def test_name_that_nobody_knows_is_temporary(sshd: Sshd):
    with pytest.raises(Transient, match="cannot be reached"):
        call(sshd, "true", host="nowhere.invalid")


def test_closed_and_asked_again_it_connects_again(sshd: Sshd):
    async def scenario(ssh: SshCommands) -> None:
        for _ in range(2):
            await ssh.call(["true"], timeout_s=20)
            await ssh.close()
            await until(lambda: sshd.count_connections() == 0)

    on(sshd, scenario)
    assert sshd.count_logins() == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_another_event_loop_gets_another_connection(sshd: Sshd):
    ssh = SshCommands(sshd.cluster(), SLURM_CLIENTS)
    for _ in range(2):
        assert asyncio.run(ssh.call(["echo", "here"], timeout_s=20)).stdout == "here\n"
    del ssh
    gc.collect()  # where a socket of the loops that have ended is found open


def test_without_the_library_the_extra_is_named(sshd: Sshd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(ConfigError, match=r"muster\[ssh\]"):
        call(sshd, "true")


def test_modules_load_without_the_library():
    program = (
        "import sys; sys.modules['asyncssh'] = None;"
        "import muster.backends.remote.ssh, muster.backends.remote.ssh_login"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ})
