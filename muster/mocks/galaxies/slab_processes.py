"""Processes that share the slabs of a box.

Each is a fresh one: neither JAX nor a library's threads survive a fork.  Where elements run one
after the other in a warm process they stay for the next box, with their imports and compiled
programs; the memory that they keep counts as that process's.  They end with the process that
started them, however it ends, and one that ends by itself ends them all.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from muster.jobs.running import kept
from muster.jobs.running.child import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from muster.mocks.galaxies.model import GalaxyModel

Task = TypeVar("Task")
Made = TypeVar("Made")

_VARIABLES = "MUSTER_"
"""What names of variables begin with that differ between elements."""


@dataclass(frozen=True)
class _Pool:
    """Processes of one galaxy model."""

    model: str
    number: int
    executor: ProcessPoolExecutor
    is_fresh: bool = True


_stays: _Pool | None = None
"""Those that wait for the next box of this process."""


def map_slabs(
    call: Callable[[Task], Made], tasks: Sequence[Task], model: GalaxyModel, number: int
) -> list[Made]:
    """Call a function with each task, in several processes, and return the results in order.

    Parameters
    ----------
    call : callable
        A function of a module.
    tasks : sequence
        At least one.
    model : GalaxyModel
        Whose slabs they are.
    number : int
        The most processes.

    Raises
    ------
    BrokenProcessPool
        When a process ended; the next call starts fresh ones.
    """
    with _processes(model, number) as pool:
        variables = {n: v for n, v in os.environ.items() if n.startswith(_VARIABLES)}
        futures = []
        try:
            for task in tasks:
                futures.append(pool.executor.submit(_run, call, task, variables))
                if model.compiles and pool.is_fresh and len(futures) == 1:
                    futures[0].result()  # fills the cache of compiled programs for the others
            return [future.result() for future in futures]
        finally:  # nothing of this box runs on beside the next
            concurrent.futures.wait([future for future in futures if not future.cancel()])


@contextlib.contextmanager
def _processes(model: GalaxyModel, number: int) -> Iterator[_Pool]:
    """Give processes, those of the former box where they stayed."""
    global _stays
    if not kept.may_keep():
        with _start(number) as executor:
            yield _Pool(model.name, number, executor)
        return
    before = _pids()
    pool, _stays = _take(model.name, number), None
    try:
        yield pool
    except BrokenProcessPool:
        pool.executor.shutdown()
        raise
    except BaseException:
        _stays = pool
        raise
    else:
        _stays = _Pool(pool.model, pool.number, pool.executor, is_fresh=False)
    finally:
        kept.keep(_pids() - before)


def _take(model: str, number: int) -> _Pool:
    """Return the processes that stayed, where they are of that kind and live; else fresh ones."""
    if _stays is not None:
        if (_stays.model, _stays.number) == (model, number):
            with contextlib.suppress(BrokenProcessPool):  # ended meanwhile: no fault of this box
                _stays.executor.submit(os.getpid).result()
                return _stays
        _stays.executor.shutdown()
    return _Pool(model, number, _start(number))


def _start(number: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        number,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=die_with_parent,  # they would wait for ever where this process is killed
        initargs=(os.getpid(),),
    )


def _pids() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


def _run(call: Callable[[Any], Any], task: Any, variables: dict[str, str]) -> Any:
    """Call a function as the process would that started this one."""
    os.environ.update(variables)
    _join_output()
    try:
        return call(task)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()


def _join_output() -> None:
    """Write to where the process writes now that started this one: an element may have its log."""
    for number in (1, 2):
        path = f"/proc/{os.getppid()}/fd/{number}"
        with contextlib.suppress(OSError):  # a socket cannot be opened by its name
            if os.path.samestat(os.stat(path), os.fstat(number)):
                continue
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY)
            os.dup2(descriptor, number)
            os.close(descriptor)
