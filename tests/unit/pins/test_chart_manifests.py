"""Manifests of the chart: objects of releases that are there go by their names and selectors."""

from __future__ import annotations

import pytest

from tests.chart import read_values, render_files
from tests.unit.pins.golden_files import check_golden


@pytest.mark.parametrize("name", ["minimal", "everything"])
def test_manifests_are_those_of_releases_that_are_there(name: str) -> None:
    files = render_files(read_values(name))
    text = "".join(
        f"# {file}\n{files[file].strip()}\n" for file in sorted(files) if files[file].strip()
    )
    check_golden(f"chart-{name}.yaml", text, "is what an upgrade of a release is laid over")
