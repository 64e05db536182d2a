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
    """Compile a function for the arrays that it is called with.

    Arithmetic is done as it is written: no option is set that would let sums change their order,
    and a division by zero is NumPy's.
    """
    try:
        compiled: Any = numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no folder that the machine code could be kept in
        compiled = numba.njit(nogil=True, error_model="numpy")(function)
    return cast("F", compiled)
