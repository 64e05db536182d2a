"""How many examples property tests draw: the profiles ``quick`` and ``all`` of Hypothesis.

``quick`` is the default and draws a quarter of the examples, the same ones in every run.  ``all``,
chosen by ``HYPOTHESIS_PROFILE=all``, draws all of them, and others in each run.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import pytest

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
QUICK_FRACTION = 4
"""``quick`` draws one of so many examples of ``all``."""


def examples(count: int) -> settings:
    """Return the settings of a test that draws ``count`` examples under the profile ``all``."""
    return settings(max_examples=count if PROFILE == "all" else count // QUICK_FRACTION)


# A shared machine may be slow at any time: neither deadlines nor speeds are part of a proof.
for _name, _count in (("quick", 100 // QUICK_FRACTION), ("all", 100)):
    settings.register_profile(
        _name,
        max_examples=_count,
        deadline=None,
        derandomize=_name == "quick",
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(PROFILE)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark every test of Hypothesis ``property``, so that ``make test-all`` can select it."""
    if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        item.add_marker("property")
