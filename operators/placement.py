"""Which operator class a step gets in the Grid: the site's placement, read when a DAG is parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muster.errors import ConfigError
from operators.batch import LocalBatchOperator, SlurmBatchOperator

if TYPE_CHECKING:
    from muster.site import Site
    from operators.batch import BatchOperator

OPERATORS: dict[str, type[BatchOperator]] = {
    "local": LocalBatchOperator,
    "slurm": SlurmBatchOperator,
}
"""Backend → operator class; all share execute and resume, and obey the batch's frozen backend."""


def place(site: Site, step: str, **arguments: Any) -> BatchOperator:
    """Make the operator that runs a step's batches in the pool that the site names.

    Parameters
    ----------
    site : Site
        The site, as read when the DAG was parsed.
    step : str
        Dotted name of the step.
    arguments
        Of the operator: ``task_id``, ``batch``, ``trigger_rule`` …

    Raises
    ------
    ConfigError
        When the site does not place the step, or on a backend without an operator.
    """
    placement, pool = site.placed(step)
    operator = OPERATORS.get(pool.backend)
    if operator is None:
        raise ConfigError(
            "no operator runs on this backend", got=pool.backend, expected=", ".join(OPERATORS)
        )
    return operator(step=step, pool=placement.pool, **arguments)
