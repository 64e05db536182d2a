"""Kernels: compiled once, and never kept beyond a change of what they were made of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import muster
from muster.raster.kernels import digest_sources

pytestmark = pytest.mark.slow

PACKAGE = Path(muster.__file__).parent

CALL = """
import numpy as np
from muster.raster.kernels import kernel
from muster.traits.predicting.quantised import compile_ensemble, _rank
ranks = np.zeros((1, 2), np.uint8)
_rank(np.array([[0.5], [3.0]]), np.array([[1.0, np.inf]]), ranks)
assert ranks.tolist() == [[0, 1]]
print(len(_rank.stats.cache_hits), len(_rank.stats.cache_misses))
"""


def call(home: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CALL],
        env={"PATH": os.environ["PATH"], "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_kernels_are_compiled_once_where_the_person_says(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert call(tmp_path, NUMBA_CACHE_DIR=str(cache)) == "0 1"
    assert [path.name for path in cache.iterdir()] == [f"muster-kernels-{digest_sources()}"]
    assert call(tmp_path, NUMBA_CACHE_DIR=str(cache)) == "1 0"


def test_kernels_work_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for _ in range(2):
        assert call(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "file" / "below")) == "0 1"


TOGETHER = """
import sys
import numpy as np
from numba.core.caching import IndexDataCacheFile
from muster.raster import kernels

PIXELS = {kind: np.arange(12, dtype=kind).reshape(3, 4) for kind in ("float64", "uint8")}

def blank(kind):
    from muster.resampling.compute.kernels import blank_others
    # As another process would: with nothing compiled, and the same folder.
    pixels = PIXELS[kind].copy()
    same = kernels.kernel(blank_others.py_func)
    same(pixels, np.array([1.0, 7.0]), pixels.dtype.type(0))
    return pixels.astype(int).ravel().tolist()

# Both look into the empty index; then both write it, and the second its code before the first.
save_index = IndexDataCacheFile._save_index
waiting = []

def interleave(file, overloads):
    if not waiting:
        waiting.append((file, overloads))
        blank("uint8")
    else:
        save_index(*waiting[0])
        save_index(file, overloads)

if sys.argv[1:] == ["write"]:
    IndexDataCacheFile._save_index = interleave
    blank("float64")
    assert len(waiting) == 1
else:
    print([blank(kind) for kind in PIXELS])
"""


def test_two_processes_that_compile_at_once_keep_their_own_code(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "NUMBA_CACHE_DIR": str(tmp_path)}
    for how in ("write", "read"):
        done = subprocess.run(
            [sys.executable, "-c", TOGETHER, how],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    wanted = [0, 1, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0]
    assert done.stdout.strip() == str([wanted, wanted])


def test_a_change_of_any_source_of_a_kernel_is_noticed(tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "muster"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert digest_sources(copy) == digest_sources()
    holding = [
        path
        for path in copy.rglob("*.py")
        if "@kernel" in path.read_text() or "@intrinsic" in path.read_text()
    ]
    assert len(holding) > 3
    for path in holding:
        before = digest_sources(copy)
        path.write_text(path.read_text() + "\n")
        assert digest_sources(copy) != before, path
