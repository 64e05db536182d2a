"""Compiled kernels: loops over pixels that NumPy cannot express without a temporary each.

Numba compiles them once and keeps the machine code beside the source, or in the user's cache; where
neither can be written they are compiled anew in each process.  They hold no lock of the
interpreter, so that threads of windows run side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def kernel(function: F) -> F:
    """Compile a function for the arrays that it is called with; IEEE arithmetic as written."""
    try:
        compiled: Any = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder that the machine code could be kept in
        compiled = numba.njit(nogil=True)(function)
    return cast("F", compiled)
