"""A node that takes a pod and does not start it: it is told, and ended where no time helps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.backends.kubernetes.stuck import StuckPods
from muster.model.kubernetes_words import Volume
from tests.batches import add_steps_to_path
from tests.integration.kubernetes.backend_under_test import Desk, make_target

if TYPE_CHECKING:
    from pathlib import Path

    from muster.store.database import Database
    from tests.kubernetes_under_test import KubernetesUnderTest

pytestmark = pytest.mark.thorough


@pytest.fixture
def desk(
    kubernetes: KubernetesUnderTest, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Desk:
    add_steps_to_path(monkeypatch)
    monkeypatch.setattr(StuckPods, "starting_s", 0.5)
    return Desk(kubernetes, db, tmp_path)


def test_a_volume_that_is_not_mounted_is_waited_for_and_told(desk: Desk) -> None:
    if desk.kubernetes.real:
        pytest.skip("a real node makes the folder")
    work = make_target(desk.kubernetes, desk.folder).volumes[0]
    desk.kubernetes.make_claim("late", desk.folder / "late")
    late = Volume(path=str(desk.folder / "late"), claim="late")
    batch = desk.batch([desk.perform("well")], pool={"volumes": (work, late)})

    def mount() -> None:
        told = desk.until_degraded(batch, "FailedMount")
        assert "MountVolume.SetUp failed" in told
        (desk.folder / "late").mkdir()

    assert desk.supervise(batch, mount).succeeded
    assert (desk.outcomes(batch), desk.degraded(batch)) == ([["succeeded"]], None)


def test_a_secret_that_is_no_volume_ends_what_waits_for_it(desk: Desk) -> None:
    volume = {"name": "ca", "secret": {"secretName": "absent"}}
    mount = {"name": "ca", "mountPath": "/etc/ca"}
    container = {"name": "muster", "volumeMounts": [mount]}
    template = {"spec": {"volumes": [volume], "containers": [container]}}
    batch = desk.batch([desk.perform("well")], pool={"pod_template": template})
    end = desk.supervise(batch)
    assert desk.outcomes(batch) == [["invalid_input"]]
    message = end.elements[0].message or ""
    assert 'FailedMount: MountVolume.SetUp failed for volume "ca"' in message
    assert 'secret "absent" not found; do: make it in the namespace' in message
