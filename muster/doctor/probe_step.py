"""What a doctor sends to a pool: does the environment start there, and what does it see."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil

from muster import __version__

if TYPE_CHECKING:
    from pathlib import Path

COMPUTE_PACKAGES = (
    "lightgbm",
    "matplotlib",
    "numba",
    "numpy",
    "pyarrow",
    "pyproj",
    "pystac",
    "rasterio",
    "scipy",
)


def probe_environment(*, report: Path) -> dict[str, Any]:
    """Write down what a job finds where it runs.

    Parameters
    ----------
    report : Path
        JSON file to write.
    """
    facts: dict[str, Any] = {
        "host": platform.node(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "muster": __version__,
        "clock_s": time.time(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mib": psutil.virtual_memory().total // 2**20,
        "free_mib_at_work": shutil.disk_usage(report.parent).free // 2**20,
        "missing_packages": [p for p in COMPUTE_PACKAGES if importlib.util.find_spec(p) is None],
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "gpus": _list_gpus(),
    }
    report.write_text(json.dumps(facts), encoding="utf-8")
    return facts


def _list_gpus() -> list[str]:
    """List the GPUs that the driver's own tool sees, a line each; none where there is no tool."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        asked = subprocess.run(
            [program, "-L"], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return asked.stdout.splitlines() if asked.returncode == 0 else []
