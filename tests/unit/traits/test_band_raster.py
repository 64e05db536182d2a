"""Windows on threads: never more than were given, one error ends all, no bit depends on them."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from muster.errors import InvalidInput
from muster.model.step import StepContext
from muster.raster.grid import Band
from muster.traits.aoa.aoa import calculate_aoa_trait
from muster.traits.band_raster import BandRaster, parse_ranges, write_band_raster
from muster.traits.predicting.cov import calculate_cov_trait
from muster.traits.predicting.predict import predict_trait
from muster.traits.product.build import build_final_product_trait
from tests.unit.traits.conftest import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.traits.conftest import Stack

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("[[1, 2.5], null, [-3, -3]]", {1: (1.0, 2.5), 3: (-3.0, -3.0)}),
        ("[]", {}),
        ("", {}),
        ("7", {}),
        ('{"1": [1, 2]}', {}),
        ('[{"a": 1}, "12", [1], [1, 2, 3], ["1", "2"], [null, 2]]', {}),
        ("[[2, 1], [NaN, 1], [0, Infinity]]", {}),
        (f"[[-1{'0' * 400}, 1], [1, 2]]", {2: (1.0, 2.0)}),
        ("[" * 100_000, {}),
    ],
)
def test_ranges_that_are_none_count_as_not_recorded(
    text: str, ranges: dict[int, tuple[float, float]]
) -> None:
    assert parse_ranges(text) == ranges


class Load:
    """A computation that notes who is at it at the same time."""

    def __init__(self) -> None:
        self.most = 0
        self.threads: set[int] = set()
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.threads.add(threading.get_ident())
        time.sleep(0.01)
        with self._lock:
            self._now -= 1
        return values.sum(axis=1)[np.newaxis]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_as_many_windows_at_once_as_there_are_threads(
    stack: Stack, tmp_path: Path, threads: int
) -> None:
    load = Load()
    before = threading.active_count()
    stage = BandRaster(tmp_path / "a.tif", (Band("sum"),))
    told: list[float] = []
    facts = write_band_raster(
        stage,
        load,
        [stack.uri],
        NAMES,
        window_px=32,
        context=StepContext(
            threads=threads, scratch=tmp_path, progress=lambda fraction, _: told.append(fraction)
        ),
    )
    assert load.most == threads
    assert len(load.threads) == threads
    assert told == sorted(told)
    assert len(told) == facts["windows"]
    assert told[-1] == 1.0
    assert threading.active_count() == before


def test_an_error_in_any_window_ends_all_and_leaves_nothing(stack: Stack, tmp_path: Path) -> None:
    calls = []

    def fail_late(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        calls.append(len(values))
        if len(calls) == 5:
            raise InvalidInput("planted")
        time.sleep(0.005)
        return values[:, :1].T

    folder = tmp_path / "out"
    folder.mkdir()
    before = threading.active_count()
    for threads in (1, 2, 4):
        calls.clear()
        with pytest.raises(InvalidInput, match="planted"):
            write_band_raster(
                BandRaster(folder / "a.tif", (Band("one"),)),
                fail_late,
                [stack.uri],
                NAMES,
                window_px=16,
                context=StepContext(threads=threads, scratch=tmp_path),
            )
        assert len(calls) < 5 + threads
        assert not list(folder.iterdir())
        assert threading.active_count() == before


def test_product_is_the_same_to_the_byte_for_any_windows_threads_and_engines(
    stack: Stack, make_bundle: Callable[..., str], tmp_path: Path
) -> None:
    bundle = make_bundle(folds=3)
    digests = set()
    for number, (threads, window_px, engine, aoa_engine) in enumerate(
        [
            (1, None, "lightgbm", "brute"),
            (1, None, "lightgbm", "brute"),
            (2, 64, "quantised", "blocks"),
            (3, 17, "quantised", "tree"),
            (4, 100, "lightgbm", "faiss"),
        ]
    ):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        shared: dict[str, Any] = {
            "bundle": bundle,
            "predictors": [stack.uri],
            "fingerprint": "f",
            "window_px": window_px,
            "context": StepContext(threads=threads, scratch=folder),
        }
        predict_trait(prediction=folder / "p.tif", engine=engine, **shared)
        calculate_cov_trait(cov=folder / "c.tif", engine=engine, **shared)
        calculate_aoa_trait(
            aoa=folder / "a.tif", engine=aoa_engine, local_point_density=True, **shared
        )
        build_final_product_trait(
            bundle=bundle,
            bands={n: str(folder / f"{n[0]}.tif") for n in ("prediction", "cov", "aoa")},
            product=folder / "X50.tif",
            quicklook=folder / "X50.png",
            context=shared["context"],
        )
        digests.add(
            tuple(
                hashlib.sha256((folder / name).read_bytes()).hexdigest()
                for name in ("p.tif", "c.tif", "a.tif", "X50.tif", "X50.png")
            )
        )
    assert len(digests) == 1
