"""A campaign of 40,000 elements in the store: what planning it, and asking how it stands, cost.

Postgres is the laptop's own, with its usual settings.  CPU seconds are those of this process and of
Postgres together; times are medians of several, in seconds on the wall.

    python benchmarks/campaign_plan.py                   all of it
    python benchmarks/campaign_plan.py --elements 4000   a quick look
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
from _side_by_side import describe_run

from muster.laptop.postgres import ensure_database, start_postgres, stop_postgres
from muster.model.plan import Decision
from muster.store import campaign_state as state
from muster.store.database import Database
from muster.store.schema import migrate
from tests.stored_campaign import (
    REDSHIFTS,
    STEP,
    end_elements,
    make_campaign,
    make_site,
    plan_coordinate,
    plan_run,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from muster.store.campaigns import CampaignRecord

BATCH_SIZE = 200
ASKED = 7
LIMIT_PLAN_S, LIMIT_STATUS_S = 30.0, 0.5


def cpu_s(server: int) -> float:
    """Return the CPU seconds of this process and of Postgres, its ended children included."""
    processes = [psutil.Process(), psutil.Process(server), *psutil.Process(server).children()]
    times = [process.cpu_times() for process in processes]
    ended = psutil.Process(server).cpu_times()
    return sum(t.user + t.system for t in times) + ended.children_user + ended.children_system


def median_s(ask: Callable[[], object]) -> float:
    """Return the median time of asking, after a first time that warms the caches."""
    ask()
    took = []
    for _ in range(ASKED):
        began = time.perf_counter()
        ask()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def outcome_of(coordinate: tuple[int, float]) -> str:
    """Let one in a hundred fail, and one in two hundred wait."""
    number = coordinate[0] * len(REDSHIFTS) + REDSHIFTS.index(coordinate[1])
    return {0: "software_error", 50: "running"}.get(number % 100, "succeeded")


def measure(
    db: Database, server: int, folder: Path, count: int, runs: int
) -> dict[str, float | int]:
    """Plan a campaign, let it run, and ask how it stands, after one run and after several."""
    site = make_site(folder)
    campaign = make_campaign(db, folder)
    coordinates = [(n // len(REDSHIFTS), REDSHIFTS[n % len(REDSHIFTS)]) for n in range(count)]
    elements = [
        plan_coordinate(folder, one, f"part-{number // BATCH_SIZE:03}")
        for number, one in enumerate(coordinates)
    ]
    began, cpu = time.perf_counter(), cpu_s(server)
    groups = plan_run(db, site, folder, campaign, "run-0", elements)
    found: dict[str, float | int] = {
        "elements": count,
        "batches": len(groups),
        "plan_wall_s": time.perf_counter() - began,
        "plan_cpu_s": cpu_s(server) - cpu,
    }
    end_elements(db, "run-0", outcome_of, {"software_error": "ModelError"})
    found |= ask(db, campaign, "first")
    failed = [c for c in coordinates if outcome_of(c) == "software_error"]
    for number in range(1, runs):
        again = f"run-{number}"
        plan_run(db, site, folder, campaign, again, [
            plan_coordinate(folder, one, "again") for one in failed
        ])  # fmt: skip
        end_elements(db, again, lambda _: "software_error", {})
    every = [e.model_copy(update={"decision": Decision.REUSED}) for e in elements]
    plan_run(db, site, folder, campaign, f"run-{runs}", every)
    return found | {"runs": runs + 1} | ask(db, campaign, "last")


def ask(db: Database, campaign: CampaignRecord, when: str) -> dict[str, float]:
    """Ask how a campaign stands, in all ways; return how long each takes in seconds."""
    with db.transaction() as cursor:
        cursor.execute("ANALYZE element; ANALYZE attempt; ANALYZE artifact")
    id_ = campaign.id
    questions: dict[str, Callable[[], object]] = {
        "status": lambda: state.read_campaign_status(db, id_),
        "failures": lambda: state.read_failures(db, id_),
        "failed": lambda: state.read_campaign_elements(db, id_, states=["failed"]),
        "elements": lambda: state.read_campaign_elements(db, id_),
        "whole": lambda: state.find_whole(db, campaign, STEP, artifact="catalogue"),
    }
    return {f"{name}_{when}_s": median_s(question) for name, question in questions.items()}


def main() -> int:
    """Measure, print, and say whether the limits are kept."""
    parser = argparse.ArgumentParser(description="Plan a campaign and ask how it stands.")
    parser.add_argument("--elements", type=int, default=40_000)
    parser.add_argument("--runs", type=int, default=10, help="that try again what failed")
    chosen = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as name:
        folder = Path(name)
        server = start_postgres(folder / "pg")
        try:
            ensure_database(server, "muster")
            migrate(server.url("muster"))
            db = Database(server.url("muster"))
            try:
                found = measure(db, server.pid, folder, chosen.elements, chosen.runs)
            finally:
                db.close()
        finally:
            stop_postgres(folder / "pg")
    rounded = {name: round(value, 3) for name, value in found.items()}
    print(json.dumps({"benchmark": "campaign_plan", **describe_run(), **rounded}, indent=1))
    status_s = max(found["status_first_s"], found["status_last_s"])
    return int(found["plan_cpu_s"] >= LIMIT_PLAN_S or status_s >= LIMIT_STATUS_S)


if __name__ == "__main__":
    sys.exit(main())
