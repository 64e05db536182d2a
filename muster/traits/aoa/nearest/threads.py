"""Threads over blocks, and a limit on BLAS that several of them may ask for at once.

BLAS has one number of threads for the whole process.  A thread that saved it, set it to one and
restored it would restore another's limit; so the first that asks sets it, and the last that leaves
restores what the first had found.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_Block = TypeVar("_Block")
_Result = TypeVar("_Result")

_lock = threading.Lock()
_holders = 0
_limit: Any = None


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep every BLAS of the process to one thread; may be nested, and entered by many threads.

    Finding the libraries takes a millisecond, so that a step holds this for as long as it lives;
    inside, another entry costs nothing.  A BLAS that is loaded while it is held is not limited, nor
    is one that somebody else holds a limit of threadpoolctl's on, nor OpenMP, which counts its
    threads for each caller apart.
    """
    global _holders, _limit
    with _lock:
        if _holders == 0:
            _limit = _run_apart(lambda: threadpool_limits(limits=1, user_api="blas"))
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _run_apart(_limit.restore_original_limits)
                _limit = None


def _run_apart(function: Callable[[], _Result]) -> _Result:
    # threadpoolctl lets only the thread that set a limit change it, for as long as that lives, and
    # ignores others in silence.  Who enters first need not be who leaves last; so neither does it.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def map_blocks(
    function: Callable[[_Block], _Result], blocks: Iterable[_Block], threads: int
) -> list[_Result]:
    """Apply a function to blocks on so many threads; the results come in the blocks' order.

    Parameters
    ----------
    function : callable
        Of a block; must be re-entrant.
    blocks : iterable
        Fixed by the data, never by the number of threads.
    threads : int
        One runs it in the caller's own thread.
    """
    if threads == 1:
        return [function(block) for block in blocks]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, blocks))
