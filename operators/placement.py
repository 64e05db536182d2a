"""Which operator class a step gets in the Grid: the site's placement, read when a DAG is parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muster.backends.registry import BACKENDS
from muster.errors import ConfigError
from muster.imports import load_named

if TYPE_CHECKING:
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from muster.site import Site
    from operators.batch import BatchOperator


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
        When the site does not place the step, or its backend needs a provider that is not there.
    """
    operator, pool = _find_operator(site, step)
    return operator(step=step, pool=pool, **arguments)


def place_mapped(site: Site, step: str, *, batches: Any, **arguments: Any) -> MappedOperator:
    """Make the operator that runs a step for each group of the plan, in the site's pool.

    Parameters
    ----------
    batches
        What the plan task returns: a dict a group.
    site, step, arguments
        As of :func:`place`.

    Raises
    ------
    ConfigError
        When the site does not place the step, or its backend needs a provider that is not there.
    """
    operator, pool = _find_operator(site, step)
    return operator.partial(step=step, pool=pool, **arguments).expand(batch=batches)


def _find_operator(site: Site, step: str) -> tuple[type[BatchOperator], str]:
    """Find the operator class of a step, and the name of its pool."""
    placement, pool = site.placed(step)
    try:
        return load_named(BACKENDS[pool.backend].operator), placement.pool
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Airflow lacks what pools of backend {pool.backend} need",
            where=f"pool {placement.pool} of site {site.name}",
            got=error,
            do=f"make {pool.backend}, or pip install 'muster[airflow,{pool.backend}]'",
        ) from error
