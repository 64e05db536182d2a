"""Postgres's binary COPY: a header, then for each row its fields with their lengths, then an end.

Nothing is quoted, parsed or rounded on the way, and a NumPy structure with big-endian fields is
such rows already.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg2
from psycopg2 import sql

from muster.errors import SoftwareError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from psycopg2.extensions import cursor as Cursor

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END = struct.pack(">h", -1)


def copy_in(cursor: Cursor, table: sql.Composable, pieces: Iterable[bytes]) -> None:
    """Bring rows into a table.

    Parameters
    ----------
    table : psycopg2.sql.Composable
        The table, with its columns in brackets where not all are given.
    pieces : iterable of bytes
        Rows one after another, cut anywhere; taken one by one, so that they need not all be in
        memory.
    """
    statement = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(table)
    stream: Any = _Stream(pieces)
    try:
        cursor.copy_expert(statement, stream)
    except psycopg2.Error:
        # psycopg2 tells of what failed on our side as if the server had cancelled the query.
        if stream.failure is not None:
            raise stream.failure from None
        raise


def copy_out(cursor: Cursor, query: sql.Composable) -> memoryview:
    """Fetch the rows of a query, as binary COPY has them, without header and end.

    Raises
    ------
    SoftwareError
        When the server answers in another format than was asked for.
    """
    buffer = io.BytesIO()
    cursor.copy_expert(sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query), buffer)
    found = buffer.getbuffer()
    if found[: len(_HEADER)] != _HEADER or found[-len(_END) :] != _END:
        raise SoftwareError("Postgres sent a binary COPY that is not understood")
    return found[len(_HEADER) : -len(_END)]


def row_dtype(fields: Sequence[tuple[str, str]]) -> np.dtype[Any]:
    """Make the NumPy structure of a row of fields of fixed size, none of them null.

    Parameters
    ----------
    fields : sequence of (str, str)
        Names and NumPy types: "i2", "i4", "i8", "f4" or "f8".

    Returns
    -------
    numpy.dtype
        Each field ``name`` is preceded by its length, ``name_bytes``; the row by ``fields``.
    """
    members: list[tuple[str, str]] = [("fields", ">i2")]
    for name, kind in fields:
        members += [(f"{name}_bytes", ">i4"), (name, f">{kind}")]
    return np.dtype(members)


def empty_rows(dtype: np.dtype[Any], count: int) -> np.ndarray[Any, Any]:
    """Make rows whose numbers and lengths of fields are set.

    Returns
    -------
    ndarray of ``dtype``, (row,)
        The fields themselves are still to be set.
    """
    rows = np.empty(count, dtype)
    names = [name for name in dtype.names or () if name.endswith("_bytes")]
    rows["fields"] = len(names)
    for name in names:
        rows[name] = dtype[name.removesuffix("_bytes")].itemsize
    return rows


class _Stream:
    """What psycopg2 reads from: pieces as they come, whatever size it asks for."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = self._all(pieces)
        self.failure: Exception | None = None

    def read(self, _size: int = -1) -> bytes:
        try:
            return next(self._pieces, b"")
        except Exception as error:
            self.failure = error
            raise

    @staticmethod
    def _all(pieces: Iterable[bytes]) -> Iterator[bytes]:
        yield _HEADER
        for piece in pieces:
            if piece:  # an empty one would be taken for the end
                yield piece
        yield _END
