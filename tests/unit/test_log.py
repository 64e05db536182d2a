from __future__ import annotations

import contextlib
import io
import logging
import re
from typing import TYPE_CHECKING

import pytest

from muster.log import configure_logging

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger; in the end its handlers and level are as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_has_its_time_and_level(root: logging.Logger) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        configure_logging()
        root.warning("the disk is full")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ WARNING the disk is full\n", said.getvalue()
    )


def test_lines_go_on_where_the_former_stderr_was_closed(root: logging.Logger) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as former:
        configure_logging()
    former.close()
    with contextlib.redirect_stderr(io.StringIO()) as said:
        root.warning("still here")
    assert said.getvalue().endswith("WARNING still here\n")
    assert "Logging error" not in said.getvalue()
