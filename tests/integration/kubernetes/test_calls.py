"""What the backend asks of an API server: which calls, how many, and with which rights."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from muster import storage
from muster.backends.kubernetes.names import RIGHTS, job_name
from muster.backends.local import LocalBackend
from muster.errors import InvalidInput
from muster.jobs.supervision.supervisor import Supervisor
from muster.model.fence import write_fences
from muster.model.wave import Wave
from muster.store import batches, claims
from tests.batches import add_steps_to_path, make_batch, store_batch
from tests.integration.kubernetes.backend_under_test import QUICK, Desk, make_target
from tests.integration.resampling.test_resample import inputs as plan_inputs
from tests.integration.resampling.test_resample import write_source
from tests.kubernetes_under_test import make_job
from tests.s3_server import empty_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from muster.model.batch import Batch
    from muster.store.database import Database
    from tests.kubernetes_under_test import KubernetesUnderTest

thorough = pytest.mark.thorough


@pytest.fixture
def desk(
    kubernetes: KubernetesUnderTest, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Desk:
    add_steps_to_path(monkeypatch)
    return Desk(kubernetes, db, tmp_path)


@pytest.fixture
def bucket(s3_server: str) -> Iterator[str]:
    with empty_bucket(s3_server, "work"):
        yield s3_server


def kinds(calls: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Return what was called, as rights name it."""
    return {
        (call["group"], "/".join(filter(None, (call["resource"], call["subresource"]))),
         call["verb"])
        for call in calls
        if "verb" in call
    }  # fmt: skip


def read_log(desk: Desk, batch: Batch) -> bytes:
    """Read a log by the backend that was used last, which remembers its pods."""

    async def read() -> bytes:
        try:
            return await desk.backends[-1].read_log(batch, 0, 1, 0)
        finally:
            await desk.backends[-1].close()

    return asyncio.run(read())


@thorough
def test_the_rights_that_are_listed_are_those_that_are_used(desk: Desk) -> None:
    """A pod that leaves no log, a Job without pods, a cancellation, and a run that does well."""
    kubernetes = desk.kubernetes
    kubernetes.calls()
    kubernetes.forget_calls()
    kubernetes.set_rights(list(RIGHTS))
    assert desk.supervise(desk.batch([desk.perform("well")])).succeeded

    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    kubernetes.create("resourcequotas", quota)
    batch = desk.batch([desk.perform("well")])

    def cancel() -> None:
        desk.until_degraded(batch, "exceeded quota")
        kubernetes.delete("resourcequotas", "none")
        with desk.db.transaction() as cursor:
            cursor.execute("UPDATE batch SET cancel_requested_at = now()")

    assert not desk.supervise(batch, cancel).succeeded
    with desk.db.transaction() as cursor:
        cursor.execute("UPDATE batch SET cancel_requested_at = NULL")
    silent = desk.batch([desk.perform("well")], cluster={"python": "ls"})
    assert not desk.supervise(silent).succeeded
    assert b"unrecognized option" in read_log(desk, silent), (
        "what the container said is read from its pod"
    )
    assert kinds(kubernetes.calls()) == set(RIGHTS)


def test_a_second_create_takes_up_the_first_and_no_other_job_of_its_name(desk: Desk) -> None:
    batch = desk.batch([desk.perform("sleep")])
    wave = Wave(batch, f"{batch.id}.w1.0", {0: 1}, batch.resources)
    other = replace(wave, key=f"{batch.id}.w2.0")
    write_fences(wave)
    foreign = make_job(job_name(other.key), ["true"])
    foreign["spec"]["suspend"] = True

    async def run() -> None:
        backend = desk.open(batch)
        try:
            assert await backend.submit(wave) == await backend.submit(wave) == job_name(wave.key)
            with pytest.raises(InvalidInput, match=r"another Job has this name.*do: delete it"):
                await backend.submit(other)
            assert await backend.find(other) is None
            await backend.cancel(other, None)
            assert desk.kubernetes.find("jobs", job_name(other.key)), "it is not ours to delete"
            await backend.cancel(wave, None)
        finally:
            await backend.close()

    desk.kubernetes.create("jobs", foreign)
    asyncio.run(run())
    assert desk.kubernetes.find("jobs", job_name(wave.key)) is None
    desk.kubernetes.delete("jobs", job_name(other.key))


