"""LightGBM, imported without scikit-learn, whose import takes twice as long as LightGBM's own.

Where scikit-learn is installed LightGBM imports it, for wrappers that nothing here uses.
"""

from __future__ import annotations

import sys
from typing import Any

_modules: dict[str, Any] = sys.modules
_hidden = "lightgbm" not in _modules and "sklearn" not in _modules
if _hidden:
    _modules["sklearn"] = None  # as if it were not installed
try:
    import lightgbm
finally:
    if _hidden:
        del _modules["sklearn"]

__all__ = ["lightgbm"]
