"""Importing what is named as "module:attribute", when it is needed and not before."""

from __future__ import annotations

import importlib
from typing import Any


def load_named(name: str) -> Any:
    """Return what a "module:attribute" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
