"""The DAG muster_maintenance: once a day it ends what nobody supervises, and applies retention.

Wiring only: what a task does is in ``operators.maintenance``.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, task

from operators import maintenance

DOC = """
### Once a day

| task | what it does |
|---|---|
| `reconcile` | ends what nobody has supervised for ten minutes (a machine that went down, a task that was deleted): what ended by itself is recorded as it ended, what still runs is cancelled |
| `clean` | removes from the work directory what nobody needs: work folders of runs that ended long ago, band rasters that nothing has used for long, what dead processes left; interrupted loads into Postgres that nobody has gone on with |

**Products, what has been loaded into Postgres, and the record of the runs stay.** How long is long says `[retention]` in the site file,
30 days by default. The log of `clean` names all that went, and why.

By hand: `muster reconcile`, and `muster clean --dry-run` to see what would go. It may be paused, and
run at any time: nothing that runs, or is being planned, is touched.
"""  # noqa: E501 - a table

with DAG(
    dag_id="muster_maintenance",
    # Never when it is first seen, so that a first start is not kept waiting; a day that was missed
    # since is made up for once.  A start_date would make it run at once.
    schedule=CronTriggerTimetable("23 3 * * *", timezone="UTC", run_immediately=timedelta(0)),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={
        "owner": "muster",
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
        # A backend that never answers must not keep the next day's run waiting.
        "execution_timeout": timedelta(hours=6),
    },
    tags=["muster", "maintenance"],
    doc_md=DOC,
) as dag:

    @task
    def reconcile() -> dict[str, int]:
        """End what nobody supervises any more."""
        return maintenance.reconcile_store()

    @task
    def clean() -> dict[str, int]:
        """Remove what the work directory no longer needs."""
        return maintenance.clean_work_directory()

    # What is abandoned would keep bands from being cleaned.
    reconcile() >> clean()
