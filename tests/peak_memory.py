"""How much memory a piece of code takes at most, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

_TELL = """
import re
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10)
"""


def peak_memory_mib(code: str) -> int:
    """Run Python code and return the peak of its resident memory, in MiB.

    Not ru_maxrss: that remembers what the process was forked from.
    """
    done = subprocess.run(
        [sys.executable, "-c", code + _TELL], check=True, capture_output=True, text=True
    )
    return int(done.stdout.split()[-1])
