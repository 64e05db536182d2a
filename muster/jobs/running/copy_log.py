"""A log that is written on this machine and wanted elsewhere, copied as it grows.

An object cannot be appended to: where the work directory is S3 the log is written here, and
uploaded as a whole now and then, before each result and at the end.  In a pod its lines go to the
container's output too, where ``kubectl logs`` finds them.  Nothing here can fail an element or hold
it up.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from muster import storage
from muster.errors import MusterError

if TYPE_CHECKING:
    from pathlib import Path

UPLOAD_INTERVAL_S = 15.0
ECHO_INTERVAL_S = 1.0
LARGEST_COPY = 64 << 20
"""The most bytes of a log that are uploaded, its first ones."""
SLOW_BYTES = 4 << 20
"""A longer log is uploaded the less often the longer it is."""
CHUNK_BYTES = 1 << 20
LAST_COPY_S = 30.0

log = logging.getLogger(__name__)


class LogCopier:
    """Copies a log until it is closed.

    Parameters
    ----------
    path : Path
        The log, which others append to.
    uri : str or None
        The object that it is uploaded to.
    echo : int or None
        Descriptor that its bytes go to, too.
    every_s : float
        How often it is uploaded at most, in seconds.
    """

    def __init__(
        self,
        path: Path,
        uri: str | None,
        echo: int | None = None,
        *,
        every_s: float = UPLOAD_INTERVAL_S,
    ) -> None:
        self._path = path
        self._uri = uri
        self._echo = echo
        self._every_s = every_s
        self._echoed = 0
        self._uploaded = 0
        self._warned = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="muster-log", daemon=True)
        self._thread.start()

    def copy(self) -> None:
        """Copy what is new, now."""
        with self._lock:
            self._echo_new()
            self._upload()

    def close(self) -> None:
        """Copy what is left and end; a network that hangs is not waited for without end."""
        self._ended.set()
        self._thread.join(LAST_COPY_S)

    def _follow(self) -> None:
        waited_s = 0.0
        while not self._ended.wait(min(ECHO_INTERVAL_S, self._every_s)):
            waited_s += min(ECHO_INTERVAL_S, self._every_s)
            with self._lock:
                self._echo_new()
                if waited_s >= self._every_s * max(1.0, self._uploaded / SLOW_BYTES):
                    self._upload()
                    waited_s = 0.0
        self.copy()

    def _echo_new(self) -> None:
        if self._echo is None:
            return
        try:
            with self._path.open("rb") as file:
                file.seek(self._echoed)
                while chunk := file.read(CHUNK_BYTES):
                    self._echoed += os.write(self._echo, chunk)
                    file.seek(self._echoed)
        except OSError as error:
            self._warn(error)

    def _upload(self) -> None:
        if self._uri is None:
            return
        try:
            size = min(self._path.stat().st_size, LARGEST_COPY)
            if size == self._uploaded:
                return
            with self._path.open("rb") as file:
                storage.write_bytes(self._uri, file.read(size))
            self._uploaded = size
        except (MusterError, OSError) as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            log.warning("a log is not copied: %s", error)
        self._warned = True
