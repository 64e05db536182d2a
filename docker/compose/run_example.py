"""Map the example's traits through Airflow, and follow the run to its end.

Runs in the image airflow; MUSTER_AIRFLOW_URL and its login say which Airflow.
"""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING

from rich.console import Console

from muster.errors import MusterError
from muster.laptop.find_airflow import find_airflow
from muster.laptop.request import EXAMPLE_TRAITS, PREDICTORS_NAME
from muster.laptop.watch import DAG_ID, watch_run

if TYPE_CHECKING:
    from muster.laptop.airflow_api import AirflowApi

FOLDER = "s3://muster/example"


def run_example(airflow: AirflowApi) -> bool:
    """Trigger the run, follow it, and say whether it succeeded."""
    airflow.wait_for_dag(DAG_ID)
    airflow.unpause(DAG_ID)
    run_id = f"example__{uuid.uuid4().hex[:8]}"
    params = {
        "traits": list(EXAMPLE_TRAITS),
        "predictors": [f"{FOLDER}/{PREDICTORS_NAME}"],
        "models": f"{FOLDER}/models",
        "output": f"{FOLDER}/products",
    }
    airflow.trigger(DAG_ID, params, run_id=run_id)
    ended = watch_run(airflow, run_id, list(EXAMPLE_TRAITS), Console())
    print(f"run {run_id}: {ended.state}; products in {FOLDER}/products")
    return ended.state == "success"


if __name__ == "__main__":
    try:
        found = find_airflow()
        sys.exit(found is None or not run_example(found))
    except MusterError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
