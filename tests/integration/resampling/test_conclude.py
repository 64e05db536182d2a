"""What is recorded of a resampling when its verdict is given: the datasets that are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from muster.jobs.runs.verdict import give_verdict
from muster.model.plan import Decision, Plan, PlannedElement
from muster.store import runs
from muster.store.datasets import list_datasets
from tests.integration.resampling.layers import make_layer

if TYPE_CHECKING:
    from muster.store.database import Database

RUN = "resampling.cli__2024"


def planned(name: str, decision: Decision, **places: object) -> PlannedElement:
    """Plan a dataset with its layer; nothing is to be run, so that the record is all there is."""
    dataset = {"name": name, "path": f"/data/{name}.tif", "method": "average"}
    layer = make_layer(key=name, dataset=dataset, table=None, tiles=False, **places)
    inputs = {"layer": layer.model_dump(mode="json")}
    return PlannedElement(
        step="resampling.resample", name=name, group=name, decision=decision,
        reason="there" if decision is Decision.REUSED else f"no such file; where: {name}.tif",
        inputs=inputs,
    )  # fmt: skip


def run_with(db: Database, folder: Path, *elements: PlannedElement) -> None:
    runs.open_run(db, RUN, workflow="resampling", params={}, work_uri=str(folder))
    (folder / "plan.json").write_text(
        Plan(workflow="resampling", elements=elements).model_dump_json(), encoding="utf-8"
    )
    runs.record_plan(db, RUN, elements, {})


def test_datasets_are_recorded_with_where_they_lie(db: Database, tmp_path: Path) -> None:
    run_with(
        db,
        tmp_path,
        planned("soil", Decision.REUSED, cog="/out/soil.tif"),
        planned("relief", Decision.REUSED, registered=True),
        planned("wind", Decision.MISSING_INPUT, cog="/out/wind.tif"),
    )
    assert give_verdict(db, RUN).good
    found = {record.key: record for record in list_datasets(db)}
    assert sorted(found) == ["relief", "soil"], "what has no input is no dataset"
    assert {record.run_id for record in found.values()} == {RUN}
    assert [(h.store, h.place) for h in found["soil"].holdings] == [("cog", "/out/soil.tif")]
    assert [(h.store, h.place) for h in found["relief"].holdings] == [
        ("register", "/data/relief.tif")
    ]
    report = Path(runs.read_run(db, RUN).facts["report"]).read_text(encoding="utf-8")
    assert "no such file; where: wind.tif" in report


def test_a_run_that_was_never_planned_still_has_its_report(db: Database, tmp_path: Path) -> None:
    runs.open_run(db, RUN, workflow="resampling", params={}, work_uri=str(tmp_path))
    assert not give_verdict(db, RUN).good
    assert list_datasets(db) == []
    assert (tmp_path / "report.html").exists()
