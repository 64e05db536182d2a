"""The real N-body box in miniature, and copies of it that tests may spoil."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REFERENCE = Path(__file__).parents[5] / "shared" / "reference" / "abacus_mini"
MINI_MPCH = 32.0
PARTICLE_MSUNH = 1.088239739e10


@dataclass(frozen=True)
class RawHalos:
    """What the superslabs of the box hold, read without abacusutils' catalogue."""

    header: dict[str, Any]
    superslabs: list[dict[str, Any]]

    def column(self, name: str) -> Any:
        return np.concatenate([superslab[name] for superslab in self.superslabs])


@pytest.fixture(scope="session")
def mini() -> Path:
    """The folder of the box, for those who only read."""
    pytest.importorskip("abacusnbody", reason="abacusutils is not installed: make abacus")
    if not REFERENCE.is_dir():
        pytest.skip(f"the reference box is not at {REFERENCE}")
    return REFERENCE


@pytest.fixture(scope="session")
def raw(mini: Path) -> RawHalos:
    import asdf

    superslabs = []
    for path in sorted((mini / "halos/z0.000/halo_info").glob("*.asdf")):
        with asdf.open(path, lazy_load=True, memmap=False) as file:
            header = dict(file["header"])
            data = file["data"]
            names = ("id", "N", "x_com", "v_com", "r100_com")
            superslabs.append({name: np.array(data[name][:]) for name in names})
    return RawHalos(header, superslabs)


@pytest.fixture
def copy_of_mini(mini: Path, tmp_path: Path) -> Path:
    """A copy of the box that the test may change."""
    copy = tmp_path / "Mini_N64_L32"
    info = copy / "halos/z0.000/halo_info"
    info.mkdir(parents=True)
    for path in (mini / "halos/z0.000/halo_info").iterdir():
        shutil.copyfile(path, info / path.name)
    return copy
