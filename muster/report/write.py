"""Where a report goes, and that the store knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster import storage
from muster.imports import load_named
from muster.jobs.planning.workflow import find_workflow
from muster.report.read import read_story
from muster.report.render import render_report
from muster.store import runs

if TYPE_CHECKING:
    from muster.store.database import Database
    from muster.store.records import Run

FACT = "report"
"""The fact of a run that says where its report is."""


@dataclass(frozen=True)
class Report:
    """A report that was made: the document, and the URI that it belongs at."""

    html: str
    uri: str


def make_report(db: Database, run: Run) -> Report:
    """Make the report of a run of any workflow."""
    return Report(render_report(read_story(db, run)), work_report_uri(run))


def work_report_uri(run: Run) -> str:
    """Where the report of a run goes that has no output folder."""
    return storage.join(run.work_uri, "report.html")


def write_report(db: Database, run: Run, to: str | None = None) -> str:
    """Make a run's report as its workflow does, write it, and return where it is.

    Parameters
    ----------
    db : Database
        The store.
    run : Run
        As it stands now.
    to : str, optional
        URI of a copy for somebody; the store is not told of it.

    Raises
    ------
    MusterError
        When something cannot be read, rendered or written; an older report stays as it is then.
    """
    workflow = find_workflow(run.workflow)
    named = workflow.report if workflow else None
    report: Report = (load_named(named) if named else make_report)(db, run)
    # Half a surrogate, which JSON can spell and UTF-8 cannot, must not cost the report.
    storage.write_bytes(to or report.uri, report.html.encode("utf-8", "replace"))
    if to is not None:
        return to
    runs.record_fact(db, run.id, FACT, report.uri)
    return report.uri
