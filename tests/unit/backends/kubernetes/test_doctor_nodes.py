"""On which nodes pods could run: quantities, selectors, taints, affinity, and what is too large."""

from __future__ import annotations

from typing import Any

import pytest

from muster.doctor.kubernetes_findings import check_fit, check_nodes
from muster.doctor.kubernetes_limits import PodAsks
from muster.doctor.kubernetes_nodes import (
    Node,
    find_amounts,
    find_objection,
    parse_nodes,
    parse_quantity,
)
from muster.errors import SoftwareError
from muster.pools import KubernetesPool

GPU = "nvidia.com/gpu"
TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}
CPU_1 = Node("cpu-1", {"zone": "a", "cores": "8"}, (), {"cpu": 8.0, "memory": 16 * 2.0**30})
GPU_1 = Node("gpu-1", {"gpu": "a100"}, (TAINT,), {"cpu": 8.0, "memory": 2.0**34, GPU: 2.0})


def asks(requests: dict[str, str], **spec: Any) -> dict[str, Any]:
    return {"containers": [{"name": "muster", "resources": {"requests": requests}}], **spec}


def affinity(*expressions: dict[str, Any]) -> dict[str, Any]:
    terms = [{"matchExpressions": [one]} for one in expressions]
    required = {"nodeSelectorTerms": terms}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def pool(**words: object) -> KubernetesPool:
    return KubernetesPool.model_validate(
        {"backend": "kubernetes", "slots": 2, "image": "muster/compute:1", **words}
    )


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("8", 8.0), ("500m", 0.5), ("16Gi", 2.0**34), ("1G", 1e9), ("1e3", 1e3), ("1E3", 1e3),
        ("1E", 1e18), ("0.5Ki", 512.0), (".5", 0.5), ("16384Ki", 2.0**24), ("100u", 1e-4),
        (4, 4.0),
    ],
)  # fmt: skip
def test_quantities(text: object, amount: float) -> None:
    assert parse_quantity(text) == pytest.approx(amount)


@pytest.mark.parametrize("text", ["", "8 Gi", "eight", "1ki", None])
def test_what_is_no_quantity(text: object) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        parse_quantity(text)


def test_limits_are_requests_that_are_not_said() -> None:
    spec = {"containers": [
        {"resources": {"limits": {"memory": "1Gi", GPU: 1}, "requests": {"cpu": "2"}}},
        {"resources": {"requests": {"cpu": "500m"}}},
    ]}  # fmt: skip
    assert find_amounts(spec) == {"memory": 2.0**30, GPU: 1.0, "cpu": 2.5}
    assert find_amounts(spec, "limits") == {"memory": 2.0**30, GPU: 1.0}


def test_a_node_as_the_api_server_has_it() -> None:
    taints = [TAINT, {"key": "slow", "effect": "PreferNoSchedule"}]
    item = {
        "metadata": {"name": "n", "labels": {"a": "b"}},
        "spec": {"taints": taints, "unschedulable": True},
        "status": {
            "allocatable": {"cpu": "7910m", "memory": "1Gi"},
            "conditions": [{"type": "Ready", "status": "Unknown"}],
        },
    }
    (node,) = parse_nodes([item])
    assert (node.ready, node.cordoned, node.taints) == (False, True, (TAINT,))
    assert node.describe() == "7.91 CPUs, 1024 MiB"
    with pytest.raises(SoftwareError, match="cannot understand a node"):
        parse_nodes([{"metadata": {"name": "n"}}])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, None),
        ({"nodeSelector": {"zone": "a"}}, None),
        ({"nodeSelector": {"zone": "b"}}, "has zone = a, not b"),
        ({"nodeSelector": {"gpu": "a100"}}, "has gpu = none, not a100"),
        ({"affinity": affinity({"key": "zone", "operator": "In", "values": ["b", "a"]})}, None),
        ({"affinity": affinity({"key": "zone", "operator": "NotIn", "values": ["a"]})}, "affinity"),
        ({"affinity": affinity({"key": "zone", "operator": "DoesNotExist"})}, "affinity"),
        ({"affinity": affinity({"key": "cores", "operator": "Gt", "values": ["7"]})}, None),
        ({"affinity": affinity({"key": "cores", "operator": "Lt", "values": ["8"]})}, "affinity"),
        ({"affinity": affinity({"key": "x", "operator": "Exists"},
                               {"key": "zone", "operator": "Exists"})}, None),
    ],
)  # fmt: skip
def test_selectors_and_affinity(spec: dict[str, Any], words: str | None) -> None:
    found = find_objection(spec, CPU_1)
    assert (found is None) if words is None else (words in str(found))


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": GPU, "operator": "Exists"}, True),
        ({"key": GPU, "operator": "Equal", "value": "present", "effect": "NoSchedule"}, True),
        ({"operator": "Exists"}, True),
        ({"key": GPU, "operator": "Equal", "value": "other"}, False),
        ({"key": GPU, "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_taints(toleration: dict[str, str], *, tolerated: bool) -> None:
    found = find_objection({"tolerations": [toleration]}, GPU_1)
    assert (found is None) is tolerated
    assert tolerated or "has the taint nvidia.com/gpu=present:NoSchedule" in str(found)


def test_nodes_that_take_pods_of_a_pool() -> None:
    (check,) = check_nodes("p", pool(), asks({"cpu": "1"}), [CPU_1, GPU_1])
    assert (check.mark, check.finding) == ("ok", "1 of 2 nodes take its pods: 8 CPUs, 16384 MiB")
    (check,) = check_nodes("p", pool(), asks({}, nodeSelector={"gpu": "h100"}), [CPU_1, GPU_1])
    assert check.mark == "warn"
    assert "none of 2 nodes takes pods of this pool" in check.finding
    assert "got: cpu-1 has gpu = none, not h100; gpu-1 has gpu = a100, not h100" in check.finding
    ok, check = check_nodes("p", pool(), asks({"nvidia.com/mig-1g.10gb": "1"}), [CPU_1, GPU_1])
    assert ok.mark == "ok"
    assert "no node that takes its pods has nvidia.com/mig-1g.10gb" in check.finding
    assert "nodes have nvidia.com/gpu" in check.finding
    many = [Node(f"n{n}", {}, (), {"cpu": n, "memory": 0.0}) for n in range(2, 10)]
    (check,) = check_nodes("p", pool(), asks({}), many)
    assert check.finding.startswith("8 of 8 nodes take its pods: 2 CPUs, 0 MiB; 3 CPUs")
    assert check.finding.endswith("6 CPUs, 0 MiB; and 3 other kinds")
    ok, check = check_nodes("p", pool(max_memory="20GiB"), asks({}), [CPU_1])
    assert 'do: max_memory = "16384MiB"' in check.finding


def test_what_no_node_is_large_enough_for() -> None:
    fits = PodAsks("traits.cov", asks({"cpu": "8"}))
    large = PodAsks("traits.aoa", asks({"cpu": "9", "memory": "1Gi"}))
    nowhere = PodAsks("traits.build", asks({"cpu": "99"}, nodeSelector={"gpu": "h100"}))
    pods = [(fits, "8 CPUs"), (large, "9 CPUs"), (nowhere, "99 CPUs")]
    (check,) = check_fit("p", pods, [CPU_1, GPU_1])
    assert check.mark == "warn"
    assert check.finding.startswith("traits.aoa would wait for ever")
    assert "got: asks for 9 CPUs; cpu-1 has 8 CPUs" in check.finding
