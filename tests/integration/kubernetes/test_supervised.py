"""What becomes of elements whose pods, Jobs, nodes and API server go wrong, to the end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from muster.backends.kubernetes.names import job_name
from muster.jobs.supervision.supervisor import Supervisor
from muster.model.resources import Caps, Resources
from muster.store import batches, claims
from tests.batches import add_steps_to_path
from tests.integration.kubernetes.backend_under_test import Desk

if TYPE_CHECKING:
    from pathlib import Path

    from muster.store.database import Database
    from tests.kubernetes_under_test import KubernetesUnderTest

thorough = pytest.mark.thorough


@pytest.fixture
def desk(
    kubernetes: KubernetesUnderTest, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Desk:
    add_steps_to_path(monkeypatch)
    return Desk(kubernetes, db, tmp_path)


class TestEnds:
    """How pods end, and what is made of it."""

    def test_each_element_of_a_wave_has_its_own_end(self, desk: Desk) -> None:
        acts = ["invalid", "missing", "crash", "well"]
        wishes = [desk.perform(how) for how in acts]
        batch = desk.batch(wishes, slots=4)
        assert not desk.supervise(batch).succeeded
        assert desk.outcomes(batch) == [
            ["invalid_input"], ["missing_input"], ["software_error"] * 2, ["succeeded"],
        ]  # fmt: skip

    @thorough
    def test_a_container_that_the_kernel_ends_gets_more_memory(self, desk: Desk) -> None:
        resources, caps = Resources(memory_mib=300), Caps(memory_mib=400)
        batch = desk.batch([desk.perform("gulp")], resources=resources, caps=caps)
        end = desk.supervise(batch)
        assert desk.outcomes(batch) == [["out_of_memory"] * 2]
        (element,) = batches.read_elements(desk.db, batch.id)
        assert [a.resources.memory_mib for a in element.attempts] == [300, 400]
        assert "OOMKilled" in (end.elements[0].message or "")

    @thorough
    def test_what_is_evicted_runs_again_on_another_node(self, desk: Desk) -> None:
        batch = desk.batch([desk.perform("sleep", "well")])

        def evict() -> None:
            (pod,) = desk.begun(batch)
            desk.kubernetes.evict(pod["metadata"]["name"])

        assert desk.supervise(batch, evict).succeeded
        assert desk.outcomes(batch) == [["preempted", "succeeded"]]
        first, second = desk.hosts(batch)
        assert first != second

    @thorough
    def test_what_a_lost_node_ran_runs_again_on_another_one(self, desk: Desk) -> None:
        batch = desk.batch([desk.perform("sleep", "well")])
        lost: list[str] = []

        def lose() -> None:
            (pod,) = desk.begun(batch)
            lost.append(pod["spec"]["nodeName"])
            desk.kubernetes.lose_node(lost[0])

        try:
            assert desk.supervise(batch, lose).succeeded
        finally:
            desk.kubernetes.restore_node(lost[0])
        assert desk.outcomes(batch) == [["node_failed", "succeeded"]]
        assert desk.hosts(batch)[0] == lost[0] != desk.hosts(batch)[1]

    @thorough
    @pytest.mark.parametrize("policy", ["Background", "Foreground"])
    def test_a_job_that_somebody_deletes_is_tried_again(self, desk: Desk, policy: str) -> None:
        batch = desk.batch([desk.perform("sleep", "well")])

        def delete() -> None:
            desk.begun(batch)
            desk.kubernetes.delete("jobs", desk.job(batch), propagationPolicy=policy)

        assert desk.supervise(batch, delete).succeeded
        assert desk.outcomes(batch)[0][0] in ("transient", "lost")
        assert desk.outcomes(batch)[0][1:] == ["succeeded"]

    @thorough
    def test_a_pod_that_somebody_deletes_is_tried_again(self, desk: Desk) -> None:
        batch = desk.batch([desk.perform("sleep", "well")])

        def delete() -> None:
            (pod,) = desk.begun(batch)
            desk.kubernetes.delete("pods", pod["metadata"]["name"])

        assert desk.supervise(batch, delete).succeeded
        assert desk.outcomes(batch) == [["transient", "succeeded"]]

    @thorough
    def test_a_job_that_was_suspended_goes_on_under_the_same_attempt(self, desk: Desk) -> None:
        batch = desk.batch([desk.perform("sleep")])

        def suspend() -> None:
            desk.begun(batch)
            job = desk.job(batch)
            (desk.folder / "ledger").unlink()
            desk.kubernetes.suspend(job, suspended=True)
            desk.kubernetes.until(lambda: not desk.kubernetes.pods_of(job))
            time.sleep(2.0)
            desk.kubernetes.suspend(job, suspended=False)
            desk.begun(batch)
            assert "begin e 1 " in (desk.folder / "ledger").read_text()
            with desk.db.transaction() as cursor:
                cursor.execute("UPDATE batch SET cancel_requested_at = now()")

        desk.supervise(batch, suspend)
        assert desk.outcomes(batch) == [["cancelled"]]


class TestStarts:
    """What keeps pods from starting is said, and ended where no time helps."""

    @pytest.mark.parametrize(
        ("pool", "words"),
        [
            ({"image": "registry.invalid/muster:1"}, "image"),
            pytest.param({"env_from": ({"secret": "absent"},)}, 'secret "absent" not found',
                         marks=thorough),
        ],
    )  # fmt: skip
    def test_what_can_never_start_is_ended_with_its_reason(
        self, desk: Desk, pool: dict[str, Any], words: str
    ) -> None:
        batch = desk.batch([desk.perform("well")] * 3, pool=pool)
        end = desk.supervise(batch)
        assert desk.outcomes(batch) == [["invalid_input"]] * 3
        message = end.elements[0].message or ""
        assert words in message
        assert "do: " in message
        desk.kubernetes.until(lambda: not desk.kubernetes.find("jobs", desk_job(desk, batch.id)))

    @thorough
    def test_what_fits_no_node_waits_and_says_so(self, desk: Desk) -> None:
        batch = desk.batch([desk.perform("well")], pool={"node_selector": {"pool": "late"}})

        def add() -> None:
            told = desk.until_degraded(batch, "Unschedulable")
            assert "nodes are available" in told
            amounts = {"cpu": "4", "memory": "4Gi"}
            desk.kubernetes.add_node("late-1", amounts, labels={"pool": "late"})

        assert desk.supervise(batch, add).succeeded
        assert (desk.outcomes(batch), desk.degraded(batch)) == ([["succeeded"]], None)

    @thorough
    @pytest.mark.parametrize("limit", ["pods", "count/jobs.batch"])
    def test_a_quota_is_waited_for_and_told(self, desk: Desk, limit: str) -> None:
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {limit: "0"}}}
        desk.kubernetes.create("resourcequotas", quota)
        batch = desk.batch([desk.perform("well")])

        def lift() -> None:
            assert "exceeded quota: none" in desk.until_degraded(batch, "exceeded quota")
            desk.kubernetes.delete("resourcequotas", "none")

        assert desk.supervise(batch, lift).succeeded
        assert desk.outcomes(batch) == [["succeeded"]]

    @thorough
    @pytest.mark.parametrize("kind", ["jobs", "pods"])
    def test_a_webhook_that_refuses_is_told_in_its_own_words(self, desk: Desk, kind: str) -> None:
        desk.kubernetes.deny(kind, "no cost centre is said")
        batch = desk.batch([desk.perform("well")])
        end = desk.supervise(batch)
        assert desk.outcomes(batch) == [["invalid_input"]]
        assert "no cost centre is said" in (end.elements[0].message or "")

    @thorough
    def test_a_node_that_is_the_only_one_is_taken_again(self, desk: Desk) -> None:
        pool = {"node_selector": {"only": "one"}}
        amounts = {"cpu": "4", "memory": "4Gi"}
        desk.kubernetes.add_node("only-1", amounts, labels={"only": "one"})
        batch = desk.batch([desk.perform("sleep", "well")], pool=pool)

        def evict() -> None:
            (pod,) = desk.begun(batch)
            desk.kubernetes.evict(pod["metadata"]["name"])

        assert desk.supervise(batch, evict).succeeded
        assert desk.hosts(batch) == ["only-1", "only-1"]
        assert desk.outcomes(batch) == [["preempted", "succeeded"]]


class TestApiServer:
    """The API server and its watches go wrong, and no element pays for it."""

    @thorough
    def test_an_answer_that_never_came_makes_no_second_job(self, desk: Desk) -> None:
        desk.kubernetes.cut_answers()
        batch = desk.batch([desk.perform("well")])
        assert desk.supervise(batch).succeeded
        assert desk.outcomes(batch) == [["succeeded"]]
        assert (desk.folder / "ledger").read_text().count("begin ") == 1

    @thorough
    def test_who_dies_before_the_answer_leaves_a_job_that_the_next_one_takes_up(
        self, desk: Desk
    ) -> None:
        batch = desk.batch([desk.perform("well", seconds=1.0)])
        desk.kubernetes.hold_answers()

        async def die() -> None:
            backend = desk.open(batch)
            claim = claims.take_claim(desk.db, batch.id)
            doomed = asyncio.ensure_future(Supervisor(desk.db, backend, claim).run())
            await asyncio.to_thread(desk.job, batch)
            doomed.cancel()
            await asyncio.gather(doomed, return_exceptions=True)
            await backend.close()

        asyncio.run(die())
        with desk.db.transaction() as cursor:
            cursor.execute("SELECT state FROM submission")
            assert cursor.fetchall() == [("intended",)]
        desk.kubernetes.release_answers()
        assert desk.supervise(batch).succeeded
        assert desk.outcomes(batch) == [["succeeded"]]
        assert (desk.folder / "ledger").read_text().count("begin ") == 1

    @thorough
    def test_a_watch_that_breaks_or_expires_is_taken_up(self, desk: Desk) -> None:
        desk.kubernetes.calls()
        batch = desk.batch([desk.perform("well", seconds=3.0)])
        lists: list[int] = []

        def count() -> int:
            return sum(
                call.get("verb") == "list" and call.get("resource") in ("jobs", "pods")
                for call in desk.kubernetes.calls()
            )

        def disturb() -> None:
            desk.begun(batch)
            lists.append(count())
            assert desk.kubernetes.break_watches() >= 2
            time.sleep(1.2)
            lists.append(count())
            desk.kubernetes.make_config_map("newer", than="the watch")
            desk.kubernetes.expire_history()
            desk.kubernetes.break_watches()
            desk.kubernetes.until(lambda: count() >= lists[1] + 1)
            desk.kubernetes.delete("configmaps", "newer")

        assert desk.supervise(batch, disturb).succeeded
        assert desk.outcomes(batch) == [["succeeded"]]
        assert lists[1] == lists[0], "a watch that breaks goes on where it was"

    @thorough
    @pytest.mark.parametrize("seconds", [5.0, pytest.param(60.0, marks=pytest.mark.slow)])
    def test_an_api_server_that_is_away_fails_nothing(self, desk: Desk, seconds: float) -> None:
        desk.patience_s += 2 * seconds
        batch = desk.batch([desk.perform("well", seconds=2.0)])

        def leave() -> None:
            desk.begun(batch)
            desk.kubernetes.go_away(seconds)
            desk.until_degraded(batch, "cannot be watched")

        assert desk.supervise(batch, leave).succeeded
        assert (desk.outcomes(batch), desk.degraded(batch)) == ([["succeeded"]], None)

    @thorough
    def test_a_token_that_expires_is_read_again(self, desk: Desk) -> None:
        batch = desk.batch([desk.perform("well", seconds=2.0)])

        def rotate() -> None:
            desk.begun(batch)
            desk.kubernetes.rotate_token()
            desk.kubernetes.break_watches()

        assert desk.supervise(batch, rotate).succeeded
        assert desk.outcomes(batch) == [["succeeded"]]

    @thorough
    def test_one_that_is_too_busy_is_asked_again_later(self, desk: Desk) -> None:
        desk.kubernetes.throttle(3)
        batch = desk.batch([desk.perform("well")])
        assert desk.supervise(batch).succeeded
        desk.kubernetes.fail_calls(3)
        batch = desk.batch([desk.perform("well")])
        assert desk.supervise(batch).succeeded


def desk_job(desk: Desk, batch_id: str) -> str:
    with desk.db.transaction() as cursor:
        cursor.execute("SELECT key FROM submission WHERE batch_id = %s", (batch_id,))
        row = cursor.fetchone()
    assert row is not None
    return job_name(row[0])
