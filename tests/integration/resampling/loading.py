"""A loader in a process of its own: ``python -m … URL STORE FINGERPRINT [HANG_AT_WINDOW]``.

It says what it does, a line a step.  At the window that it is to hang at, it stops within COPY: a
part of the pixels has been sent, and nothing is committed.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from muster.resampling.stores import load_rows, load_tiles
from muster.resampling.stores.load import open_load
from muster.store.database import Database
from tests.integration.resampling.layers import bands, cut, make_layer, make_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def say(*words: object) -> None:
    print(*words, flush=True)


def load(url: str, store: str, fingerprint: str, hang_at: int) -> None:
    layer = make_layer(fingerprint=fingerprint * 64)
    values = make_values(layer, seed=ord(fingerprint))
    copied = 0
    real = load_rows.copy_in

    def copy_in(cursor: object, table: object, pieces: Iterable[bytes]) -> None:
        nonlocal copied
        copied += 1

        def slow() -> Iterator[bytes]:
            for piece in pieces:
                yield piece
                if copied == hang_at:
                    say("inside")
                    time.sleep(600)

        real(cursor, table, slow())  # type: ignore[arg-type]

    load_rows.copy_in = load_tiles.copy_in = copy_in  # type: ignore[assignment]
    with open_load(Database(url), layer, store) as opened:  # type: ignore[arg-type]
        if opened.done:
            say("done already")
            return
        say("loads")
        for window in opened.missing_windows(bands(layer, 256)):
            opened.write(window, cut(values, window))
            time.sleep(0.05)
        opened.finish()
        say("loaded")


if __name__ == "__main__":
    load(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if sys.argv[4:] else 0)
