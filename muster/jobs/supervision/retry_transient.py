"""Doing something again for as long as something outside does not answer."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, TypeVar

from muster.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_WAIT_S = 30.0


async def retry_while_transient(
    act: Callable[[], Awaitable[T]],
    tell: Callable[[Transient], Awaitable[None]] | None = None,
) -> T:
    """Do something, and again after a while as long as something outside does not answer.

    Parameters
    ----------
    act : callable
        What to do.
    tell : callable, optional
        Is told each time why it has to be done again.
    """
    delay_s = 1.0
    said: set[str] = set()
    since_s = asyncio.get_running_loop().time()
    while True:
        try:
            done = await act()
        except Transient as error:
            if str(error) not in said:  # an outage may last for days, and is a line of the log
                log.warning("waiting: %s", error)
                said.add(str(error))
            if tell is not None:
                await tell(error)
            # Jitter: those who wait for the same thing must not all come back at once.
            await asyncio.sleep(delay_s * random.uniform(0.75, 1.25))
            delay_s = min(2 * delay_s, LONGEST_WAIT_S)
        else:
            if said:
                waited_s = asyncio.get_running_loop().time() - since_s
                log.info("going on after %.0f s", waited_s)
            return done
