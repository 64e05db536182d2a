"""Options that are written NAME=VALUE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


def split_pair(text: str, names: Sequence[str], option: str) -> tuple[str, str]:
    """Split NAME=VALUE, of a name that there is.

    Raises
    ------
    ConfigError
        When it is written otherwise, or there is no such name.
    """
    name, equals, value = text.partition("=")
    if not equals or name not in names:
        raise ConfigError(
            "not NAME=VALUE, of a name that there is",
            where=option,
            got=text,
            expected=", ".join(f"{name}=…" for name in names),
        )
    return name, value
