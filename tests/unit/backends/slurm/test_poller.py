"""How often a cluster is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from muster.backends.slurm.poller import ClusterPoller
from muster.model.slurm_target import Cluster


@pytest.mark.parametrize(
    ("took_s", "expected_s"), [(0.1, 30.0), (3.0, 30.0), (6.0, 60.0), (79.0, 300.0)]
)
def test_a_slow_look_makes_the_next_one_late_but_not_by_much(
    took_s: float, expected_s: float
) -> None:
    """A look that hangs in an outage is the last slow one; what has ended waits for the next."""
    nobody: Any = None
    poller = ClusterPoller(nobody, Cluster(poll_every="00:00:30"), nobody, nobody, nobody)
    poller._took_s = took_s
    assert poller._interval_s == expected_s
