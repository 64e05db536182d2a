"""A run whose steps nobody would keep in order is not submitted to be left alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from muster.errors import ConfigError
from muster.jobs.planning.freeze import Group
from muster.jobs.runs.detached import check_detachable
from muster.model.kubernetes_target import KubernetesTarget
from tests.batches import make_batch, store_batch

if TYPE_CHECKING:
    from pathlib import Path

    from muster.store.database import Database


def test_a_run_on_kubernetes_cannot_be_left_alone(db: Database, tmp_path: Path) -> None:
    target = KubernetesTarget(image="registry.example.org/muster/compute:1")
    batch = make_batch(tmp_path, [{}]).model_copy(update={"target": target})
    batches = {"traits.predict": store_batch(db, batch).id}
    group = Group(name="height", run="run", batches=batches, skipped={})
    with pytest.raises(ConfigError) as refused:
        asyncio.run(check_detachable(db, [group]))
    said = str(refused.value)
    assert said.startswith("kubernetes starts no job when others have ended: nothing on it can be")
    assert "where: traits.predict of height; got: pool local; " in said
    assert "do: leave --no-wait out" in said
