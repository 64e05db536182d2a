"""Compiles a function of loops with numba, and keeps the result where it can.

The GIL is let go, and the machine code is kept beside the module or in the user's cache, so that a
job starts with it.  No option that would let the compiler reorder sums is ever set: the order of
float64 sums is a promise of :mod:`muster.traits.nearest.distance`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

_Function = TypeVar("_Function", bound="Callable[..., Any]")


def compiled(function: _Function) -> _Function:
    """Compile a function at its first call with new types of arguments.

    Parameters
    ----------
    function : callable
        Of arrays and numbers; it must take an integer division by zero as NumPy does.

    Returns
    -------
    callable
        That does the same.
    """
    try:
        kernel: Any = numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:
        # No folder for the cache can be written, as in a container that runs under another user.
        kernel = numba.njit(nogil=True, error_model="numpy")(function)
    return cast("_Function", kernel)
