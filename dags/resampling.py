"""The workflow resampling: rasters brought to one grid, month by month, and merged into one table.

Wiring only: what a task does is in ``operators``, what a step computes in ``muster.resampling``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task
from on_demand import OnDemandTimetable

from muster.site import read_site
from operators import run
from operators.placement import place, place_mapped

SITE = read_site()

PARAMS = {
    "config": Param(
        None,
        type=["null", "string"],
        title="Params file",
        description="Absolute path of a resampling.yaml; what is said below goes before it.",
    ),
    "target": Param(
        {},
        type="object",
        title="Target grid",
        description='{"crs": "EPSG:4326", "resolution": 0.1, "extent": [-180, -90, 180, 90]}, or '
        '{"like": "/data/grid.tif"}.',
    ),
    "datasets": Param(
        [],
        type="array",
        items={"type": "object"},
        title="Datasets",
        description='[{"name": "wind", "path": "/data/wind-{year}-{month}.tif", "method": '
        '"average"}, …]; a glob names the files of a mosaic.',
    ),
    "output": Param(
        None,
        type=["null", "string"],
        title="Output",
        description="Folder for COGs and pictures; a backfill adds year and month.",
    ),
    "merge": Param(
        None,
        type=["null", "object"],
        title="Merge",
        description='One table of all datasets: {"output": "/data/all.parquet", "table": "all"}.',
    ),
    "memory": Param(
        None,
        type=["null", "string"],
        pattern=r"^\s*\d+(\.\d+)?\s*(MiB|GiB|TiB)\s*$",
        title="Memory",
        description="Budget of one dataset's windows, with its unit; 512MiB where nobody says.",
    ),
    "window_px": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Window",
        description="Longest side of a window in target cells; follows from the memory.",
    ),
    "overwrite": Param(
        None,
        type=["null", "boolean"],
        title="Overwrite",
        description="Compute what is up to date as well.",
    ),
    "resources": Param(
        {},
        type="object",
        title="Resources",
        description='A step\'s own wishes: {"resampling.resample": {"memory": "8GiB", "cpus": 4}}.',
    ),
    "year": Param(
        None,
        type=["null", "integer"],
        minimum=1900,
        maximum=2200,
        title="Year",
        description="For locations with {year}; a backfill fills it in by itself.",
    ),
    "month": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        maximum=12,
        title="Month",
        description="Of that year, for locations with {year} and {month}; so does a backfill.",
    ),
    "quorum": Param(
        1.0,
        type="number",
        minimum=0,
        maximum=1,
        title="Success quorum",
        description="Share of the datasets, and the merge, that must succeed.",
    ),
}

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

with DAG(
    dag_id="resampling",
    schedule=OnDemandTimetable("0 0 1 * *", timezone="UTC"),
    start_date=datetime(1980, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=4,
    params=PARAMS,
    default_args={"owner": "muster", "retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["muster", "resampling"],
    doc_md=DOC,
    render_template_as_native_obj=True,
) as dag:

    @task(task_id="open")
    def open_run() -> dict[str, Any]:
        """Check the parameters and open the run."""
        return run.open_run(get_current_context())

    @task
    def plan() -> list[dict[str, Any]]:
        """Freeze the plan into batches."""
        return run.freeze(get_current_context())

    @task(trigger_rule="all_done")
    def verdict() -> str:
        """Say what the run has come to."""
        return run.conclude(get_current_context())

    opened = open_run()
    inspect = place(SITE, "resampling.inspect", task_id="inspect", batch=opened)
    planned = plan()
    resample = place_mapped(
        SITE,
        "resampling.resample",
        batches=planned,
        task_id="resample",
        map_index_template="{{ task.batch['group'] }}",
    )
    merge = place(
        SITE,
        "resampling.merge",
        task_id="merge",
        batch=f"{{{{ ti.xcom_pull(task_ids='plan', key='{run.GATHER_KEY}') }}}}",
        # it says itself which dataset it lacks, and a run without it says so
        trigger_rule="all_done",
    )
    inspect >> planned
    resample >> merge >> verdict()
