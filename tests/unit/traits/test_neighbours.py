"""Every engine must give the bits that a plain loop in float64 gives, on whatever data."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from muster.errors import ConfigError
from muster.traits.aoa.nearest import blocks, device, rotation, threads
from muster.traits.aoa.nearest.blocks import BlockNeighbours
from muster.traits.aoa.nearest.brute import BruteNeighbours
from muster.traits.aoa.nearest.device import ArrayNeighbours
from muster.traits.aoa.nearest.threads import single_threaded_blas
from muster.traits.aoa.nearest.tree import TreeNeighbours
from muster.traits.aoa.neighbours import (
    TREE_PLOTS,
    Nearness,
    Neighbours,
    choose_engine,
    effective_dimensions,
    open_neighbours,
    summarise_pairs,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def open_array(points: Any, *, threads: int = 1) -> Neighbours:
    """The engine for accelerators, on NumPy."""
    return ArrayNeighbours(points, threads=threads, xp=np)


OPENERS: dict[str, Callable[..., Neighbours]] = {
    "blocks": BlockNeighbours,
    "tree": TreeNeighbours,
    "brute": BruteNeighbours,
    "cupy": open_array,
}
every_engine = pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS.keys())


def all_distances(queries: Any, points: Any) -> Any:
    """(query, point), one query at a time, in the order of the dimensions."""
    rows = []
    for query in queries:
        total = np.zeros(len(points))
        for k in range(points.shape[1]):
            total = total + (query[k] - points[:, k]) ** 2
        rows.append(np.sqrt(total))
    return np.array(rows)


def normal(count: int, dimensions: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(count, dimensions))


def codes(count: int, dimensions: int, seed: int) -> Any:
    """Categories as whole numbers: ties and duplicates everywhere."""
    return np.random.default_rng(seed).integers(0, 3, (count, dimensions)).astype(float)


def decaying(count: int, dimensions: int, seed: int) -> Any:
    """Importance that falls from predictor to predictor."""
    return normal(count, dimensions, seed) * np.exp(-np.arange(dimensions) / (dimensions / 6))


def hardly_apart(count: int, dimensions: int, seed: int) -> Any:
    """Far from the origin and so close together that float32 sees one point only."""
    return 300.0 + 1e-6 * normal(count, dimensions, seed)


CLOUDS: dict[str, tuple[Any, Any]] = {
    "normal": (normal(2100, 30, 1), normal(301, 30, 2)),
    "one predictor": (normal(500, 1, 3), normal(301, 1, 4)),
    "one point": (normal(1, 3, 3), normal(50, 3, 4)),
    "two points": (normal(2, 3, 3), normal(50, 3, 4)),
    "more predictors than points": (normal(20, 40, 5), normal(60, 40, 6)),
    "150 predictors": (normal(700, 150, 7), normal(150, 150, 8)),
    "decaying 30": (decaying(2100, 30, 9), decaying(301, 30, 10)),
    "decaying 150": (decaying(900, 150, 11), decaying(150, 150, 12)),
    "not like the plots": (decaying(900, 60, 11), 3 * normal(200, 60, 12)),
    "codes": (codes(1500, 6, 13), codes(200, 6, 14)),
    "codes, halves": (codes(1500, 3, 13), codes(200, 3, 14) + 0.5),
    "hardly apart": (hardly_apart(900, 20, 15), hardly_apart(150, 20, 16)),
    "tiny": (1e-30 * normal(700, 8, 17), 1e-30 * normal(150, 8, 18)),
    "huge": (1e30 * normal(700, 8, 19), 1e30 * normal(150, 8, 20)),
    "one huge predictor": (
        normal(700, 4, 21) * [1e15, 1, 1e-15, 0],
        normal(150, 4, 22) * [1e15, 1, 1e-15, 0],
    ),
    "all alike": (np.ones((80, 3)), normal(50, 3, 23)),
    "origin": (np.zeros((80, 3)), np.zeros((5, 3))),
    "far": (normal(300, 4, 24), np.array([[1e25, 0, 0, 0], [0, 0, -1e15, 3], [1e10, 1e10, 0, 0]])),
}


@pytest.fixture(params=CLOUDS.values(), ids=CLOUDS.keys())
def case(request: pytest.FixtureRequest) -> tuple[Any, Any, Any]:
    points, queries = (a.copy() for a in request.param)
    # Duplicates of plots among plots and pixels, and some that nearly are.
    points[len(points) // 2] = points[0]
    near = points[:40] * (1 + 1e-9)
    queries = np.concatenate([queries, points[:40], near, 40 * points[:5]])
    return points, queries, all_distances(queries, points)


@every_engine
def test_nearest_and_count_are_those_of_brute_force(
    opener: Callable[..., Neighbours], case: tuple[Any, Any, Any]
) -> None:
    points, queries, expected = case
    opened = opener(points)
    assert opened.nearest(queries).tobytes() == expected.min(axis=1).tobytes()
    # A distance that occurs is a threshold at which it is decided by the last bit.
    for unit, threshold in (
        (1.0, float(np.median(expected))),
        (1.0, float(np.sort(expected.min(axis=1))[len(queries) // 2])),
        (1.7, float(expected[0, 0]) / 1.7),
        (1.0, 0.0),
    ):
        near = Nearness(unit, threshold)
        nearest, count = opened.nearest_and_count(queries, near)
        assert nearest.tobytes() == expected.min(axis=1).tobytes()
        np.testing.assert_array_equal(count, (expected / unit < threshold).sum(axis=1))


@pytest.mark.parametrize(
    "windows",
    [
        pytest.param({1: 40, 7: 140, 513: 2500}, id="some"),
        pytest.param({1: 600, 7: 600, 513: 2500}, id="all", marks=pytest.mark.thorough),
    ],
)
@every_engine
def test_blocks_and_threads_change_no_bit(
    opener: Callable[..., Neighbours], windows: dict[int, int]
) -> None:
    points, queries = decaying(1500, 12, 1), decaying(2500, 12, 2)
    one, two = opener(points), opener(points, threads=2)
    near = Nearness(1.3, 0.9)
    nearest, count = one.nearest_and_count(queries, near)
    for found in (two.nearest(queries), one.nearest(np.asfortranarray(queries))):
        assert found.tobytes() == nearest.tobytes()
    for size, stop in windows.items():
        parts = [two.nearest_and_count(queries[i : i + size], near) for i in range(0, stop, size)]
        together = np.concatenate([part[0] for part in parts])
        assert together.tobytes() == nearest[: len(together)].tobytes()
        np.testing.assert_array_equal(
            np.concatenate([part[1] for part in parts]), count[: len(together)]
        )


@every_engine
def test_threads_of_the_caller_may_ask_at_once(opener: Callable[..., Neighbours]) -> None:
    opened, queries = opener(decaying(900, 20, 1)), normal(3000, 20, 2)
    near = Nearness(1.0, 2.0)
    expected = opened.nearest_and_count(queries, near)
    parts = [slice(i, i + 500) for i in range(0, 3000, 500)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = list(
                pool.map(lambda part: opened.nearest_and_count(queries[part], near), parts)
            )
            plain = list(pool.map(lambda part: opened.nearest(queries[part]), parts))
            assert np.concatenate(plain).tobytes() == expected[0].tobytes()
            assert np.concatenate([a for a, _ in found]).tobytes() == expected[0].tobytes()
            np.testing.assert_array_equal(np.concatenate([b for _, b in found]), expected[1])


@every_engine
def test_no_query_has_an_empty_answer(opener: Callable[..., Neighbours]) -> None:
    opened = opener(normal(30, 3, 1))
    nearest, count = opened.nearest_and_count(np.empty((0, 3)), Nearness(1.0, 1.0))
    assert nearest.shape == count.shape == (0,)


def test_several_spans_of_points_are_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    points, queries = decaying(1000, 30, 1), decaying(300, 30, 2)
    expected = all_distances(queries, points)
    monkeypatch.setattr(blocks, "_SPAN", 128)
    monkeypatch.setattr(device, "_SPAN", 128)
    monkeypatch.setattr(device, "_PROPOSALS", 64)
    for opened in (BlockNeighbours(points), open_array(points)):
        nearest, count = opened.nearest_and_count(queries, Nearness(1.0, 1.5))
        assert opened.nearest(queries).tobytes() == nearest.tobytes()
        assert nearest.tobytes() == expected.min(axis=1).tobytes()
        np.testing.assert_array_equal(count, (expected < 1.5).sum(axis=1))


def near_ties() -> tuple[Any, Any]:
    """Pairs of points, of which float32 cannot tell which is the nearer, far apart in memory."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(1000, 16))
    second = first + 1e-7 * rng.normal(size=first.shape)
    return np.concatenate([first, second]), first + 1e-3 * rng.normal(size=first.shape)


