"""``python -m tests.unit.pins.write [TEST …]``: write the golden files anew, for a meant change."""

from __future__ import annotations

import sys

import pytest

from tests.unit.pins import golden_files

PINS = ["tests/unit/pins", "tests/integration/pins"]

if __name__ == "__main__":
    golden_files.writing = True
    sys.exit(pytest.main(["-q", "-p", "no:xdist", *(sys.argv[1:] or PINS)]))
