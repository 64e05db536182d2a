"""Advisory locks of the store: one process at a time, and never one that died.

A lock is held on a connection of its own, which is in no transaction, so that no time limit on idle
ones ends it.  The lock goes with that connection, whatever becomes of the process.
"""

from __future__ import annotations

import contextlib
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg2.extensions import cursor as Cursor

    from muster.errors import Transient
    from muster.store.database import Database

_POLL_S = 0.25

# The server must notice that a machine is gone within a minute, not within the two hours that TCP
# takes: until then that machine holds its locks.
NOTICE_DEATH = (
    "SET {} tcp_keepalives_idle = 20; SET {} tcp_keepalives_interval = 10;"
    " SET {} tcp_keepalives_count = 3; "
)


@dataclass(frozen=True)
class HeldLock:
    """A lock that this process holds.

    Attributes
    ----------
    waited : bool
        Whether another process had it first.
    """

    waited: bool
    _cursor: Cursor

    def check(self) -> None:
        """Check that the lock is still held, before what only its holder may do.

        Raises
        ------
        StoreUnavailable
            When its connection broke, and the lock is another process's to take.
        """
        self._cursor.execute("SELECT 1")


@contextmanager
def hold_lock(
    db: Database,
    name: str,
    wait_s: float,
    *,
    log_wait: Callable[[], None],
    refuse: Callable[[], Transient],
) -> Iterator[HeldLock]:
    """Hold a lock of the store; wait for it while another process has it.

    Parameters
    ----------
    name : str
        Name of the lock.
    wait_s : float
        How long to wait, in seconds.
    log_wait : callable
        Called once, when the wait begins.
    refuse : callable
        Makes the error to raise when the wait is over.

    Yields
    ------
    HeldLock
        The lock.

    Raises
    ------
    Transient
        When another process still has it after ``wait_s`` seconds.
    StoreUnavailable
        When Postgres does not answer.
    """
    began = time.monotonic()
    waited = False
    with db.session() as cursor:
        cursor.execute(NOTICE_DEATH.replace("{}", "SESSION") + "SET idle_session_timeout = 0")
        while not try_lock(cursor, name):
            if time.monotonic() - began >= wait_s:
                raise refuse()
            if not waited:
                log_wait()
            waited = True
            time.sleep(min(_POLL_S, wait_s))
        try:
            yield HeldLock(waited, cursor)
        finally:
            with contextlib.suppress(psycopg2.Error):  # a lost connection has lost its lock
                unlock(cursor, name)


def try_lock(cursor: Cursor, name: str) -> bool:
    """Take a lock if it is free, for as long as the connection lasts; say whether it was."""
    cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (name,))
    return bool((cursor.fetchone() or (False,))[0])


def unlock(cursor: Cursor, name: str) -> None:
    """Let go of a lock."""
    cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))
