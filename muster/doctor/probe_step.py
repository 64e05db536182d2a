"""What a doctor sends to a pool: does the environment start there, and what does it see."""

from __future__ import annotations

import glob
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
from muster.errors import MusterError
from muster.model.environment import STORE_VARIABLE

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
        "devices": _list_devices(),
        "user": os.getuid(),
        "store": _look_at_store(),
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


def _list_devices() -> list[str]:
    """List what hands GPUs to a container: device files, and the variable of NVIDIA's runtime."""
    named = os.environ.get("NVIDIA_VISIBLE_DEVICES", "")
    given = [] if named in ("", "void", "none") else [f"NVIDIA_VISIBLE_DEVICES={named}"]
    return [*sorted(glob.glob("/dev/nvidia[0-9]*")), *given]


def _look_at_store() -> dict[str, Any] | None:
    """Look at the store, where the job was told its URL: its version, or why it cannot be read."""
    url = os.environ.get(STORE_VARIABLE)
    if url is None:
        return None
    from muster.store.schema import read_versions

    try:
        found, expected = read_versions(url)
    except MusterError as error:
        return {"problem": str(error)}
    return {"found": found, "expected": expected}
