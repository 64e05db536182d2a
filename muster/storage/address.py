"""URIs as Muster reads and writes them; quoting is decided here and nowhere else."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

from muster.errors import InvalidInput

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A parsed URI: a local path where ``bucket`` is None, an S3 key otherwise."""

    path: Path
    bucket: str | None = None
    key: str = ""


def parse_address(uri: str) -> Address:
    """Take a URI apart.

    Raises
    ------
    InvalidInput
        For an empty URI, another scheme, another host's file, or no bucket.
    """
    found = _SCHEME.match(uri)
    if found is None:
        if not uri or "\0" in uri:
            raise InvalidInput("not a path or URI", got=repr(uri))
        return Address(Path(uri))
    scheme, rest = found[1].lower(), uri[found.end() :]
    if scheme == "file":
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost") or not slash or "%00" in path or "\0" in path:
            raise InvalidInput("not a local file", got=uri, expected="file:///absolute/path")
        return Address(Path(slash + unquote(path)))
    if scheme == "s3":
        bucket, _, key = rest.partition("/")
        if not bucket:
            raise InvalidInput("no bucket", got=uri, expected="s3://bucket/key")
        return Address(Path(), bucket, key)
    raise InvalidInput(
        "unknown kind of URI", got=uri, expected="a path, file:///absolute/path or s3://bucket/key"
    )


def local_path(uri: str) -> Path | None:
    """Return the local path of a plain path or file URI, and None for S3."""
    address = parse_address(uri)
    return address.path if address.bucket is None else None


def require_local(uri: str, what: str, *, do: str | None = None) -> Path:
    """Return the local path of a plain path or file URI.

    Parameters
    ----------
    what : str
        What is told of another one: a campaign's folder must be on this machine.
    do : str, optional
        What the reader should do then.

    Raises
    ------
    InvalidInput
        When it is an object store's.
    """
    path = local_path(uri)
    if path is None:
        raise InvalidInput(what, got=uri, expected="a path or a file:// URI", do=do)
    return path


def name_below(uri: str, folder: str) -> str | None:
    """Return the name of what lies below a folder, however the two are spelt; None elsewhere.

    Local paths are compared with their links followed.
    """
    inner, outer = parse_address(uri), parse_address(folder)
    if inner.bucket != outer.bucket:
        return None
    if inner.bucket is not None:
        prefix = f"{outer.key.rstrip('/')}/" if outer.key.rstrip("/") else ""
        key = inner.key.rstrip("/")
        return key[len(prefix) :] if key.startswith(prefix) and key != prefix else None
    real, root = Path(os.path.realpath(inner.path)), Path(os.path.realpath(outer.path))
    return str(real.relative_to(root)) if real != root and real.is_relative_to(root) else None


def join(uri: str, *parts: str) -> str:
    """Append names to a URI of any kind; parts are plain text, quoted where the kind needs it.

    Parameters
    ----------
    uri : str
        The folder or key prefix.
    parts : str
        Relative, with ``/`` between names; ``%``, ``#``, ``?`` and blanks mean themselves.

    Raises
    ------
    InvalidInput
        For a part that is empty or absolute, or leads out of the folder.
    """
    for part in parts:
        names = part.split("/")
        if ".." in names or "" in names or "\0" in part:
            raise InvalidInput(
                "not a name below a folder", where=uri, got=repr(part), expected="a relative path"
            )
    address = parse_address(uri)
    if not parts:
        return uri
    if address.bucket is None:
        if _SCHEME.match(uri) is None:
            return str(PurePosixPath(uri, *parts))
        parts = tuple(quote(part) for part in parts)
    elif not address.key:
        uri = f"s3://{address.bucket}"
    return "/".join((uri.removesuffix("/"), *parts))
