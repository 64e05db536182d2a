"""One rank of a step: ``LAUNCHER … python -m muster.jobs.running.rank TASK``.

All ranks run the step function; rank 0 alone reports, tells of progress and writes outputs.  A
rank that fails leaves a report of its own and ends without MPI's farewell, for which it would have
to wait: so the launcher ends the others.  No rank outlives its launcher or its runner, on whatever
node: the kernel ends it with its parent, and it ends itself as soon as either of them is gone or
its task is taken away.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.errors import SoftwareError
from muster.jobs.running.child import die_with_parent, run_task, write_text
from muster.jobs.running.launch import LAUNCHER_VARIABLE
from muster.log import configure_logging
from muster.model.ranks import Rank, find_rank
from muster.model.step import load_step, runs_on_ranks
from muster.storage import is_writer_alive

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOK_S = 0.5
ECHO_PATIENCE_S = 3.0
"""How long a rank waits that failed because another has: that one should be heard first."""

log = logging.getLogger(__name__)


def report_of(report: Path, number: int) -> Path:
    """Say where a rank reports, beside the report of the step."""
    return report if number == 0 else report.with_name(f"report.{number}.json")


def crash_of(report: Path, number: int) -> Path:
    """Say where a rank that crashes leaves its last words, beside the report of the step."""
    return report.with_name(f"crash.{number}")


def main(task_path: Path) -> int:
    """Run a rank's part of the task at a path and return the exit code."""
    die_with_parent(os.getppid())
    _read_nothing()
    try:
        task = json.loads(task_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        configure_logging()
        log.error("this node does not see the task of its rank: %s", task_path)  # noqa: TRY400
        return os.EX_SOFTWARE
    os.environ.update(task["environment"])  # a launcher may bring none of it to other nodes
    _end_with(task_path, (task["runner"], os.environ.get(LAUNCHER_VARIABLE, "")))
    try:
        rank = _find_rank(task["ntasks"])
    except SoftwareError as error:
        configure_logging()
        log.error("%s", error)  # noqa: TRY400 - one line for people
        return error.exit_code
    configure_logging(logging.INFO if rank.number == 0 else logging.WARNING)
    faulthandler.enable(crash_of(Path(task["report"]), rank.number).open("w"), all_threads=False)
    code, report = _run(task, rank)
    if rank.number == 0 or code:
        said = json.loads(report)
        write_text(report_of(Path(task["report"]), rank.number), json.dumps(_of_rank(said, code)))
        if said.get("is_echo"):
            time.sleep(ECHO_PATIENCE_S)
    return code


def _read_nothing() -> None:
    """Take standard input away: mpirun gives rank 0 a pipe."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.dup2(descriptor, 0)
    os.close(descriptor)


def _find_rank(ntasks: int) -> Rank:
    rank = find_rank(os.environ)
    if rank.count != ntasks:
        raise SoftwareError(
            "the launcher started another number of ranks",
            got=rank.count,
            expected=ntasks,
            do="correct 'launcher' of the pool",
        )
    return rank


def _run(task: dict[str, Any], rank: Rank) -> tuple[int, str]:
    """Run the step; where it knows nothing of ranks the others wait for rank 0."""
    try:
        together = runs_on_ranks(load_step(task["step"]))
    except Exception:  # whatever keeps it from being loaded, rank 0 says it
        together = False
    if together:
        return run_task(task, rank=rank)
    if rank.number == 0:
        return run_task(task)
    report = Path(task["report"])
    while not report.exists():
        time.sleep(LOOK_S)
    return os.EX_OK, "{}"


def _of_rank(said: dict[str, Any], code: int) -> dict[str, Any]:
    return {**said, "exit_code": code} if code else said


def _end_with(order: Path, writers: Sequence[str]) -> None:
    """End this process, from a thread, when nobody wants it any more."""

    def follow() -> None:
        while _is_wanted(order, writers):
            time.sleep(LOOK_S)
        os._exit(os.EX_TEMPFAIL)

    threading.Thread(target=follow, name="muster-rank", daemon=True).start()


def _is_wanted(order: Path, writers: Sequence[str]) -> bool:
    if any(is_writer_alive(writer) is False for writer in writers):
        return False
    try:
        return order.exists()
    except OSError:  # a disk that does not answer is no order
        return True


if __name__ == "__main__":
    ended = main(Path(sys.argv[1]))
    if ended:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended)
    sys.exit(ended)
