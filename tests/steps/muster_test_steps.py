"""Steps that do what a test asks of them; found through their entry points, as any package's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from muster_test_crash import crash

from muster.errors import InvalidInput, MissingInput, Transient

if TYPE_CHECKING:
    from muster.model.step import StepContext

ERRORS = {"invalid": InvalidInput, "missing": MissingInput, "transient": Transient}


def write(*, text: str, out: Path, ledger: str = "", seconds: float = 0.0) -> dict[str, int]:
    """Write a text after a while, and leave a line in the ledger when the work is done."""
    time.sleep(seconds)
    out.write_text(text)
    _note(ledger, f"done {text}")
    return {"characters": len(text)}


def misbehave(*, how: str, out: Path, ledger: str, times: int = 1_000) -> None:
    """Go wrong in one way so many times, then do well."""
    _note(ledger, how)
    if Path(ledger).read_text().count(f"{how}\n") > times:
        out.write_text("well in the end")
        return
    out.write_text("half")
    if how in ERRORS:
        raise ERRORS[how](f"planted {how}", where="here")
    if how == "raise":
        raise ValueError("planted")
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "crash":
        crash(signal.SIGSEGV)
    if how == "slow":
        time.sleep(1.5)
    if how == "sleep":
        time.sleep(600)
    if how == "eat":
        hoard = []
        for _ in range(4_000):
            hoard.append(b"x" * 2**20)
            time.sleep(0.005)
    if how == "silent":
        out.unlink()
        return
    print("done", file=sys.stderr)


def report(
    *, fractions: list[float], gates: str, out: Path, context: StepContext, seconds: float = 0.0
) -> None:
    """Report each fraction, and wait at a gate behind it until the test opens that."""
    time.sleep(seconds)
    for number, fraction in enumerate(fractions, start=1):
        context.progress(fraction, f"window {number} of {len(fractions)}")
        while not Path(f"{gates}{number}").exists():
            time.sleep(0.02)
    out.write_text("reported")


def talk(*, lines: int, name: str, out: Path, gate: str = "", width: int = 0) -> None:
    """Say numbered lines on standard output and standard error in turn; wait halfway at a gate."""
    for number in range(lines):
        while gate and number == lines // 2 and not Path(gate).exists():
            time.sleep(0.05)
        stream = sys.stderr if number % 2 else sys.stdout
        print(f"{name} says {number}".ljust(width, "."), file=stream, flush=True)
    out.write_text("said")


def perform(
    *, name: str, acts: list[str], ledger: str, out: Path, seconds: float = 0.0
) -> dict[str, str]:
    """Do what is asked of this attempt, and leave a line when it begins and when it is done.

    ``acts`` says what each attempt does, the last one what all further ones do.
    """
    attempt = int(os.environ["MUSTER_ATTEMPT"])
    node = os.environ.get("SLURMD_NODENAME", "-")
    _note(ledger, f"begin {name} {attempt} {node}")
    how = acts[min(attempt, len(acts)) - 1]
    print(f"{name} begins attempt {attempt}", file=sys.stderr)
    if how in ERRORS:
        raise ERRORS[how](f"planted {how}", where=name)
    if how == "raise":
        raise ValueError("planted")
    if how == "crash":
        crash(signal.SIGSEGV)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "eat":
        hoard = [b"x" * 2**20 for _ in range(300)]
        time.sleep(60 + len(hoard))
    if how == "gulp":  # quicker than anybody who measures now and then
        hoard = [b"x" * 2**28 for _ in range(6)]
    if how == "sleep":
        time.sleep(600)
    if how == "talk":
        for number in range(20):
            print(f"{name} says {number:02d} {'é' * 40}", file=sys.stderr, flush=True)
            time.sleep(0.3)
    time.sleep(seconds)
    out.write_text(os.environ["HOSTILE"] if how == "echo" else name)
    _note(ledger, f"done {name} {attempt} {node}")
    return {"node": node}


def _note(ledger: str, line: str) -> None:
    if ledger:
        with Path(ledger).open("a") as file:
            file.write(line + "\n")


_HOARD: list[bytes] = []


def stay(
    *, acts: list[str], out: Path, gate: str = "", mib: int = 0, seconds: float = 0.0
) -> dict[str, object]:
    """Say which process runs this element and what it finds around it, then do each act."""
    found = {
        "pid": os.getpid(),
        "cwd": os.getcwd(),
        "variable": os.environ.get("MUSTER_TEST_LEFT"),
        "index": os.environ["MUSTER_INDEX"],
        "attempt": os.environ["MUSTER_ATTEMPT"],
        "stdin": os.readlink("/proc/self/fd/0"),
        "umask": os.umask(0o022),
    }
    os.umask(int(str(found["umask"])))
    print(f"element {found['index']} says {out.name.split('.')[1]}", flush=True)
    if gate:
        while not Path(gate).exists():
            time.sleep(0.01)
    for how in acts:
        _act(how, mib)
    time.sleep(seconds)
    out.write_text(str(found["index"]))
    return found


def _act(how: str, mib: int) -> None:
    if how == "leave":  # what another element must not find
        os.environ["MUSTER_TEST_LEFT"] = "left"
        os.chdir("/")
        os.umask(0o777)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.stdout = sys.stderr
    elif how == "fork":
        subprocess.Popen(["sleep", "600"])
    elif how == "keep":
        _HOARD.append(b"x" * (mib << 20))
    elif how == "use":
        used = b"x" * (mib << 20)
        time.sleep(0.01 * bool(used))
    elif how == "crash":
        crash(signal.SIGSEGV)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        sys.exit(0)
    elif how == "answer":  # by whatever socket there is: the runner's
        for number in range(3, 32):
            try:
                os.write(number, b'{"id": 2, "code": 0, "report": "[]"}\n')
            except OSError:
                continue
    elif how == "sleep":
        time.sleep(600)
    elif how == "memory":
        raise MemoryError
    elif how in ERRORS:
        raise ERRORS[how]("planted", where="here")
    elif how == "facts":
        raise TypeError("planted")


def stay_alone(*, acts: list[str], out: Path) -> dict[str, object]:
    """As stay, in a process of its own each time."""
    return stay(acts=acts, out=out)


stay_alone.own_process = True  # type: ignore[attr-defined]


def share(*, acts: list[str], out: Path, pids: str, context: StepContext) -> dict[str, object]:
    """Act on ranks: ``RANK:HOW`` does it on that rank, while the others wait for it.

    Each rank leaves its pid in a file of the folder ``pids``; rank 0 writes all numbers of ranks.
    """
    folder = Path(pids)
    folder.mkdir(parents=True, exist_ok=True)
    noted = folder / f".{context.rank}"
    noted.write_text(f"{os.getpid()} {os.readlink('/proc/self/fd/0')}")
    noted.rename(folder / str(context.rank))
    while len([p for p in folder.iterdir() if p.name.isdigit()]) < context.ranks:
        time.sleep(0.01)
    context.progress(0.5, f"rank {context.rank}")
    mine = [act.partition(":")[2] for act in acts if act.startswith(f"{context.rank}:")]
    for how in mine:
        _act(how, 300)
    if acts and not mine:
        time.sleep(600)
    if context.rank == 0:
        out.write_text(" ".join(sorted(p.name for p in folder.iterdir())))
    return {"rank": context.rank, "ranks": context.ranks, "index": os.environ["MUSTER_INDEX"]}


share.on_ranks = True  # type: ignore[attr-defined]


def nothing(*, out: Path) -> None:
    """Do as little as a step can."""
    out.touch()
