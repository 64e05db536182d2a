"""The workflow trait_inference for Airflow: its id, its timetable, its docs.

Tasks, their rules and the form follow from the declaration in ``muster.traits.workflow``.
"""

from __future__ import annotations

from on_demand import OnDemandTimetable

from operators.workflow_dag import make_dag

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

dag = make_dag(
    "trait_inference", OnDemandTimetable("0 0 1 1 *", timezone="UTC"), doc=DOC, tags=["traits"]
)
