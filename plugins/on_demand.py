"""The timetable of workflows that people start: it has intervals, and never starts by itself.

A DAG without a timetable refuses backfills, and one with an ordinary timetable starts a run as soon
as it is unpaused.  This one knows its intervals, so that a backfill of three years is three runs,
and offers none of them to the scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.plugins_manager import AirflowPlugin
from airflow.timetables.interval import CronDataIntervalTimetable

if TYPE_CHECKING:
    from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction


class OnDemandTimetable(CronDataIntervalTimetable):
    """Intervals of a cron expression, for backfills only."""

    description = "On demand, and by backfill"

    def next_dagrun_info(
        self,
        *,
        last_automated_data_interval: DataInterval | None,
        restriction: TimeRestriction,
    ) -> DagRunInfo | None:
        """Give the next interval to a backfill, and none to the scheduler."""
        if not restriction.catchup:
            return None
        return super().next_dagrun_info(
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )


class MusterPlugin(AirflowPlugin):
    """What Muster adds to Airflow."""

    name = "muster"
    timetables = [OnDemandTimetable]