@pytest.mark.parametrize(
    ("module", "opener"),
    [(blocks, BlockNeighbours), (device, open_array)],
    ids=["blocks", "cupy"],
)
def test_without_the_rounding_bound_it_would_go_wrong(
    module: Any, opener: Callable[..., Neighbours], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data are hard enough to show a fault in the bound."""
    points, queries = near_ties()
    expected = all_distances(queries, points)
    near = Nearness(1.0, float(np.median(expected.min(axis=1))))
    counted = (expected < near.threshold).sum(axis=1)
    nearest, count = opener(points).nearest_and_count(queries, near)
    assert nearest.tobytes() == expected.min(axis=1).tobytes()
    assert opener(points).nearest(queries).tobytes() == nearest.tobytes()
    np.testing.assert_array_equal(count, counted)

    monkeypatch.setattr(module, "rounding_bound", lambda _: 0.0)
    blind = opener(points)
    assert (blind.nearest(queries) != nearest).any()
    assert (blind.nearest_and_count(queries, near)[1] != counted).any()


def test_fewer_dimensions_are_looked_at_where_they_hold_the_variance() -> None:
    assert rotation.plan_rotation(normal(500, 30, 1)) is None
    assert rotation.plan_rotation(np.ones((20, 4))) is None
    planned = rotation.plan_rotation(decaying(500, 30, 1))
    assert planned is not None
    assert 5 < planned.kept < 20
    points, queries = decaying(300, 30, 1), decaying(50, 30, 2)
    short = all_distances(planned.shorten(queries), planned.shorten(points))
    assert (short <= all_distances(queries, points) * (1 + 1e-12)).all()


def test_first_look_that_is_no_help_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    points, queries = decaying(3000, 60, 1), 3 * normal(800, 60, 2)
    expected = BruteNeighbours(points).nearest(queries)
    monkeypatch.setattr(blocks, "_WORTH", 0)
    opened = BlockNeighbours(points)
    assert opened.nearest(queries).tobytes() == expected.tobytes()
    assert opened._local.skip > 0


def test_pairs_are_those_of_brute_force() -> None:
    for points, folds in (
        (normal(333, 5, 1), np.arange(333) % 4),
        (codes(200, 3, 2), np.random.default_rng(1).integers(-1, 3, 200)),
        (normal(2, 1, 3), np.array([0, 1])),
    ):
        between = all_distances(points, points)
        one, two = (summarise_pairs(points, folds, threads=count) for count in (1, 2))
        off = ~np.eye(len(points), dtype=bool)
        assert one.mean_distance == pytest.approx(between[off].mean(), rel=1e-12)
        between[folds[:, None] == folds] = np.inf
        np.testing.assert_array_equal(one.nearest, between.min(axis=1))
        assert one.nearest.tobytes() == two.nearest.tobytes()
        assert one.mean_distance.hex() == two.mean_distance.hex()


def test_engine_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    points = normal(50, 3, 1)
    with pytest.raises(ConfigError, match=r"no such engine.*got: annoy.*expected: one of auto"):
        open_neighbours(points, engine="annoy")
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(
        ConfigError, match=r"cupy cannot be used here; got: .*cannot be imported.*expected: .*do: "
    ):
        open_neighbours(points, engine="cupy")
    with pytest.raises(ConfigError, match=r"cupy cannot be used.*do: "):
        ArrayNeighbours(points)


@pytest.mark.parametrize("devices", [0, None])
def test_cupy_without_a_device_is_refused(
    devices: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CUDARuntimeError(RuntimeError):
        pass

    def count() -> int:
        if devices is None:
            raise CUDARuntimeError("no driver")
        return devices

    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    fake = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    with pytest.raises(ConfigError, match="finds no device"):
        open_neighbours(normal(50, 3, 1), engine="cupy")


def test_products_of_less_than_float32_are_refused() -> None:
    class Rounding(np.ndarray):
        """As TF32: ten bits of what is multiplied."""

        def __matmul__(self, other: Any) -> Any:
            def rounded(values: Any) -> Any:
                bits = np.ascontiguousarray(values).view(np.uint32)
                return (bits & np.uint32(0xFFFFE000)).view(np.float32)

            return rounded(np.asarray(self)) @ rounded(np.asarray(other))

    fake = SimpleNamespace(
        asarray=np.asarray, zeros=lambda *a, **k: np.zeros(*a, **k).view(Rounding)
    )
    with pytest.raises(ConfigError, match="CUPY_TF32"):
        ArrayNeighbours(normal(50, 3, 1), xp=fake)


@pytest.mark.parametrize(
    ("plots", "sample", "dimensions", "engine"),
    [
        (TREE_PLOTS, None, 2, "tree"),
        (TREE_PLOTS - 1, None, 2, "blocks"),
        (TREE_PLOTS, None, 4, "blocks"),
        (TREE_PLOTS, 500, 2, "tree"),
        (TREE_PLOTS - 1, 500, 2, "blocks"),
    ],
)
def test_a_tree_is_for_many_plots_in_few_dimensions(
    plots: int, sample: int | None, dimensions: int, engine: str
) -> None:
    scale = np.r_[np.ones(dimensions), np.full(4, 1e-3)]
    points = normal(sample or plots, dimensions + 4, 3) * scale
    # evenly filled: dimensions of noise differ a little in what they fill
    points /= points.std(axis=0) / scale
    assert effective_dimensions(points) == pytest.approx(dimensions, abs=0.05)
    chosen = choose_engine(points * np.r_[1.2, np.ones(dimensions + 3)], sample and plots)
    assert chosen == engine
    if sample is None:
        assert open_neighbours(points).engine in (engine, "blocks")


def test_an_engine_that_was_removed_runs_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    points, queries = normal(50, 3, 1), normal(20, 3, 2)
    opened = open_neighbours(points, engine="faiss")
    assert "the engine faiss was removed" in caplog.text
    assert opened.engine == "blocks"
    np.testing.assert_array_equal(
        opened.nearest(queries), open_neighbours(points, engine="brute").nearest(queries)
    )


def blas_threads() -> set[int]:
    """Of the libraries that have one number for the whole process."""
    return {
        info["num_threads"]
        for info in threadpool_info()
        if info["user_api"] == "blas" and info.get("threading_layer") != "openmp"
    }


def test_blas_limit_outlives_the_first_to_enter_and_the_first_to_leave() -> None:
    with ThreadPoolExecutor(1) as pool:
        outer = pool.submit(lambda: threadpool_limits(2, user_api="blas")).result()
    assert blas_threads() == {2}
    events = [threading.Event() for _ in range(4)]
    first_in, second_in, first_may_leave, second_may_leave = events

    def hold(inside: threading.Event, leave: threading.Event) -> None:
        with single_threaded_blas(), single_threaded_blas():
            inside.set()
            leave.wait(30)

    first = threading.Thread(target=hold, args=(first_in, first_may_leave))
    second = threading.Thread(target=hold, args=(second_in, second_may_leave))
    first.start()
    first_in.wait(30)
    second.start()
    second_in.wait(30)
    first_may_leave.set()
    first.join()
    assert blas_threads() == {1}, "the second still holds it"
    second_may_leave.set()
    second.join()
    assert blas_threads() == {2}
    with single_threaded_blas():
        leaver = threading.Thread(target=hold, args=(threading.Event(), second_may_leave))
        leaver.start()
        leaver.join()
        assert blas_threads() == {1}
    assert blas_threads() == {2}
    assert threads._holders == 0
    with ThreadPoolExecutor(1) as pool:
        pool.submit(outer.restore_original_limits).result()
