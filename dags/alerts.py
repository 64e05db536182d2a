"""The DAG muster_alerts: every five minutes it tells the site's notifiers what is worth an alert.

Wiring only: what the task does is in ``operators.notify``.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, task

from muster.site import read_site
from operators import notify

DOC = """
### Every five minutes, where the site file names notifiers

`send_alerts` tells the notifiers of `[notify]` in the site file, once a run and kind:

| event | is told when |
|---|---|
| `failure` | a run failed (a DAG of Airflow's tells it at once; this finds runs of the command line too) |
| `quorum_out_of_reach` | so many elements failed for good that a run fails whatever becomes of the others |
| `no_progress` | nothing of a run was submitted, has started, ended or reported progress for `no_progress_minutes` |

An alert that could not be sent fails this DAG's task, never the run that it is about, and is sent by the next run.
Without notifiers the DAG has no timetable.
"""  # noqa: E501 - a table

with DAG(
    dag_id="muster_alerts",
    # Never when it is first seen: what happened since the last time is found by any run.
    schedule=CronTriggerTimetable("*/5 * * * *", timezone="UTC", run_immediately=timedelta(0))
    if read_site().notify
    else None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={
        "owner": "muster",
        "retries": 1,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(minutes=10),
    },
    tags=["muster", "alerts"],
    doc_md=DOC,
) as dag:

    @task
    def send_alerts() -> dict[str, int]:
        """Tell the site's notifiers what they were not told yet."""
        return notify.send_due_alerts()

    send_alerts()
