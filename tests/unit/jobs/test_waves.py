"""What goes into a wave: arrays of a stated size, elements with resources of their own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from muster.backends.slurm.render import render_batch, render_script
from muster.jobs.supervision.retry import BackOff
from muster.jobs.supervision.waves import Due, find_due
from muster.model.outcome import Outcome
from muster.model.resources import Caps, Resources
from muster.model.retry_policy import RetryPolicy
from muster.model.slurm_target import SlurmTarget
from muster.model.wave import Wave
from muster.store.records import Attempt, AttemptState, BatchRecord, ElementRecord
from tests.batches import make_batch

if TYPE_CHECKING:
    from pathlib import Path

    from muster.model.batch import Batch

NOW = datetime(2026, 1, 1, tzinfo=UTC)
USUAL = Resources(cpus=2, memory_mib=1000, time_limit_s=600)
LARGE = Resources(cpus=2, memory_mib=2000, time_limit_s=600)


def batch_of(folder: Path, count: int, large: tuple[int, ...] = (), **more: Any) -> Batch:
    batch = make_batch(
        folder, [{}] * count, resources=USUAL, caps=Caps(memory_mib=4000),
        slurm=SlurmTarget(partition="genoa", pack=more.pop("pack", 1)), slots=more.pop("slots", 2),
    )  # fmt: skip
    elements = tuple(
        e.model_copy(update={"resources": LARGE}) if e.index in large else e for e in batch.elements
    )
    return batch.model_copy(update={"elements": elements, **more})


def record_of(
    batch: Batch, ended: dict[int, list[Outcome]] | None = None, open_: tuple[int, ...] = ()
) -> BatchRecord:
    """Make a record in which elements have attempts, the last of which ended a minute ago."""
    elements = []
    for element in batch.elements:
        wants = batch.resources_of(element.index)
        past = [
            _attempt(element.index, number, outcome, wants)
            for number, outcome in enumerate((ended or {}).get(element.index, []), 1)
        ]
        if element.index in open_:
            past.append(_attempt(element.index, 1, None, wants))
        state = past[-1].outcome or "running" if past else "pending"
        elements.append(ElementRecord(element.index, element.index, element.name, state, (*past,)))
    return BatchRecord(batch, 1, NOW - timedelta(hours=1), False, None, (), (*elements,), NOW)


def _attempt(element: int, number: int, outcome: Outcome | None, wants: Resources) -> Attempt:
    return Attempt(
        id=100 * element + number, submission_id=1, number=number, generation=1,
        state=AttemptState.ENDED if outcome else AttemptState.RUNNING, outcome=outcome,
        resources=wants, host=None, missing_since=None,
        ended_at=NOW - timedelta(minutes=1) if outcome else None, message=None,
    )  # fmt: skip


def indexes(due: list[Due]) -> list[list[int]]:
    return [[element.index for element in one.elements] for one in due]


def test_without_a_size_all_that_is_due_goes_together(tmp_path: Path) -> None:
    due, later = find_due(record_of(batch_of(tmp_path, 5)), BackOff())
    assert (indexes(due), later) == ([[0, 1, 2, 3, 4]], False)


def test_an_array_holds_at_most_so_many_elements(tmp_path: Path) -> None:
    batch = batch_of(tmp_path, 7, array_size=3)
    due, _ = find_due(record_of(batch), BackOff())
    assert indexes(due) == [[0, 1, 2], [3, 4, 5], [6]]
    due, _ = find_due(record_of(batch, open_=(0, 1, 2)), BackOff())
    assert indexes(due) == [[3, 4, 5], [6]], "the others go on while one array is open"
    due, _ = find_due(record_of(batch, {i: [Outcome.SUCCEEDED] for i in range(6)}), BackOff())
    assert indexes(due) == [[6]]


def test_elements_with_resources_of_their_own_are_submitted_with_them(tmp_path: Path) -> None:
    batch = batch_of(tmp_path, 5, large=(1, 3), array_size=2)
    due, _ = find_due(record_of(batch), BackOff())
    assert [(d.resources, i) for d, i in zip(due, indexes(due), strict=True)] == [
        (USUAL, [0, 2]), (USUAL, [4]), (LARGE, [1, 3]),
    ]  # fmt: skip


def test_a_retry_grows_from_what_the_element_had(tmp_path: Path) -> None:
    batch = batch_of(tmp_path, 2, large=(1,))
    killed = {0: [Outcome.OUT_OF_MEMORY], 1: [Outcome.OUT_OF_MEMORY]}
    due, _ = find_due(record_of(batch, killed), BackOff())
    assert {d.resources.memory_mib: i for d, i in zip(due, indexes(due), strict=True)} == {
        1500: [0], 3000: [1],
    }  # fmt: skip


def test_the_policy_of_the_batch_says_how_often_and_after_which_delay(tmp_path: Path) -> None:
    failed = {0: [Outcome.TRANSIENT] * 2}
    due = lambda **policy: find_due(  # noqa: E731
        record_of(batch_of(tmp_path, 1, retries=RetryPolicy(**policy)), failed), BackOff(1e3, 1e4)
    )
    assert due() == ([], True), "the supervisor's own delay"
    assert due(backoff="none")[0], "at once"
    assert due(first_delay_s=10.0)[0], "a minute is more than 20 s"
    assert due(first_delay_s=100.0, backoff="fixed") == due(first_delay_s=1000.0) == ([], True)
    assert due(max_retries=1) == ([], False)


def test_what_waits_is_not_in_anybodys_array(tmp_path: Path) -> None:
    batch = batch_of(tmp_path, 4, array_size=2)
    due, later = find_due(record_of(batch, {1: [Outcome.TRANSIENT]}), BackOff(1000.0, 1000.0))
    assert (indexes(due), later) == ([[0, 2], [3]], True)


@pytest.mark.parametrize(
    ("slots", "size", "each"),
    [(64, 100, 32), (64, 200, 64), (64, 67, 21), (2, 50, 1), (5, None, 5)],
)
def test_arrays_that_are_open_together_share_the_slots(
    tmp_path: Path, slots: int, size: int | None, each: int
) -> None:
    batch = batch_of(tmp_path, 200, slots=slots, array_size=size)
    assert batch.wave_slots == each


def test_the_script_of_the_first_array_is_shown(tmp_path: Path) -> None:
    batch = batch_of(tmp_path, 20, large=(0, 2, 5), slots=4, array_size=5, pack=2)
    script = render_batch(batch)
    assert "--array=0-1%1\n" in script, "three elements by two a task, a quarter of four slots"
    assert "--mem=2000M\n" in script
    due, _ = find_due(record_of(batch), BackOff())
    usual = next(d for d in due if d.resources == USUAL)
    wave = Wave(batch, f"{batch.id}.w1", {e.index: 1 for e in usual.elements}, usual.resources)
    assert "--array=0-2%1\n" in render_script(wave, slots=batch.wave_slots)
