"""The DAG files as Airflow parses them, in a process of its own; parsed once for all pins."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.unit.pins.sources import REPOSITORY


@cache
def parse_dags() -> dict[str, Any]:
    """Parse all DAG files; return what describe_dags.py says of each, by the DAG's id."""
    with tempfile.TemporaryDirectory() as home:
        ended = subprocess.run(
            [
                sys.executable,
                str(Path(__file__).parent / "describe_dags.py"),
                *map(str, sorted((REPOSITORY / "dags").glob("*.py"))),
            ],
            cwd=home,
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": f"{REPOSITORY / 'plugins'}:{REPOSITORY}",
                "AIRFLOW_HOME": home,
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr[-3000:]
    described: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return described
