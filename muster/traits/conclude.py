"""What a run of trait_inference does last, when its verdict is recorded: it writes its report."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from muster.report.write import write_report

if TYPE_CHECKING:
    from muster.jobs.verdict import Verdict
    from muster.store.database import Database
    from muster.store.records import Run

log = logging.getLogger(__name__)


def conclude_run(db: Database, run: Run, verdict: Verdict) -> None:
    """Write the report of a run that is over."""
    log.info("report: %s", write_report(db, run))
