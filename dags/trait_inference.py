"""The workflow trait_inference: a map of each plant trait, its variation, and where it applies.

Wiring only: what a task does is in ``operators``, what a step computes is in ``muster.traits``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task, task_group
from on_demand import OnDemandTimetable

from muster.site import read_site
from muster.traits.engine_names import AOA_ENGINES, PREDICTION_ENGINES
from operators import run
from operators.placement import place

SITE = read_site()
TASKS = ["predict", "cov", "aoa", "build"]
NAME = "{{ task.batch['group'] }}"

PARAMS = {
    "traits": Param(
        [],
        type="array",
        items={"type": "string", "minLength": 1},
        uniqueItems=True,
        title="Traits",
        description="Names of the traits to map, one a line; each needs a model of that name.",
    ),
    "trait_set": Param(
        "default", type="string", title="Trait set", description="Fills {trait_set} in locations."
    ),
    "tasks": Param(
        TASKS,
        type="array",
        items={"type": "string", "enum": TASKS},
        examples=TASKS,
        minItems=1,
        uniqueItems=True,
        title="Tasks",
        description="Which bands to compute; any that is new goes into the product.",
    ),
    "predictors": Param(
        [],
        type="array",
        items={"type": "string", "minLength": 1},
        uniqueItems=True,
        title="Predictors",
        description="Rasters with the predictors' bands, one a line: paths, s3:// URIs; {year}.",
    ),
    "models": Param(
        None,
        type=["null", "string"],
        title="Models",
        description="Folder with a model bundle a trait (muster traits train); {trait}, {year} …",
    ),
    "output": Param(
        None,
        type=["null", "string"],
        title="Output",
        description="Folder for the products; a backfill adds the year.",
    ),
    "overwrite": Param(
        False, type="boolean", title="Overwrite", description="Compute what is up to date as well."
    ),
    "local_point_density": Param(
        False,
        type="boolean",
        title="Local point density",
        description="Count the training points near each pixel, too.",
    ),
    "trait_table": Param(
        None,
        type=["null", "string"],
        title="Trait table",
        description="CSV with a trait's name, unit, description and TRY id.",
    ),
    "engines": Param(
        {},
        type="object",
        properties={
            "predict": {"type": "string", "enum": ["auto", *PREDICTION_ENGINES]},
            "cov": {"type": "string", "enum": ["auto", *PREDICTION_ENGINES]},
            "aoa": {"type": "string", "enum": ["auto", *AOA_ENGINES]},
        },
        additionalProperties=False,
        title="Engines",
        description='What computes a band, where the plan should not choose: {"aoa": "tree"}.',
    ),
    "resources": Param(
        {},
        type="object",
        title="Resources",
        description='A step\'s own wishes: {"traits.aoa": {"memory": "8GiB", "cpus": 2}}.',
    ),
    "year": Param(
        None,
        type=["null", "integer"],
        minimum=1900,
        maximum=2200,
        title="Year",
        description="For locations with {year}; a backfill fills it in by itself.",
    ),
    "quorum": Param(
        1.0,
        type="number",
        minimum=0,
        maximum=1,
        title="Success quorum",
        description="Share of the traits that must succeed for the run to succeed.",
    ),
}

DOC = """
### Maps of plant traits

For every trait this run makes **one GeoTIFF** with three bands: the predicted trait, the
*coefficient of variation* (how far the models of the cross-validation folds disagree), and the
*area of applicability* (1 where the predictors look like those the model was trained on), and a
picture of them.

**Before the first run** train a model for each trait: `muster traits train --help`.

**To start** press *Trigger*, name the traits, and say where the predictors, the models and the
output folder are. To map several years, put `{year}` into the locations and start a *backfill*.

| task | what it does |
|---|---|
| `open` | checks the parameters |
| `inspect` | looks at predictors, models and what is there already, and decides what to compute |
| `plan` | records the decisions and hands them out |
| `trait.predict`, `cov`, `aoa` | compute the three bands of each trait, side by side |
| `trait.build` | puts them into the product |
| `verdict` | says trait by trait what happened, and fails the run where too little succeeded |

A pink task was not needed, or its trait has no model; the task's log says which. A trait that fails
leaves the others alone. **To try again, clear the red task:** only what is missing runs again.
"""

with DAG(
    dag_id="trait_inference",
    schedule=OnDemandTimetable("0 0 1 1 *", timezone="UTC"),
    start_date=datetime(1980, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=4,
    params=PARAMS,
    default_args={"owner": "muster", "retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["muster", "traits"],
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

    @task_group
    def trait(batch: dict[str, Any]) -> None:
        """Map one trait."""
        bands = [
            place(SITE, f"traits.{name}", task_id=name, batch=batch, map_index_template=NAME)
            for name in ("predict", "cov", "aoa")
        ]
        build = place(
            SITE,
            "traits.build",
            task_id="build",
            batch=batch,
            map_index_template=NAME,
            # build takes the bands that there are: a failed aoa must not keep it from them
            trigger_rule="all_done",
        )
        bands >> build

    opened = open_run()
    inspect = place(SITE, "traits.inspect", task_id="inspect", batch=opened)
    planned = plan()
    inspect >> planned
    trait.expand(batch=planned) >> verdict()
