"""The crash of a process that a test means, which leaves no core to be taken for a real one."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal


def crash(number: signal.Signals) -> None:
    """End this process by a signal."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), number)
