"""The local backend: the contract, and what only processes of this machine have."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from muster.backends.local import LocalBackend, find_processes
from tests.backend_contract import BackendContract

if TYPE_CHECKING:
    from pathlib import Path

    from muster.backends.contract import Backend

pytestmark = pytest.mark.slow

START = """
import asyncio, sys
from muster.model.wave import Wave
from muster.backends.local import LocalBackend
from muster.jobs.running.runner import read_batch_file
batch = read_batch_file(sys.argv[1])
async def main():
    await LocalBackend().submit(Wave(batch, sys.argv[2], {0: 1}, batch.resources))
    await asyncio.sleep(60)
asyncio.run(main())
"""


class TestLocalBackend(BackendContract):
    """The contract, kept by processes of this machine."""

    def make_backend(self) -> Backend:
        return LocalBackend()

    def count_jobs(self, key: str) -> int:
        count = 0
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                count += (
                    environment.get("MUSTER_JOB") == key
                    and "MUSTER_ROLE" not in environment
                    and process.status() != psutil.STATUS_ZOMBIE
                )
            except psutil.Error:
                continue
        return count

    def test_never_more_at_once_than_slots(self, tmp_path: Path) -> None:
        wave = self.wave(tmp_path, [{"text": "a", "seconds": 0.5}] * 5)

        async def scenario(backend: Backend) -> int:
            reference = await backend.submit(wave)
            most = 0
            while True:
                most = max(most, self.count_jobs(wave.key))
                seen = await backend.observe(wave, reference)
                if all(o.exit_code is not None for o in seen.values()):
                    return most
                await asyncio.sleep(0.05)

        assert self.run(scenario) == self.slots

    def test_jobs_die_with_who_started_them_and_free_their_slot(self, tmp_path: Path) -> None:
        wave = self.wave(tmp_path, [{"text": "a", "seconds": 60.0}])
        parent = subprocess.Popen([sys.executable, "-c", START, wave.batch.uri, wave.key])
        deadline = time.monotonic() + 30
        steps: list[psutil.Process] = []
        while not steps and time.monotonic() < deadline:
            time.sleep(0.05)
            runners = find_processes(wave.key).get(0, [])
            steps = psutil.Process(runners[0]).children() if runners else []
        assert steps
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        psutil.wait_procs(steps, timeout=10)
        assert not find_processes(wave.key)
        assert not steps[0].is_running()
        assert self._slots_are_free(wave.batch.pool_uri)

    def test_a_job_gets_no_credentials_of_the_metadata_stores(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secrets = ("MUSTER_STORE_URL", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CORE__X")
        for name in secrets:
            monkeypatch.setenv(name, "secret")
        monkeypatch.setenv("MY_SETTING", "kept")
        wave = self.wave(tmp_path, [{"text": "a", "seconds": 1.5}])

        async def scenario(backend: Backend) -> dict[str, str]:
            reference = await backend.submit(wave)
            await self.until_running(backend, wave, reference)
            environment = psutil.Process(find_processes(wave.key)[0][0]).environ()
            await self.until_ended(backend, wave, reference)
            return environment

        environment = self.run(scenario)
        assert not set(secrets) & set(environment)
        assert environment["MY_SETTING"] == "kept"
        for name in ("JOB", "BATCH", "INDEX", "ATTEMPT", "WORK"):
            assert f"MUSTER_{name}" in environment

    @staticmethod
    def _slots_are_free(pool_uri: str) -> bool:
        import fcntl
        from pathlib import Path

        for path in Path(pool_uri).glob("slot-*"):
            with path.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
