"""Checking the binary blocks of an ASDF file before a decompressor is let at them.

The reader of AbacusSummit's files writes what each Blosc chunk says of its own length straight into
memory.  A truncated or damaged file is found here, by reading headers alone: it costs some 50 small
reads a file.  Formats: https://asdf-standard.readthedocs.io/en/latest/file_layout.html#block, and
https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst; AbacusSummit puts the length of
each chunk, as four bytes, before it.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, BinaryIO

from muster.mocks.errors import ValidationError

if TYPE_CHECKING:
    from pathlib import Path

_ASDF = b"#ASDF "
_BLOCK = b"\xd3BLK"
_INDEX = b"#ASDF BLOCK INDEX"
_HEADER = struct.Struct(">I4sQQQ16s")
_BLOSC = struct.Struct("<BBBBIII")
_LENGTH = struct.Struct(">I")
_ELSEWHERE = re.compile(rb"\bsource\s*:[ \t]*+(?!\d+[ \t]*[,}\r\n])|\$ref")
"""An array whose bytes lie in another file, or at a URL."""

_MOST_TREE_BYTES = 1 << 24
_MOST_BLOCKS = 10_000
_MOST_BLOCK_BYTES = 1 << 40


def check_blocks(path: Path) -> int:
    """Check that an ASDF file is whole, and that its chunks fill what its blocks declare.

    Parameters
    ----------
    path : Path
        Of the file.

    Returns
    -------
    int
        Number of blocks.

    Raises
    ------
    ValidationError
        When the file is no ASDF file, ends too early, or a chunk's length is not right.
    OSError
        When the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        at = _find_first_block(file, path)
        blocks = 0
        while at < size:
            file.seek(at)
            magic = file.read(len(_INDEX))
            if magic == _INDEX:
                break
            if not magic.startswith(_BLOCK):
                raise _broken(path, at, "what lies between two blocks is neither")
            at = _check_block(file, path, at, size)
            blocks += 1
            if blocks > _MOST_BLOCKS:
                raise _broken(path, at, f"more than {_MOST_BLOCKS} blocks")
    return blocks


def _find_first_block(file: BinaryIO, path: Path) -> int:
    file.seek(0)
    head = file.read(_MOST_TREE_BYTES)
    if not head.startswith(_ASDF):
        raise ValidationError("not an ASDF file", where=path, got=repr(head[:16]))
    end = head.find(b"\n...")
    found = head.find(_BLOCK, end)
    if end < 0 or found < 0:
        raise _broken(path, len(head), "no binary block")
    if _ELSEWHERE.search(head, 0, end + 1):
        raise ValidationError(
            "the file takes data from elsewhere", where=path, expected="all in the file itself"
        )
    return found


def _check_block(file: BinaryIO, path: Path, at: int, size: int) -> int:
    """Check a block; return where the next one begins."""
    file.seek(at + len(_BLOCK))
    words = file.read(2)
    header = file.read(_HEADER.size)
    if len(words) < 2 or len(header) < _HEADER.size:
        raise _broken(path, at, "ends within the header of a block")
    header_bytes = int.from_bytes(words, "big")
    _, compression, allocated, used, data, _ = _HEADER.unpack(header)
    begin = at + len(_BLOCK) + 2 + header_bytes
    if header_bytes < _HEADER.size or used > allocated or data > _MOST_BLOCK_BYTES:
        raise _broken(path, at, "the header of a block contradicts itself")
    if begin + allocated > size:
        raise _broken(path, at, f"a block ends at byte {begin + allocated}, the file at {size}")
    if compression == b"blsc":
        _check_chunks(file, path, begin, used, data)
    elif compression == b"\0\0\0\0" and used != data:
        raise _broken(path, at, "an uncompressed block states two sizes")
    return int(begin + allocated)


def _check_chunks(file: BinaryIO, path: Path, begin: int, used: int, data: int) -> None:
    at, end, filled = begin, begin + used, 0
    while at < end:
        file.seek(at)
        head = file.read(_LENGTH.size + _BLOSC.size)
        if at + len(head) > end or len(head) < _LENGTH.size + _BLOSC.size:
            raise _broken(path, at, "a Blosc chunk is shorter than its header")
        (length,) = _LENGTH.unpack_from(head)
        *_, decompressed, _, compressed = _BLOSC.unpack_from(head, _LENGTH.size)
        if length != compressed or at + _LENGTH.size + length > end:
            raise _broken(path, at, "a Blosc chunk states a wrong length")
        filled += decompressed
        at += _LENGTH.size + length
    if filled != data:
        raise _broken(path, begin, f"Blosc chunks hold {filled} of {data} bytes")


def _broken(path: Path, at: int, got: str) -> ValidationError:
    return ValidationError(
        "the file is truncated or damaged",
        where=f"{path}, byte {at}",
        got=got,
        do="fetch it again from where it came from",
    )
