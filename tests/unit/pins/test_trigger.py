"""The trigger of a deferred batch, as Airflow's database holds it while the batch runs."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from operators.trigger import BatchTrigger
from tests.unit.pins.golden_files import check_literal

USER = "is stored in Airflow's table trigger for every batch that is deferred now"
CLASSPATH = "operators.trigger.BatchTrigger"


def test_a_trigger_is_stored_by_this_name_and_these_arguments() -> None:
    check_literal(
        "the serialised trigger",
        BatchTrigger("0123456789.traits.aoa.SLA").serialize(),
        (CLASSPATH, {"batch_id": "0123456789.traits.aoa.SLA", "shortest_s": 10.0}),
        USER,
    )


@pytest.mark.parametrize(
    "arguments", [{"batch_id": "b", "shortest_s": 2.5}, {"batch_id": "b", "shortest_s": 10.0}]
)
def test_a_stored_trigger_is_made_again(arguments: dict[str, Any]) -> None:
    """As a triggerer does: by the classpath, and with the arguments as keywords."""
    module, _, name = CLASSPATH.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**arguments)
    check_literal("the trigger", trigger.serialize(), (CLASSPATH, arguments), USER)
