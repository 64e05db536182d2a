"""One form for every log line: UTC time with its zone, level, message."""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO


class StderrHandler(logging.StreamHandler[TextIO]):
    """Write each line to what stderr is by then: who redirects it may close it afterwards."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        self.stream = sys.stderr
        super().emit(record)


def make_formatter() -> logging.Formatter:
    """Make what gives every line its form."""
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    return formatter


def configure_logging(level: int = logging.INFO) -> None:
    """Send the log of this process to stderr."""
    handler = StderrHandler()
    handler.setFormatter(make_formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("alembic", "botocore", "boto3", "urllib3", "rasterio", "matplotlib", "numba"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
