"""A budget of CPU seconds for each test that is not marked as dear, and the dearest in the summary.

What counts is the time of the test's own process and of the children that it has waited for, in the
test and in fixtures of its function.  Time in fixtures of wider scopes is listed under their own
names, and so is that in which Numba compiles kernels, which the first test in a fresh clone meets.
Servers that outlive a test are not seen.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

BUDGET_S = 5.0
EXEMPT = ("slow", "airflow", "slurm", "thorough")
"""Markers of tests that may take more."""

LISTED = 20
PROPERTY = "cpu_s"
PLUGIN = "cpu-budget"


def used_cpu_s() -> float:
    """Return user and system time of this process and of the children it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass(eq=False)
class Meter:
    """What one process has used for the test at hand and for fixtures of wider scopes.

    Attributes
    ----------
    budget_s : float
        What a test may use.
    began_s : float
        CPU time at the start of the test.
    shared_s : float
        What the test's setup and teardown took for fixtures of wider scopes.
    ended_s : float or None
        CPU time when the last fixture of the test's function was torn down.
    compiled_s : float
        What Numba took within the test.
    fixtures : list of (str, float)
        Names and times of fixtures of wider scopes, told with the next report.
    spent : list of (str, float)
        Everything told so far, in the process that prints the summary.
    """

    budget_s: float
    began_s: float = 0.0
    shared_s: float = 0.0
    ended_s: float | None = None
    compiled_s: float = 0.0
    fixtures: list[tuple[str, float]] = field(default_factory=list)
    spent: list[tuple[str, float]] = field(default_factory=list)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        self.began_s, self.ended_s = used_cpu_s(), None
        self.shared_s, self.compiled_s, self.fixtures = 0.0, 0.0, []
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        before_s, inner_s = used_cpu_s(), self.shared_s
        try:
            return (yield)
        finally:
            if fixturedef.scope != "function":
                own_s = used_cpu_s() - before_s - (self.shared_s - inner_s)
                self.shared_s += own_s
                self.fixtures.append((f"{fixturedef.scope} fixture {fixturedef.argname}", own_s))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        ended_s = used_cpu_s()
        try:
            return (yield)
        finally:
            used_s = (self.ended_s or ended_s) - self.began_s - self.shared_s - self.compiled_s
            spent = [(item.nodeid, used_s), *self.fixtures]
            if self.compiled_s:
                spent.append(("compiling with Numba", self.compiled_s))
            item.user_properties.append((PROPERTY, spent))
            is_dear = any(item.get_closest_marker(name) for name in EXEMPT)
            if used_s > self.budget_s and not is_dear:
                pytest.fail(
                    f"CPU budget exceeded: {used_s:.1f} s of {self.budget_s:g} s;"
                    f" make the test cheaper, or mark it {' or '.join(EXEMPT)}",
                    pytrace=False,
                )

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        """Listen to Numba's compiler, where it is installed."""
        try:
            from numba.core import event
        except ImportError:
            return
        meter = self

        class Compiling(event.Listener):
            """Adds up the time of calls of the compiler, which may call itself."""

            depth = 0
            began_s = 0.0

            def on_start(self, event: object) -> None:
                if self.depth == 0:
                    self.began_s = time.process_time()
                self.depth += 1

            def on_end(self, event: object) -> None:
                self.depth -= 1
                if self.depth == 0:
                    meter.compiled_s += time.process_time() - self.began_s

        event.register("numba:compile", Compiling())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            for name, told in report.user_properties:
                if name == PROPERTY:
                    self.spent += [(str(what), float(cpu_s)) for what, cpu_s in told]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.spent:
            return
        sums: Counter[str] = Counter()
        for name, cpu_s in self.spent:
            sums[name] += cpu_s
        terminalreporter.section(f"the {LISTED} dearest of {sums.total():.0f} CPU seconds")
        for name, cpu_s in sums.most_common(LISTED):
            terminalreporter.write_line(f"{cpu_s:7.1f} s  {name}")


@pytest.fixture(autouse=True)
def _last_torn_down(pytestconfig: pytest.Config) -> Iterator[None]:
    """Note the time when all other fixtures of a test's function are torn down."""
    yield
    meter = pytestconfig.pluginmanager.get_plugin(PLUGIN)
    meter.ended_s = used_cpu_s()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a slower machine allow more."""
    parser.addoption(
        "--cpu-budget",
        type=float,
        default=BUDGET_S,
        metavar="SECONDS",
        help="CPU seconds of a test that is not marked as dear (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Meter every process; the one that prints the summary gets its reports from all."""
    config.pluginmanager.register(Meter(config.getoption("cpu_budget")), PLUGIN)
