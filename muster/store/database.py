"""A few connections to the store: opened late, shared by threads, opened again when they broke.

Everything else in this package is SQL inside ``Database.transaction()``.  psycopg2 is used plainly:
a connection takes 6 ms where Airflow's own hook takes 800.  A process needs one Database, however
many batches it supervises.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from muster.errors import ConfigError, IllegalTransition, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor

log = logging.getLogger(__name__)

URL_VARIABLE = "MUSTER_STORE_URL"
ILLEGAL_TRANSITION = "MU001"

# A server that has gone silent must be noticed, and a client that was stopped in the middle of a
# transaction must not keep a batch's row from whoever takes the batch over.
_TIMEOUTS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_OPTIONS = "-c timezone=UTC -c statement_timeout=120s -c idle_in_transaction_session_timeout=30s"


MOST_CONNECTIONS = 4
"""Of one process: threads beyond that many wait for each other."""


class Database:
    """The store, by a few connections that the threads of this process share.

    Parameters
    ----------
    url : str
        ``postgresql://user:password@host/muster``; SQLAlchemy's ``postgresql+psycopg2://`` is
        understood as well.
    place : str, optional
        What a person knows it by, for messages; by default server and database of the address.

    Notes
    -----
    A transaction that broke because the server went away raises StoreUnavailable, and the next one
    connects again.  Transactions are not nested: each takes a connection of its own.
    """

    def __init__(self, url: str, *, place: str | None = None) -> None:
        self.url = url.replace("postgresql+psycopg2://", "postgresql://", 1)
        self._place = place
        self._idle: list[Connection] = []
        self._room = threading.BoundedSemaphore(MOST_CONNECTIONS)

    @property
    def place(self) -> str:
        """Where the store is, without what is secret in its address."""
        if self._place is not None:
            return self._place
        parts = psycopg2.extensions.parse_dsn(self.url)
        host = parts.get("host", "this machine")
        port = f":{parts['port']}" if "port" in parts else ""
        return f"store {parts.get('dbname', '')} at {host}{port}"

    @classmethod
    def from_environment(cls) -> Database:
        """Open the store that MUSTER_STORE_URL names.

        Raises
        ------
        ConfigError
            When the variable is not set.
        """
        url = os.environ.get(URL_VARIABLE)
        if not url:
            raise ConfigError(
                "no store is configured",
                where=URL_VARIABLE,
                expected="postgresql://user:password@host/muster",
                do="set it, or start the laptop's own with 'make run'",
            )
        return cls(url)

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Yield a cursor in a transaction that is committed at the end, or rolled back.

        Raises
        ------
        StoreUnavailable
            When Postgres does not answer.
        IllegalTransition
            When the database refused to move a record backwards.
        """
        with self._connection() as connection, connection, connection.cursor() as cursor:
            yield cursor

    @contextmanager
    def session(self) -> Iterator[Cursor]:
        """Yield a cursor whose statements are transactions of their own, on a new connection.

        It is none of the few, which nobody may hold while he waits for another.

        Raises
        ------
        StoreUnavailable
            When Postgres does not answer.
        """
        try:
            with contextlib.closing(self._open()) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    yield cursor
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            raise StoreUnavailable(
                "the store does not answer", got=error, do="is Postgres running?"
            ) from error

    def close(self) -> None:
        """Close what is idle; the next transaction connects again."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """Lend a connection; one that broke is closed with all that were opened before it."""
        with self._room:
            connection: Connection | None = None
            try:
                connection = self._connect()
                yield connection
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                self.close()
                if connection is not None:
                    connection.close()
                raise StoreUnavailable(
                    "the store does not answer", got=error, do="is Postgres running?"
                ) from error
            except psycopg2.Error as error:
                if error.pgcode == ILLEGAL_TRANSITION:
                    raise IllegalTransition(
                        "the store refused a step backwards", got=error.diag.message_primary
                    ) from error
                raise
            finally:
                if connection is not None and not connection.closed:
                    self._idle.append(connection)

    def _connect(self) -> Connection:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was quicker
                connection = self._idle.pop()
                if not connection.closed:
                    return connection
        return self._open()

    def _open(self) -> Connection:
        opened: Connection = psycopg2.connect(
            self.url, application_name="muster", options=_OPTIONS, **_TIMEOUTS
        )
        return opened
