"""What every backend must do; a backend's tests inherit this class and say how to make one.

The suite looks behind the interface: at the process table, at the files that jobs leave.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from muster import storage
from muster.jobs.running.runner import Running, run_elements
from muster.model.attempt import Fence, Result
from muster.model.fence import write_fences
from muster.model.outcome import ALIVE, JobState, Observation
from muster.model.wave import Wave
from tests.batches import add_steps_to_path, make_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from muster.backends.contract import Backend
    from muster.model.batch import Batch

PATIENCE_S = 60.0
HOSTILE = "a b'c\"d$(touch MARKER)`id`\nline\t—ü;&|<>*?%s{}"


class BackendContract:
    """Tests of the contract; subclasses implement :meth:`make_backend` and :meth:`count_jobs`."""

    slots = 2

    def make_backend(self) -> Backend:
        """Make a backend as a fresh process would."""
        raise NotImplementedError

    def place(self, batch: Batch) -> Batch:
        """Put a batch where this backend runs it."""
        return batch

    def count_jobs(self, key: str) -> int:
        """Count what really runs under a submission key, behind the backend's back."""
        raise NotImplementedError

    def set_fence(self, batch: Batch, index: int, order: Fence) -> None:
        """Make another attempt the current one, where the job looks."""
        wave = Wave(batch, order.submission, {index: order.attempt}, order.resources)
        write_fences(wave)

    @pytest.fixture(autouse=True)
    def _steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        add_steps_to_path(monkeypatch)

    # -- what the tests are made of --------------------------------------------------------

    def wave(self, folder: Path, inputs: list[dict[str, Any]], **options: Any) -> Wave:
        batch = self.place(make_batch(folder, inputs, slots=self.slots, **options))
        key = f"{batch.id}.w1.{uuid.uuid4().hex[:8]}"
        wave = Wave(batch, key, dict.fromkeys(range(len(inputs)), 1), batch.resources)
        write_fences(wave)
        return wave

    def run(self, scenario: Callable[[Backend], Coroutine[Any, Any, Any]]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(PATIENCE_S):
                backend = self.make_backend()
                try:
                    return await scenario(backend)
                finally:
                    await backend.close()

        return asyncio.run(bounded())

    async def until_ended(
        self, backend: Backend, wave: Wave, reference: str
    ) -> dict[int, Observation]:
        while True:
            seen = dict(await backend.observe(wave, reference))
            if not any(o.state in ALIVE | {JobState.UNKNOWN} for o in seen.values()):
                return seen
            await backend.wait_for_change()

    async def until_running(self, backend: Backend, wave: Wave, reference: str) -> None:
        while True:
            seen = await backend.observe(wave, reference)
            if all(o.state is JobState.RUNNING for o in seen.values()) and self.count_jobs(
                wave.key
            ):
                return
            await backend.wait_for_change()

    @staticmethod
    def result(batch: Batch, index: int = 0) -> Result:
        return Result.model_validate_json(storage.read_bytes(batch.result_uri(index, 1)))

    # -- the contract ------------------------------------------------------------------------

    def test_what_was_never_submitted_is_not_found(self, tmp_path: Path) -> None:
        wave = self.wave(tmp_path, [{"text": "a"}])
        assert self.run(lambda backend: backend.find(wave)) is None

    def test_a_wave_runs_and_its_results_are_there(self, tmp_path: Path) -> None:
        wave = self.wave(tmp_path, [{"text": f"t{i}"} for i in range(3)])

        async def scenario(backend: Backend) -> dict[int, Observation]:
            return await self.until_ended(backend, wave, await backend.submit(wave))

        seen = self.run(scenario)
        assert [seen[i].state for i in range(3)] == [JobState.COMPLETED] * 3
        for index in range(3):
            result = self.result(wave.batch, index)
            assert (result.submission, result.index) == (wave.key, index)
            assert storage.read_text(result.artifacts[0].uri) == f"t{index}"
        assert self.count_jobs(wave.key) == 0

    @pytest.mark.parametrize(
        ("how", "code"), [("invalid", 65), ("missing", 66), ("raise", 70), ("transient", 75)]
    )
    def test_the_exit_code_tells_the_class_of_a_failure(
        self, tmp_path: Path, how: str, code: int
    ) -> None:
        ledger = str(tmp_path / "ledger")
        wave = self.wave(tmp_path, [{"how": how, "ledger": ledger}], step="test.misbehave")

        async def scenario(backend: Backend) -> dict[int, Observation]:
            return await self.until_ended(backend, wave, await backend.submit(wave))

        seen = self.run(scenario)[0]
        assert (seen.state, seen.exit_code) == (JobState.FAILED, code)

    def test_another_process_finds_what_runs_and_sees_it_end(self, tmp_path: Path) -> None:
        wave = self.wave(tmp_path, [{"text": "a", "seconds": 5.0}])

        async def scenario(backend: Backend) -> None:
            reference = await backend.submit(wave)
            await self.until_running(backend, wave, reference)
            other = self.make_backend()
            found = await other.find(wave)
            assert found is not None
            await self.until_running(other, wave, found)
            await self.until_ended(other, wave, found)
            await self.until_ended(backend, wave, reference)
            await other.close()

        self.run(scenario)
        assert self.result(wave.batch).outcome == "succeeded"

    def test_a_cancelled_wave_has_ended_when_cancel_returns(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger"
        wishes = [{"how": "sleep", "ledger": str(ledger)}] * self.slots
        wave = self.wave(tmp_path, wishes, step="test.misbehave")

        async def scenario(backend: Backend) -> dict[int, Observation]:
            reference = await backend.submit(wave)
            while not ledger.exists() or len(ledger.read_text().split()) < self.slots:
                await asyncio.sleep(0.05)
            other = self.make_backend()
            await other.cancel(wave, reference)
            await other.close()
            assert self.count_jobs(wave.key) == 0
            await backend.cancel(wave, reference)
            return await self.until_ended(backend, wave, reference)

        seen = self.run(scenario)
        assert all(o.state is not JobState.COMPLETED for o in seen.values())
        assert self.result(wave.batch).outcome == "terminated"
        assert not list((tmp_path / "products").iterdir()), "nothing may be published"

    def test_what_waits_can_be_cancelled_too(self, tmp_path: Path) -> None:
        ledger = str(tmp_path / "ledger")
        wishes = [{"how": "sleep", "ledger": ledger}] * (self.slots + 2)
        wave = self.wave(tmp_path, wishes, step="test.misbehave")

        async def scenario(backend: Backend) -> None:
            reference = await backend.submit(wave)
            while self.count_jobs(wave.key) < self.slots:
                await asyncio.sleep(0.05)
            await backend.cancel(wave, reference)
            await asyncio.sleep(1.0)
            assert self.count_jobs(wave.key) == 0
            await self.until_ended(backend, wave, reference)

        self.run(scenario)

    def test_cancelling_one_wave_leaves_the_others_alone(self, tmp_path: Path) -> None:
        doomed = self.wave(tmp_path, [{"text": "a", "seconds": 30.0}], name="doomed")
        other = self.wave(tmp_path, [{"text": "b", "seconds": 2.0}], name="doomed-not")

        async def scenario(backend: Backend) -> None:
            references = [await backend.submit(doomed), await backend.submit(other)]
            await self.until_running(backend, other, references[1])
            await backend.cancel(doomed, references[0])
            seen = await self.until_ended(backend, other, references[1])
            assert seen[0].state is JobState.COMPLETED

        self.run(scenario)

    def test_cancelling_what_was_never_submitted_is_harmless(self, tmp_path: Path) -> None:
        wave = self.wave(tmp_path, [{"text": "a"}])
        self.run(lambda backend: backend.cancel(wave, None))

    def test_what_nobody_knows_is_gone(self, tmp_path: Path) -> None:
        wave = self.wave(tmp_path, [{"text": "a"}])
        seen = self.run(lambda backend: self.until_ended(backend, wave, "reference of old"))
        assert seen[0].state is JobState.GONE

    def test_the_log_is_read_by_offset_without_gap_or_double(self, tmp_path: Path) -> None:
        ledger = str(tmp_path / "ledger")
        wave = self.wave(tmp_path, [{"how": "fine", "ledger": ledger}], step="test.misbehave")

        async def scenario(backend: Backend) -> tuple[bytes, bytes]:
            reference = await backend.submit(wave)
            parts = b""
            while True:
                seen = await backend.observe(wave, reference)
                parts += await backend.read_log(wave.batch, 0, 1, len(parts))
                if seen[0].state not in ALIVE | {JobState.UNKNOWN}:
                    break
                await backend.wait_for_change()
            parts += await backend.read_log(wave.batch, 0, 1, len(parts))
            return parts, await backend.read_log(wave.batch, 0, 1, 0)

        parts, whole = self.run(scenario)
        assert parts == whole
        assert b"succeeded" in whole

    def test_hostile_text_arrives_unchanged_and_runs_nothing(self, tmp_path: Path) -> None:
        folder, marker = tmp_path / "a b'c$(id)", tmp_path / "marker"
        hostile = HOSTILE.replace("MARKER", str(marker))
        wave = self.wave(folder, [{"text": hostile}])

        async def scenario(backend: Backend) -> dict[int, Observation]:
            return await self.until_ended(backend, wave, await backend.submit(wave))

        assert self.run(scenario)[0].state is JobState.COMPLETED
        assert storage.read_text(self.result(wave.batch).artifacts[0].uri) == hostile
        assert not marker.exists()

    def test_a_superseded_attempt_publishes_nothing(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger"
        wish = {"how": "slow", "ledger": str(ledger)}
        wave = self.wave(tmp_path, [wish], step="test.misbehave")

        async def scenario(backend: Backend) -> None:
            reference = await backend.submit(wave)
            while not ledger.exists():
                await asyncio.sleep(0.05)
            newer = Fence(submission="another", attempt=2, resources=wave.resources)
            self.set_fence(wave.batch, 0, newer)
            await self.until_ended(backend, wave, reference)

        self.run(scenario)
        assert self.result(wave.batch).outcome == "superseded"
        assert not (tmp_path / "products" / "b-0.txt").exists()

    def test_an_attempt_that_is_started_again_runs_nothing_again(self, tmp_path: Path) -> None:
        """A controller that has crashed may start a job a second time."""
        ledger = tmp_path / "ledger"
        wave = self.wave(tmp_path, [{"text": "a", "ledger": str(ledger)}])

        async def scenario(backend: Backend) -> None:
            await self.until_ended(backend, wave, await backend.submit(wave))

        self.run(scenario)
        again = run_elements(wave.batch.uri, [0], Running(wave.key))
        assert again == 0
        assert ledger.read_text() == "done a\n"
