"""Processes that share the slabs of a box.

Each is a fresh one: neither JAX nor a library's threads survive a fork.  Where elements run one
after the other in a warm process they stay for the next box, with their imports and compiled
programs; the memory that they keep counts as that process's.  They end with the process that
started them, however it ends, and where one ends by itself all are replaced.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
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
class _Crew:
    """Processes of one galaxy model, a pool for each: a slab has the same one in every box.

    So the programs that are compiled for a slab, whose size varies little, are there for the next.
    """

    model: str
    members: tuple[ProcessPoolExecutor, ...]
    is_fresh: bool = True

    def close(self) -> None:
        """End the processes."""
        for member in self.members:
            member.shutdown()


_stays: _Crew | None = None
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
        How many processes.

    Raises
    ------
    BrokenProcessPool
        When a process ended; the next call starts fresh ones.
    """
    with _processes(model, number) as crew:
        variables = {n: v for n, v in os.environ.items() if n.startswith(_VARIABLES)}
        futures = []
        try:
            for place, task in enumerate(tasks):
                member = crew.members[place % number]
                futures.append(member.submit(_run, call, task, variables))
                if model.compiles and crew.is_fresh and place == 0:
                    futures[0].result()  # fills the cache of compiled programs for the others
            done, _ = concurrent.futures.wait(futures, return_when="FIRST_EXCEPTION")
            for future in done:
                future.result()  # its error, where it has one
            return [future.result() for future in futures]
        finally:  # nothing of this box runs on beside the next
            concurrent.futures.wait([future for future in futures if not future.cancel()])


@contextlib.contextmanager
def _processes(model: GalaxyModel, number: int) -> Iterator[_Crew]:
    """Give processes, those of the former box where they stayed."""
    global _stays
    if not kept.may_keep():
        crew = _start(model.name, number)
        try:
            yield crew
        finally:
            crew.close()
        return
    before = _pids()
    crew, _stays = _take(model.name, number), None
    try:
        yield crew
    except BrokenProcessPool:
        crew.close()
        raise
    except BaseException:
        _stays = crew
        raise
    else:
        _stays = replace(crew, is_fresh=False)
    finally:
        kept.keep(_pids() - before)


def _take(model: str, number: int) -> _Crew:
    """Return the processes that stayed, where they are of that kind and live; else fresh ones."""
    if _stays is not None:
        if (_stays.model, len(_stays.members)) == (model, number):
            with contextlib.suppress(BrokenProcessPool):  # ended meanwhile: no fault of this box
                for future in [member.submit(os.getpid) for member in _stays.members]:
                    future.result()
                return _stays
        _stays.close()
    return _start(model, number)


def _start(model: str, number: int) -> _Crew:
    context = multiprocessing.get_context("spawn")
    members = [
        ProcessPoolExecutor(
            1,
            mp_context=context,
            initializer=die_with_parent,  # it would wait for ever where this process is killed
            initargs=(os.getpid(),),
        )
        for _ in range(number)
    ]
    return _Crew(model, tuple(members))


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
