"""``python -m muster.jobs.running.launch PARENT WORD…``: become a launcher that dies with a runner.

A launcher (srun, mpirun) is not ours, so the kernel is asked before it takes this process's place;
its ranks find its process by a variable.
"""

from __future__ import annotations

import os
import sys

from muster.jobs.running.child import die_with_parent
from muster.storage import writer_name

LAUNCHER_VARIABLE = "MUSTER_LAUNCHER"


def main(parent_pid: int, words: list[str]) -> None:
    """Replace this process by a launcher."""
    die_with_parent(parent_pid)
    os.environ[LAUNCHER_VARIABLE] = writer_name()
    os.execvp(words[0], words)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
