"""Compiled kernels: loops over pixels that NumPy cannot express without a temporary each.

Numba compiles them once and keeps the machine code on disk.  It notices a change of the file that a
kernel stands in, but not of the files whose constants and functions have become part of it; so the
code is kept in a folder that is named by all sources that hold kernels.  Where no folder can be
written they are compiled anew in each process.  Jobs by the hundred that find the folder empty may
fill it at the same time.  Kernels hold no lock of the interpreter, so that threads of windows run
side by side.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
from numba.core.caching import IndexDataCacheFile

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

_CONFIG: Any = numba.config

_PACKAGE = Path(__file__).parents[1]
_SOURCES = (
    "raster/kernels.py",
    "resampling/compute/kernels.py",
    "traits/predicting/quantised.py",
    "traits/aoa/nearest/*.py",
)
"""Every file that a kernel or a part of one stands in; a test looks for others."""


def kernel(function: F) -> F:
    """Compile a function for the arrays that it is called with.

    Arithmetic is done as it is written: no option is set that would let sums change their order,
    and a division by zero is NumPy's.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    former = _CONFIG.CACHE_DIR
    try:
        _CONFIG.CACHE_DIR = _find_cache()
        compiled: Any = numba.njit(**options, cache=True)(function)
        compiled._cache._cache_file.__class__ = _MachineCode
    except (RuntimeError, OSError):  # no folder that the machine code could be kept in
        compiled = numba.njit(**options)(function)
    finally:
        _CONFIG.CACHE_DIR = former
    return cast("F", compiled)


class _MachineCode(IndexDataCacheFile):
    """Numba's files of one kernel, but that no two of them ever have one name.

    Numba counts them, as far as its index tells.  Two processes that compile a kernel for other
    types at the same time take the same number, and whoever comes next runs the machine code of
    the one with the arrays of the other.
    """

    def _data_name(self, number: int) -> str:
        del number
        return f"{self._index_name}.{uuid.uuid4().hex}.nbc"


def digest_sources(package: Path = _PACKAGE) -> str:
    """Name the state of all sources that hold kernels."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _SOURCES for path in package.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _find_cache() -> str:
    """Find a folder for machine code that can be written: the user's choice, ours, the user's."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    places = [named] if named else [str(_PACKAGE / "__pycache__"), home]
    for place in places:
        folder = Path(place).expanduser() / f"muster-kernels-{digest_sources()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return str(folder)
    raise OSError("no folder for machine code can be written")
