"""What gathers all groups of a run comes last, whatever became of them; again when one mends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from muster.backends import Backends
from muster.jobs.planning.freeze import Group
from muster.jobs.planning.workflow import WORKFLOWS, NoInterval, Workflow
from muster.jobs.runs import detached
from muster.jobs.runs.detached import Submitted, submit_detached
from muster.jobs.runs.follow_run import RunFollower, renew_where_overtaken
from muster.jobs.runs.verdict import sort_statuses
from muster.store import batches, claims, runs
from tests.batches import add_steps_to_path, make_batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from muster.model.batch import Batch
    from muster.store.database import Database

RESAMPLE, MERGE = "test.perform", "test.write"
WORKFLOW = Workflow(
    name="test",
    inspect="test.inspect",
    stages=((RESAMPLE,),),
    final_steps=(MERGE,),
    params="",
    interval=NoInterval("a test has none"),
)


class Desk:
    """A run of two datasets and their merge, followed as the command line does."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.db = db
        self.ledger = folder / "ledger"
        self.folder = folder
        runs.open_run(db, "run", workflow="test", params={}, work_uri=str(folder))

    def plan(self, **acts: Sequence[str]) -> list[Group]:
        """Plan datasets that behave so, and a merge that is named before the last of them."""
        made = [self.dataset(name, list(a)) for name, a in acts.items()]
        merge = make_batch(
            self.folder, [{"text": "merge", "ledger": str(self.ledger)}], step=MERGE, name="merge"
        )
        made.insert(1, merge)
        names = [batch.id.removeprefix("run.") for batch in made]
        runs.create_batches(self.db, list(zip(names, made, strict=True)))
        runs.record_plan(self.db, "run", [], {})
        return [Group(n, "run", {b.step: b.id}, {}) for n, b in zip(names, made, strict=True)]

    def dataset(self, name: str, acts: list[str]) -> Batch:
        # the first dataset is still at it when the second is over
        seconds = 0.5 if name == "ndvi" else 0.0
        told = {"name": name, "acts": acts, "ledger": str(self.ledger), "seconds": seconds}
        return make_batch(self.folder, [told], step=RESAMPLE, name=name)

    def follow(self, groups: Sequence[Group], *, fresh: bool = False) -> list[str]:
        """Follow to the end; return what was told to be running, in order."""
        told: list[str] = []

        async def follow() -> None:
            backends = Backends(self.db)
            try:
                follower = RunFollower(
                    self.db, backends, WORKFLOW, lambda g, _, s: told.append(f"{g} {s}")
                )
                await follower.follow(groups, fresh=fresh)
            finally:
                await backends.close()

        asyncio.run(follow())
        return told

    def done(self) -> list[str]:
        lines = self.ledger.read_text().splitlines()
        return [line.split()[1] for line in lines if line.startswith("done")]


@pytest.fixture
def desk(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    add_steps_to_path(monkeypatch)
    monkeypatch.setitem(WORKFLOWS, "test", f"{__name__}:WORKFLOW")
    return Desk(db, tmp_path)


def test_the_merge_begins_when_every_dataset_is_over(desk: Desk) -> None:
    told = desk.follow(desk.plan(ndvi=["well"], wind=["invalid"]))
    assert told[-2:] == ["merge running", "merge succeeded"]
    assert "wind invalid_input" in told[:-2]
    assert desk.done() == ["ndvi", "merge"], "what failed keeps nobody from the merge"


def test_a_mended_dataset_makes_a_merge_that_succeeded_run_again(desk: Desk) -> None:
    groups = desk.plan(ndvi=["well"], wind=["invalid", "well"])
    desk.follow(groups)
    desk.follow(groups, fresh=True)
    assert desk.done() == ["ndvi", "merge", "wind", "merge"]
    desk.follow(groups, fresh=True)
    assert desk.done().count("merge") == 2, "nothing was made anew"


def test_a_cleared_task_finds_that_its_merge_was_overtaken(desk: Desk) -> None:
    """As Airflow does it: the dataset's task, then the merge's, each by itself."""
    groups = desk.plan(ndvi=["well"], wind=["invalid", "well"])
    desk.follow(groups)
    by_name = {group.name: group for group in groups}
    merge = batches.read_spec(desk.db, by_name["merge"].batches[MERGE])
    assert not renew_where_overtaken(desk.db, merge)
    desk.follow([by_name["wind"]], fresh=True)
    assert renew_where_overtaken(desk.db, merge)
    assert batches.read_elements(desk.db, merge.id)[0].state == "pending"
    wind = batches.read_spec(desk.db, by_name["wind"].batches[RESAMPLE])
    assert not renew_where_overtaken(desk.db, wind), "it comes after nothing"


def test_the_merge_is_told_last(desk: Desk) -> None:
    desk.plan(ndvi=["well"], wind=["well"])
    told = sort_statuses(WORKFLOW, runs.read_status(desk.db, "run"))
    assert [status.group for status in told] == ["ndvi", "wind", "merge"]


def test_a_job_of_the_merge_waits_for_all_datasets_however_they_end(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: dict[str, object] = {}

    async def submit(
        _db: object, _backends: object, group: Group, step: str,
        after: Mapping[str, Sequence[str]], _fresh: bool,
    ) -> Submitted:  # fmt: skip
        waits[group.name] = after
        refused = group.name == "soil"
        return Submitted(group.name, step, () if refused else (f"job-{group.name}",))

    monkeypatch.setattr(detached, "_submit_batch", submit)
    backends = Backends(desk.db)
    groups = desk.plan(ndvi=["well"], wind=["well"], soil=["well"])
    done = asyncio.run(submit_detached(desk.db, backends, WORKFLOW, groups))
    assert [one.group for one in done] == ["ndvi", "wind", "soil", "merge"]
    assert waits == {
        "ndvi": {}, "wind": {}, "soil": {}, "merge": {"any": ["job-ndvi", "job-wind"]}
    }  # fmt: skip


def test_a_cancelled_merge_stays_so(desk: Desk) -> None:
    groups = desk.plan(ndvi=["well"], wind=["invalid", "well"])
    desk.follow(groups)
    merge = next(group.batches[MERGE] for group in groups if group.name == "merge")
    claims.request_cancel(desk.db, claims.take_claim(desk.db, merge), "person")
    desk.follow([group for group in groups if group.name == "wind"], fresh=True)
    assert not renew_where_overtaken(desk.db, batches.read_spec(desk.db, merge))
