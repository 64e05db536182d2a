"""Small batches for tests, put into a store as the plan would put them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from muster.model.batch import Batch, Element
from muster.model.resources import Caps, Resources
from muster.store import runs

if TYPE_CHECKING:
    from muster.model.slurm_target import SlurmTarget
    from muster.store.database import Database

STEPS_FOLDER = Path(__file__).parent / "steps"


def add_steps_to_path(monkeypatch: Any) -> None:
    """Let the runners that this test starts find the test steps."""
    found = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{STEPS_FOLDER}{os.pathsep + found if found else ''}")
    monkeypatch.syspath_prepend(str(STEPS_FOLDER))


def make_batch(
    folder: Path,
    elements: list[dict[str, Any]],
    *,
    step: str = "test.write",
    name: str = "b",
    resources: Resources | None = None,
    caps: Caps | None = None,
    slots: int = 2,
    deadline_s: int | None = None,
    slurm: SlurmTarget | None = None,
    layout: Literal[2] | None = 2,
) -> Batch:
    return Batch(
        id=f"run.{name}",
        run="run",
        step=step,
        backend="local" if slurm is None else "slurm",
        slurm=slurm,
        pool="local",
        slots=slots,
        resources=resources or Resources(),
        caps=caps or Caps(),
        elements=tuple(
            Element(
                index=i,
                name=f"{name}-e{i}",
                inputs=inputs,
                outputs={"out": str(folder / "products" / f"{name}-{i}.txt")},
            )
            for i, inputs in enumerate(elements)
        ),
        work_uri=str(folder / "work" / name),
        pool_uri=str(folder / "pools" / "local"),
        deadline_s=deadline_s,
        layout=layout,
    )


def store_batch(db: Database, batch: Batch) -> Batch:
    runs.open_run(db, "run", workflow="test", params={}, work_uri=batch.work_uri)
    runs.create_batches(db, [("group", batch)])
    return batch
