"""`muster advise` and the cost of a plan, out of a real store."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING

import pytest

from muster.cli import main
from muster.jobs.planning.cost import estimate_cost
from muster.model.outcome import Outcome
from muster.model.plan import Decision, PlannedElement
from muster.model.resources import Caps, Resources
from muster.model.slurm_target import SlurmTarget
from muster.site import read_site
from muster.store import batches, claims, runs
from muster.store.history import PlacedStep, Took, read_placed, read_took, read_tried
from muster.store.records import AttemptEnd
from tests.batches import make_batch

if TYPE_CHECKING:
    from pathlib import Path

    from muster.store.database import Database

RUN, STEP = "run", "traits.predict"
ASKED = Resources(cpus=4, memory_mib=4096, time_limit_s=7200)
CAPS = Caps(memory_mib=8192)


@pytest.fixture
def opened(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setenv("MUSTER_STORE_URL", db.url)
    work = str(tmp_path / "work")
    runs.open_run(db, RUN, workflow="trait_inference", params={}, work_uri=work)
    return db


def put(
    db: Database,
    folder: Path,
    count: int,
    name: str = "b",
    step: str = STEP,
    slurm: SlurmTarget | None = None,
) -> None:
    batch = make_batch(
        folder, [{}] * count, step=step, name=name, resources=ASKED, caps=CAPS, slurm=slurm
    )
    runs.create_batches(db, [(name, batch)])


def end(
    db: Database,
    outcomes: list[Outcome | None],
    *,
    name: str = "b",
    peak_mib: float | None = 1000.0,
    resources: Resources = ASKED,
) -> None:
    """Try each element of a batch once more; the i-th takes i + 1 minutes."""
    claim = claims.take_claim(db, f"{RUN}.{name}")
    elements = batches.read_batch(db, claim).elements[: len(outcomes)]
    wanted = {e.id: (len(e.attempts) + 1, resources, "/log") for e in elements}
    wave, _ = batches.intend_submission(db, claim, wanted)
    batches.record_submitted(db, claim, wave, "ref")
    attempts = [e.attempts[-1].id for e in batches.read_batch(db, claim).elements[: len(outcomes)]]
    batches.record_running(db, claim, dict.fromkeys(attempts, "node"))
    ended = [
        AttemptEnd(attempt, outcome, seconds=60.0 * (i + 1), max_rss_mib=peak_mib)
        for i, (attempt, outcome) in enumerate(zip(attempts, outcomes, strict=True))
        if outcome is not None
    ]
    batches.record_ends(db, claim, ended)


def close(db: Database) -> None:
    runs.end_run(db, RUN, runs.RunState.SUCCEEDED, "all went well")


def test_it_reads_as_a_person_wants_it(
    opened: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(opened, tmp_path, 6)
    end(opened, [Outcome.OUT_OF_MEMORY, *[Outcome.SUCCEEDED] * 5], peak_mib=2000.0)
    more = ASKED.model_copy(update={"memory_mib": 6144})
    end(opened, [Outcome.SUCCEEDED], peak_mib=2000.0, resources=more)
    close(opened)
    assert main(["advise", RUN]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0] == "traits.predict in local, 4 CPUs each: 1 out of memory, 6 succeeded"
    assert lines[1].split() == ["asked", "p50", "p95", "most", "advice"]
    assert lines[2].split() == ["memory", "4", "GiB", *["2", "GiB"] * 3, "5", "GiB"]
    assert lines[3].split() == [
        "time", "02:00:00", "3", "min", "30", "s", "5", "min", "45", "s", "6", "min", "00:07:00",
    ]  # fmt: skip
    assert lines[4].startswith("  in queue")
    assert lines[5:] == [
        "  held      1.47 CPU-hours, 0.0667 of them by attempts that failed;"
        " 54.5 more asked for by the time limits",
        "  held      1.50 GiB·h of memory, 0.784 of them never used",
        "  note      1 × killed for want of memory at 4GiB",
    ]
    assert told.err == ""


def test_toml_is_what_a_site_file_takes(
    opened: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(opened, tmp_path, 5)
    end(opened, [Outcome.SUCCEEDED] * 5, peak_mib=7000.0)
    close(opened)
    assert main(["advise", RUN, "--toml"]) == 0
    text = capsys.readouterr().out
    assert tomllib.loads(text)[STEP]["memory"] == "8GiB"  # 9 GiB without the pool's cap
    site = tmp_path / "site.toml"
    pools = '[pools]\nlocal = { backend = "local", slots = 1, max_memory = "8GiB" }\n'
    site.write_text(f"{pools}[placement]\n{text}", encoding="utf-8")
    placed, _ = read_site(str(site)).placed(STEP)
    assert placed.resources == Resources(cpus=4, memory_mib=8192, time_limit_s=360)


def test_json_has_every_figure_and_one_step_can_be_chosen(
    opened: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(opened, tmp_path, 5)
    put(opened, tmp_path, 1, "c", "traits.cov")
    end(opened, [Outcome.SUCCEEDED] * 5)
    end(opened, [Outcome.SUCCEEDED], name="c", peak_mib=None)
    assert main(["advise", RUN, "--json", "--margin", "2"]) == 0
    told = capsys.readouterr()
    assert "still going" in told.err
    document = json.loads(told.out)
    assert (document["run"], document["margin"]) == (RUN, 2.0)
    predict, cov = document["steps"]
    assert predict["advised"] == {"cpus": 4, "gpus": 0, "memory_mib": 2048, "time_limit_s": 600}
    assert predict["elapsed_s"] == {"p50": 180.0, "p95": 288.0, "most": 300.0}
    assert predict["waste"]["cpu_hours"] == pytest.approx(1.0)
    assert cov["memory_mib"] is None
    assert cov["advised"]["memory_mib"] == ASKED.memory_mib
    assert main(["advise", RUN, "--json", "--step", "traits.cov"]) == 0
    assert [s["step"] for s in json.loads(capsys.readouterr().out)["steps"]] == ["traits.cov"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such"], "the store knows no such run; got: no-such; do: list runs with"),
        ([RUN], "nothing was tried that is over; where: run; got: 1 pending, 1 reused; do: "),
        ([RUN, "--step", "traits.aoa"],
         "no such step; where: run; got: traits.aoa; expected: traits.build, traits.predict"),
        ([RUN, "--step", "traits.build"],
         "nothing was tried that is over; where: traits.build of run; got: 1 reused"),
    ],
)  # fmt: skip
def test_what_there_is_nothing_to_say_of_is_told(
    opened: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    arguments: list[str], said: str,
) -> None:  # fmt: skip
    put(opened, tmp_path, 1)
    reused = PlannedElement(
        step="traits.build", name="x", group="x", decision=Decision.REUSED, reason="there"
    )
    runs.record_plan(opened, RUN, [reused], {})
    assert main(["advise", *arguments]) == 66
    assert said in capsys.readouterr().err


def test_attempts_that_still_run_are_no_evidence(
    opened: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(opened, tmp_path, 2)
    end(opened, [Outcome.SUCCEEDED, None])
    assert main(["advise", RUN]) == 0
    assert ": 1 succeeded\n" in capsys.readouterr().out


def test_one_document_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", RUN, "--toml", "--json"]) == 64
    assert "cannot be had together" in capsys.readouterr().err


def test_where_the_steps_of_a_run_were_sent_is_read(opened: Database, tmp_path: Path) -> None:
    put(opened, tmp_path, 1)
    put(opened, tmp_path, 1, "c")
    assert read_placed(opened, RUN) == [PlacedStep(STEP, "local", CAPS, None)]
    assert read_placed(opened, "another") == []


def test_how_long_steps_took_is_read_over_runs_and_told_before_the_next(
    opened: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(opened, tmp_path, 3)
    end(opened, [Outcome.SUCCEEDED, Outcome.TRANSIENT, Outcome.SUCCEEDED])
    put(opened, tmp_path, 1, "c", "traits.cov")
    end(opened, [Outcome.SUCCEEDED], name="c")
    assert read_took(opened, [STEP, STEP, "traits.aoa"]) == [Took(STEP, 4, 0, (60.0, 180.0))]
    assert read_took(opened, []) == []
    next_one = make_batch(tmp_path, [{}] * 30, step=STEP, resources=ASKED)
    cost = estimate_cost([next_one], read_took(opened, [STEP]))
    assert (cost.cpu_hours_at_most, cost.cpu_hours_expected) == (240.0, 4.0)
    put(opened, tmp_path, 1, "newer", slurm=SlurmTarget(ntasks=8, nodes=2))
    end(opened, [Outcome.SUCCEEDED], name="newer")
    monkeypatch.setattr("muster.store.history.NEWEST_BATCHES", 1)
    assert read_took(opened, [STEP]) == [Took(STEP, 4, 0, (60.0,), ranks=8)]
    *others, newest = read_tried(opened, RUN)
    assert (newest.ranks, newest.nodes, newest.cpu_hours) == (8, 2, 4 * 8 / 60)
    assert {(tried.ranks, tried.nodes) for tried in others} == {(1, 1)}
