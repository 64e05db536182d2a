"""Names in a work directory: retention, runners and supervisors of any version look for them."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from muster import storage
from muster.backends.local import LocalBackend
from muster.jobs.planning.plan_run import freeze_plan, open_run
from muster.jobs.planning.workflow import load_workflow
from muster.jobs.retention.work_layout import find_work
from muster.jobs.supervision.retry import BackOff
from muster.jobs.supervision.supervisor import Supervisor
from muster.site import read_site
from muster.store import batches, claims, runs
from tests.batches import add_steps_to_path, make_batch, store_batch
from tests.unit.pins.frozen import plan, render_plan
from tests.unit.pins.golden_files import check_golden, check_literal, render_json

if TYPE_CHECKING:
    from pathlib import Path

    from muster.store.database import Database

USER = "is the name of files in work directories, which other versions' jobs and retention look for"


def list_files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def test_a_local_run_leaves_these_files(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One element that succeeds, and one that fails twice."""
    add_steps_to_path(monkeypatch)
    ledger = str(tmp_path / "products" / "ledger")
    (tmp_path / "products").mkdir()
    wishes = [{"how": how, "ledger": ledger} for how in ("fine", "raise")]
    batch = store_batch(db, make_batch(tmp_path, wishes, step="test.misbehave"))
    claim = claims.take_claim(db, batch.id)
    back_off = BackOff(first_s=0.01, longest_s=0.02)
    asyncio.run(Supervisor(db, LocalBackend(), claim, back_off=back_off).run())
    masked = [
        re.sub(r"batch-[0-9a-f]{12}\.json", "batch-{fingerprint:12}.json", name)
        for name in list_files(tmp_path)
    ]
    check_literal(
        "files of a local run",
        masked,
        [
            "pools/local/slot-0",
            "pools/local/slot-1",
            "products/b-0.txt",
            "products/ledger",
            "work/b/batch-{fingerprint:12}.json",
            "work/b/fences.json",
            "work/b/logs/0.1.log",
            "work/b/logs/1.1.log",
            "work/b/logs/1.2.log",
            "work/b/results/0.1.json",
            "work/b/results/1.1.json",
            "work/b/results/1.2.json",
        ],
        USER,
    )


RUN = "trait_inference.manual__2024-03-01T00:00:00+00:00"


def test_a_run_and_its_batches_lie_and_are_called_as_before(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its parameters to its frozen batches, by the golden plan; nothing is computed."""
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path))
    site = read_site("laptop")
    params = {
        "traits": ["SLA"],
        "predictors": ["/data/stack.tif"],
        "models": "/models",
        "output": "/maps",
    }
    inspection = open_run(db, site, load_workflow("trait_inference"), RUN, params)
    run = runs.read_run(db, RUN)
    storage.write_text(storage.join(run.work_uri, "plan.json"), render_plan(plan()))
    groups = freeze_plan(db, site, RUN)
    run = runs.read_run(db, RUN)
    frozen = [batches.read_spec(db, inspection)]
    frozen += [batches.read_spec(db, b) for group in groups for b in group.batches.values()]
    said = {
        "run": {"work_uri": run.work_uri, "params": run.params, "facts": run.facts},
        "groups": [group.to_dict() for group in groups],
        "batches": [batch.model_dump(mode="json", exclude={"slurm"}) for batch in frozen],
    }
    text = render_json(said).replace(str(tmp_path), "{home}")
    check_golden("run.json", text, "is stored of every run, and is where its files are looked for")


@pytest.mark.parametrize(
    ("name", "kind", "known_as"),
    [
        ("runs/r/plan.json", "run", "runs/r"),
        ("bands/default/static/SLA/predict-0123456789abcdef.tif", "band", None),
        ("pools/local/scratch/muster-scratch-0123456789ab-1-x/task.json", "scratch", "…"),
        ("doctor/0123456789abcdef0123456789abcdef/report.json", "doctor", "…"),
        ("runs/r/.muster-0a1b/x", "draft", "runs/r/.muster-0a1b"),
        (".plan.json.0123456789ab-1-x.part", "temporary", None),
    ],
)
def test_retention_knows_what_an_earlier_version_left(
    tmp_path: Path, name: str, kind: str, known_as: str | None
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("x")
    expected = name.rpartition("/")[0] if known_as == "…" else known_as or name
    found = [(one.kind.value, one.name) for one in find_work(str(tmp_path))]
    check_literal("what is found", (kind, expected) in found, True, f"{USER}; found: {found}")


def test_a_band_of_the_facts_is_in_use(db: Database) -> None:
    """The pattern of a band's name is Postgres's, too: it is looked for in whole specs."""
    from muster.model.plan import BAND_NAME
    from muster.store import retention
    from tests.integration.pins.stored_rows import insert_batch, insert_run

    insert_run(db)
    batch_id = insert_batch(db)
    with db.transaction() as cursor:
        cursor.execute(
            "UPDATE batch SET spec = jsonb_set(spec::jsonb, '{elements,0,outputs,aoa}',"
            " '\"/work/bands/default/static/SLA/aoa-fedcba9876543210.tif\"') WHERE id = %s",
            (batch_id,),
        )
    use = retention.read_band_use(db, datetime.now(UTC) - timedelta(days=1), BAND_NAME)
    check_literal(
        "names of band rasters",
        sorted(use.names),
        ["aoa-0123456789abcdef.tif", "aoa-fedcba9876543210.tif"],
        USER,
    )
