"""What keeps an installation tidy, as Airflow tasks: the same functions as on the command line."""

from __future__ import annotations

import logging

from airflow.sdk.exceptions import AirflowFailException

from muster.backends.kubernetes.connect import use_connections
from muster.errors import ConfigError
from muster.jobs.retention.retention import clean_work
from muster.jobs.runs.reconcile import reconcile
from muster.site import read_site
from muster.store.database import Database
from operators.cluster_connection import load_connection

log = logging.getLogger(__name__)


def reconcile_store() -> dict[str, int]:
    """End what nobody supervises any more; count it."""
    use_connections(load_connection)
    ended = reconcile(Database.from_environment())
    for line in ended.describe():
        log.info("%s", line)
    return {"batches": len(ended.batches), "runs": len(ended.runs)}


def clean_work_directory() -> dict[str, int]:
    """Remove what the work directory no longer needs; count it.

    Raises
    ------
    AirflowFailException
        When something could not be removed, which no retry mends: the log says what.
    """
    try:
        site = read_site()
    except ConfigError as error:
        raise AirflowFailException(str(error)) from None
    done = clean_work(Database.from_environment(), site)
    for line in done.describe():
        log.info("%s", line)
    if done.problems:
        raise AirflowFailException(f"not everything could be removed: {done.problems[0]}")
    return {"removed": len(done.removals), "bytes": done.bytes}
