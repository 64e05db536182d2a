"""What scontrol, sinfo and sbatch --test-only print of a cluster, by a real one's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.backends.remote.transport import Answer
from muster.backends.slurm.limits import parse_config_time
from muster.doctor.slurm_inventory import (
    Nodes,
    Partition,
    Trial,
    parse_gres,
    parse_nodes,
    parse_partitions,
    parse_trial,
)
from muster.errors import SoftwareError

SAMPLES = Path(__file__).parent / "samples"


def test_partitions_and_what_they_give() -> None:
    assert parse_partitions((SAMPLES / "partitions.txt").read_text()) == {
        "genoa": Partition("genoa", "UP", max_time_s=86400, default=True),
        "l40s": Partition("l40s", "DOWN", max_memory_cpu_mib=4000),
    }


def test_a_cluster_without_partitions() -> None:
    assert parse_partitions("No partitions in the system\n") == {}


def test_nodes_that_are_alike_are_one_row() -> None:
    found = parse_nodes((SAMPLES / "nodes.txt").read_text())
    l40s = {("gpu", "l40s"): 4}
    assert found == [
        Nodes("genoa", 2, 48, 190000, {}, "idle"),
        Nodes("l40s", 1, 32, 256000, l40s, "drained"),
        Nodes("l40s", 1, 32, 256000, l40s, "idle"),
        Nodes("l40s", 3, 64, 512000, {("gpu", "a100"): 4, ("nvme", ""): 2048}, "down", False),
    ]
    assert [nodes.takes_jobs for nodes in found] == [True, False, True, False]
    assert (found[3].gpus(), found[3].gpus("a100"), found[3].gpus("l40s")) == (4, 4, 0)


@pytest.mark.parametrize(
    ("state", "takes"),
    [
        ("idle", True),
        ("idle*", False),
        ("mixed-", True),
        ("allocated", True),
        ("draining", False),
        ("idle~", True),
        ("drained*", False),
    ],
)
def test_which_nodes_take_jobs(state: str, takes: bool) -> None:
    assert parse_nodes(f"p|1|4|1000|(null)|{state}|(null)\n")[0].takes_jobs is takes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(null)", {}),
        ("gpu", {("gpu", ""): 1}),
        ("gpu:4", {("gpu", ""): 4}),
        ("gpu:tesla:2(S:0,1),gpu:kepler:2(S:1)", {("gpu", "tesla"): 2, ("gpu", "kepler"): 2}),
        ("gpu:a100_3g.20gb:8", {("gpu", "a100_3g.20gb"): 8}),
    ],
)
def test_generic_resources(text: str, expected: dict[tuple[str, str], int]) -> None:
    assert parse_gres(text) == expected


@pytest.mark.parametrize("text", ["genoa|2|48\n", "genoa|two|48|1|(null)|idle|(null)\n"])
def test_a_row_that_is_not_understood_is_never_left_out(text: str) -> None:
    with pytest.raises(SoftwareError, match="sinfo"):
        parse_nodes(text)
    with pytest.raises(SoftwareError, match="scontrol show partition"):
        parse_partitions("PartitionName=x State=UP MaxTime=soon\n")


def test_what_slurm_would_do_with_a_job() -> None:
    said = (
        "sbatch: Job 15 to start at 1795278447 using 1 processors on nodes gpu1 in partition l40s\n"
    )
    assert parse_trial(Answer(0, "", said)) == Trial(None, 1795278447, "l40s")
    refused = "allocation failure: Requested node configuration is not available\n"
    assert parse_trial(Answer(1, "", refused)) == Trial(
        "Requested node configuration is not available"
    )
    unknown = (
        "sbatch: error: invalid partition specified: nope\n"
        "allocation failure: Invalid partition name specified\n"
    )
    assert parse_trial(Answer(1, "", unknown)) == Trial(
        "invalid partition specified: nope; Invalid partition name specified"
    )


def test_the_clock_of_the_controller() -> None:
    assert parse_config_time("Configuration data as of 1795278447\nAccount = x\n") == 1795278447
    assert parse_config_time("Configuration data as of 2026-11-21T16:27:26\n") is None
