"""Checking the binary blocks of an ASDF file before a decompressor is let at them.

The reader of AbacusSummit's files writes what each Blosc chunk says of its own length straight into
memory.  A truncated or damaged file is found here, by reading headers alone: it costs some 50 small
reads a file.  Formats: https://asdf-standard.readthedocs.io/en/latest/file_layout.html#block, and
https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst; AbacusSummit puts the length of
each chunk, as four bytes, before it.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from muster.mocks.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ASDF = b"#ASDF "
_BLOCK = b"\xd3BLK"
_INDEX = b"#ASDF BLOCK INDEX"
_END = b"..."
_HEADER = struct.Struct(">I4sQQQ16s")
_BLOSC = struct.Struct("<BBBBIII")
_LENGTH = struct.Struct(">I")
_ELSEWHERE = re.compile(rb"\bsource\s*:[ \t]*+(?!\d+[ \t]*[,}\r\n])|\$ref")
"""An array whose bytes lie in another file, or at a URL."""

_MOST_TREE_BYTES = 1 << 24
_NO_CHECKSUM = bytes(16)
_MOST_BLOCKS = 10_000
_MOST_BLOCK_BYTES = 1 << 40


@dataclass(frozen=True)
class Block:
    """Where the stored bytes of a block lie.

    Attributes
    ----------
    begin, used : int
        First byte of them, and how many.
    checksum : bytes
        MD5 that the block states; zeros where it states none.
    """

    begin: int
    used: int
    checksum: bytes


def check_blocks(path: Path) -> list[Block]:
    """Check that an ASDF file is whole, and that its chunks fill what its blocks declare.

    Parameters
    ----------
    path : Path
        Of the file.

    Returns
    -------
    list of Block
        In the order of the file.

    Raises
    ------
    ValidationError
        When the file is no ASDF file, ends too early, takes data from elsewhere, or a chunk's
        length is not right.
    OSError
        When the file cannot be read.
    """
    blocks: list[Block] = []
    with path.open("rb") as file:
        size = file.seek(0, 2)
        at = _find_first_block(file, path)
        while at < size:
            file.seek(at)
            magic = file.read(len(_INDEX))
            if magic == _INDEX:
                if not file.read(_MOST_TREE_BYTES).rstrip().endswith(_END):
                    raise _broken(path, size, "the index of blocks has no end")
                break
            if not magic.startswith(_BLOCK):
                raise _broken(path, at, "what lies between two blocks is neither")
            block, at = _check_block(file, path, at, size)
            blocks.append(block)
            if len(blocks) > _MOST_BLOCKS:
                raise _broken(path, at, f"more than {_MOST_BLOCKS} blocks")
    return blocks


def check_sums(path: Path, blocks: list[Block], columns: Mapping[str, Any]) -> None:
    """Check columns that were read against the checksums of the file.

    AbacusSummit's files state the MD5 of what a block holds; ASDF since then means what it stores.

    Parameters
    ----------
    path : Path
        Of the file.
    blocks : list of Block
        Of the file.
    columns : mapping of str to array
        As the file holds them: decompressed, in its byte order.

    Raises
    ------
    ValidationError
        When a column has neither checksum.
    """
    stated = {block.checksum for block in blocks}
    if _NO_CHECKSUM in stated:
        return
    for name, column in columns.items():
        if hashlib.md5(column.tobytes(), usedforsecurity=False).digest() not in stated:
            bad = _find_bad_block(path, blocks)
            if bad is not None:
                raise _broken(path, bad.begin, f"a checksum is wrong, and so is column {name}")
            return


def _find_bad_block(path: Path, blocks: list[Block]) -> Block | None:
    with path.open("rb") as file:
        for block in blocks:
            file.seek(block.begin)
            stored = file.read(block.used)
            if hashlib.md5(stored, usedforsecurity=False).digest() != block.checksum:
                return block
    return None


def _find_first_block(file: BinaryIO, path: Path) -> int:
    file.seek(0)
    head = file.read(_MOST_TREE_BYTES)
    if not head.startswith(_ASDF):
        raise ValidationError(
            "not an ASDF file",
            where=path,
            got=repr(head[:16]),
            do="copy the file again from where it is whole",
        )
    end = head.find(b"\n...")
    found = head.find(_BLOCK, end)
    if end < 0 or found < 0:
        raise _broken(path, len(head), "no binary block")
    if _ELSEWHERE.search(head, 0, end + 1):
        raise ValidationError(
            "the file takes data from elsewhere",
            where=path,
            expected="all in the file itself",
            do="write it with all data inside (asdf: all_array_storage=internal)",
        )
    return found


def _check_block(file: BinaryIO, path: Path, at: int, size: int) -> tuple[Block, int]:
    """Check a block; return it, and where the next one begins."""
    file.seek(at + len(_BLOCK))
    words = file.read(2)
    header = file.read(_HEADER.size)
    if len(words) < 2 or len(header) < _HEADER.size:
        raise _broken(path, at, "ends within the header of a block")
    header_bytes = int.from_bytes(words, "big")
    _, compression, allocated, used, data, checksum = _HEADER.unpack(header)
    begin = at + len(_BLOCK) + 2 + header_bytes
    if header_bytes < _HEADER.size or used > allocated or data > _MOST_BLOCK_BYTES:
        raise _broken(path, at, "the header of a block contradicts itself")
    if begin + allocated > size:
        raise _broken(path, at, f"a block ends at byte {begin + allocated}, the file at {size}")
    if compression == b"blsc":
        _check_chunks(file, path, begin, used, data)
    elif compression == b"\0\0\0\0" and used != data:
        raise _broken(path, at, "an uncompressed block states two sizes")
    return Block(begin, used, checksum), begin + allocated


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
