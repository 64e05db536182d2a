"""What follows the verdict of a run of a campaign: its batches' scripts and logs are kept."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from muster.mocks.campaign.batch_logs import write_batch_logs
from muster.report.write import write_report
from muster.store.campaigns import read_campaign

if TYPE_CHECKING:
    from muster.jobs.runs.verdict import Verdict
    from muster.store.database import Database
    from muster.store.records import Run

log = logging.getLogger(__name__)


def conclude_run(db: Database, run: Run, verdict: Verdict) -> None:
    """Keep the logs of a run in its campaign's folder, and write the report."""
    del verdict
    if run.campaign_id is None:  # a dry run
        return
    try:
        kept = write_batch_logs(db, run, read_campaign(db, run.campaign_id).folder)
        log.info("%s", kept.describe())
    finally:  # a report that could be written is not kept back by logs that could not
        log.info("report: %s", write_report(db, run))
