"""Slots of a local pool: file locks, so that no crash can leave one taken.

Every process that runs elements of a pool locks one of the pool's slot files and passes the lock on
to the runner it starts.  The kernel frees it when the last of them is gone, however it went.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from muster.storage import explain_os_error

if TYPE_CHECKING:
    from pathlib import Path


class SlotFolder:
    """The slots of one pool on this machine.

    Parameters
    ----------
    folder : Path
        Shared by everything that uses the pool.
    slots : int
        How many elements run at once.
    """

    def __init__(self, folder: Path, slots: int) -> None:
        self.folder = folder
        self.slots = slots
        self._waiting: int | None = None

    def try_take(self) -> int | None:
        """Take a free slot; the open file that holds it, or None where all are taken.

        The caller closes the descriptor when every process that inherited it may let the slot go.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for number in range(self.slots):
                descriptor = os.open(self.folder / f"slot-{number}", os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    os.close(descriptor)
                    if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                        raise
                else:
                    return descriptor
        except OSError as error:
            raise explain_os_error(error, self.folder) from error
        return None

    def wait_openly(self, *, waiting: bool) -> None:
        """Let those who have slots know that this process waits for one, or that it does no more.

        It is a shared lock, which dies with its process as all locks here do.
        """
        if not waiting and self._waiting is not None:
            os.close(self._waiting)
            self._waiting = None
        elif waiting and self._waiting is None:
            descriptor = self._open_waiting()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:  # somebody looks at this very moment: the next poll asks again
                os.close(descriptor)
            else:
                self._waiting = descriptor

    def others_wait(self) -> bool:
        """Tell whether another process waits for a slot of this pool."""
        own = self._waiting is not None
        self.wait_openly(waiting=False)
        descriptor = self._open_waiting()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
            self.wait_openly(waiting=own)
        return False

    def _open_waiting(self) -> int:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return os.open(self.folder / "waiting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise explain_os_error(error, self.folder) from error