def test_batches_of_a_process_share_one_list_and_one_watch(desk: Desk) -> None:
    kubernetes = desk.kubernetes
    kubernetes.calls()
    kubernetes.forget_calls()
    made = [desk.batch([desk.perform("well", seconds=1.0)]) for _ in range(3)]
    targets = {batch.target.model_dump_json(include={"cluster"}) for batch in made}
    assert len(targets) == 1

    async def run() -> list[bool]:
        backend = desk.open(made[0])
        try:
            ends = await asyncio.gather(
                *(
                    Supervisor(
                        desk.db, backend, claims.take_claim(desk.db, batch.id), back_off=QUICK
                    ).run()
                    for batch in made
                )
            )
        finally:
            await backend.close()
        return [end.succeeded for end in ends]

    assert asyncio.run(run()) == [True] * 3
    calls = [(c["verb"], c["resource"]) for c in kubernetes.calls() if "verb" in c]
    # a watch is written down when it begins and when it ends
    assert {call: calls.count(call) for call in calls if call[0] != "watch"} == {
        ("create", "jobs"): 3, ("list", "jobs"): 1, ("list", "pods"): 1,
    }  # fmt: skip
    assert calls.count(("watch", "jobs")) <= 2
    assert calls.count(("watch", "pods")) <= 2


@thorough
def test_the_same_batch_makes_the_same_bytes_as_on_this_machine(desk: Desk) -> None:
    """A raster is resampled in a pod and in a process of this machine."""
    write_source(desk.folder / "source.tif")
    inputs = plan_inputs(desk.folder)
    made = {}
    for name in ("there", "here"):
        batch = make_batch(desk.folder / name, [inputs], step="resampling.resample", name=name)
        outputs = {"cog": str(desk.folder / name / "field.tif")}
        element = batch.elements[0].model_copy(update={"outputs": outputs})
        made[name] = batch.model_copy(update={"elements": (element,)})
    target = make_target(desk.kubernetes, desk.folder)
    there = store_batch(desk.db, made["there"].model_copy(update={"target": target}))
    here = store_batch(desk.db, made["here"])
    assert desk.supervise(there).succeeded
    claim = claims.take_claim(desk.db, here.id)
    assert asyncio.run(Supervisor(desk.db, LocalBackend(), claim, back_off=QUICK).run()).succeeded
    digests = {storage.sha256(str(desk.folder / name / "field.tif")) for name in ("there", "here")}
    assert len(digests) == 1
    with desk.db.transaction() as cursor:
        cursor.execute("SELECT DISTINCT sha256 FROM artifact WHERE name = 'cog'")
        assert {digest for (digest,) in cursor.fetchall()} == digests


@thorough
def test_with_a_work_directory_on_s3_nothing_else_is_shared(desk: Desk, bucket: str) -> None:
    """Elements, results and logs travel by S3; the log is there while its element runs."""
    environment = {
        "AWS_ENDPOINT_URL": bucket,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    gate = desk.folder / "gate"
    inputs = {"lines": 4, "name": "e", "gate": str(gate)}
    batch = desk.batch([inputs], step="test.talk", pool={"environment": environment})
    with desk.db.transaction() as cursor:
        cursor.execute("DELETE FROM batch")
    batch = batch.model_copy(
        update={"work_uri": f"s3://work/{batch.id}", "pool_uri": "s3://work/pool"}
    )
    store_batch(desk.db, batch)
    seen: list[bytes] = []

    def follow() -> None:
        desk.job(batch)
        uri = batch.log_uri(0, 1)
        desk.kubernetes.until(
            lambda: storage.exists(uri) and b"e says 1" in storage.read_bytes(uri)
        )
        seen.append(storage.read_bytes(uri))
        gate.touch()

    assert desk.supervise(batch, follow).succeeded
    whole = read_log(desk, batch)
    assert b"e says 3" not in seen[0]
    assert [whole.count(f"e says {i}".encode()) for i in range(4)] == [1] * 4
    (element,) = batches.read_elements(desk.db, batch.id)
    assert element.attempts[0].host is not None
