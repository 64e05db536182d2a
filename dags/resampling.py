"""The workflow resampling for Airflow: its id, its timetable, its docs.

Tasks, their rules and the form follow from the declaration in ``muster.resampling.workflow``.
"""

from __future__ import annotations

from on_demand import OnDemandTimetable

from operators.workflow_dag import make_dag

DOC = """
### Rasters on one grid

This run brings every **dataset** to the target grid: it is *registered* as it is where it lies
there already, reduced by whole blocks of pixels, or warped. The result is a COG, tiles or rows in
Postgres, and, where you ask for a **merge**, one table with a column a dataset.

**To start** press *Trigger* and say what goes where; or name a `resampling.yaml`, where the same is
written down, and say only what is to be different. For several months put `{year}` and `{month}`
into the paths and start a *backfill*: each month is a run of its own. `muster resampling plan`
shows beforehand what a run would do, and what it would take.

| task | what it does |
|---|---|
| `open` | checks the parameters |
| `inspect` | loads what the datasets say of themselves, looks at what is there, and decides |
| `plan` | records each decision with its reason (they are in its log), and hands them out |
| `resample` | brings one dataset to the grid |
| `merge` | makes one table of all, when every dataset is over |
| `verdict` | says dataset by dataset what happened, and fails the run where too little succeeded |

A pink task was not needed, or its input is absent; the task's log says which. A dataset that fails
leaves the others alone, and a month without its input leaves the other months alone. **To try
again, clear the red task** with what comes after it: what is missing runs again, and the merge.
"""

dag = make_dag(
    "resampling", OnDemandTimetable("0 0 1 * *", timezone="UTC"), doc=DOC, tags=["resampling"]
)
