"""What a run of trait_inference does last, when its verdict is recorded: collection and report."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from muster.report.write import write_report
from muster.traits.product.stac_collection import write_collection
from muster.traits.report import tell_unseen

if TYPE_CHECKING:
    from muster.jobs.runs.verdict import Verdict
    from muster.store.database import Database
    from muster.store.records import Run

log = logging.getLogger(__name__)


def conclude_run(db: Database, run: Run, verdict: Verdict) -> None:
    """Bring the catalogue of the products up to date, and write the report of the run."""
    unseen = tell_unseen(db, run, verdict.groups)
    if unseen is not None:
        log.info("%s: no collection is written; report: %s", unseen, write_report(db, run))
        return
    folders = {uri.rpartition("/")[0] for uri in run.facts.get("products", {}).values()}
    try:
        for folder in sorted(folders):
            log.info("collection: %s", write_collection(folder) or "none: no product there")
    finally:  # a report that could be written is not kept back by a collection that could not
        log.info("report: %s", write_report(db, run))
