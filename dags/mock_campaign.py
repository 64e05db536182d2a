"""The workflow mock_campaign for Airflow: its id, its timetable, its docs.

Tasks, their rules and the form follow from the declaration in ``muster.mocks.workflow``.
"""

from __future__ import annotations

from on_demand import OnDemandTimetable

from operators.workflow_dag import make_dag

DOC = """
### Mock galaxy catalogues

This run makes the galaxy catalogues of a **campaign**: realizations × redshifts, as its YAML file
says. What is there and whole is never computed again, so that slices, further realizations and
second tries all join the same campaign.

**To start** press *Trigger* and name the campaign file under `config`; or give its blocks here.
`slice`, `realizations`, `redshifts` and `first` choose a part of it; `dry_run` only plans. For a
whole campaign in slices start a *backfill*: **the day n of 2000 is slice n** (2000-01-01 is slice
0), of `execution.slice_realizations` realizations each. `muster campaign validate`, `estimate` and
`explain` say beforehand what the file means.

| task | what it does |
|---|---|
| `open` | checks the campaign file and registers the campaign |
| `inspect` | lists the input, compares with what is there, and decides for each catalogue |
| `plan` | records the decisions, and hands out batches |
| `populate` | draws galaxies into haloes; a catalogue is validated before it gets its name |
| `collect` | brings the statistics of a batch's catalogues into one file |
| `qa` | means, bands, covariance and outliers of the whole ensemble, with plots |
| `manifest` | lists every catalogue with its sha256, and the jobs that made them |
| `verdict` | counts catalogues by outcome, and fails the run below the campaign's quorum |

Catalogues without input are counted apart: `muster campaign status` lists them. **To try again,
clear the red task** with what comes after it, or `muster campaign retry`: only what failed runs.
"""

dag = make_dag(
    "mock_campaign", OnDemandTimetable("0 0 * * *", timezone="UTC"), doc=DOC, tags=["mocks"]
)
