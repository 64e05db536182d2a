"""Quotas and limit ranges: which pods they refuse, and how many they let run."""

from __future__ import annotations

from typing import Any

import pytest

from muster.doctor.kubernetes_limits import (
    PodAsks,
    amounts_of,
    check_limit_ranges,
    check_quotas,
    parse_limit_ranges,
    parse_quotas,
)
from muster.errors import SoftwareError

GPU = "nvidia.com/gpu"


def pod(requests: dict[str, str], limits: dict[str, str] | None = None, **spec: Any) -> PodAsks:
    resources = {"requests": requests, "limits": limits or {}}
    return PodAsks("traits.aoa", {"containers": [{"resources": resources}], **spec})


def quota(hard: dict[str, str], used: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "q"},
        "spec": {"hard": hard, **spec},
        "status": {"hard": hard, "used": used or {}},
    }


def limit_range(kind: str = "Container", **limits: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": "r"}, "spec": {"limits": [{"type": kind, **limits}]}}


def judge(asks: PodAsks, *quotas: dict[str, Any], slots: int = 4) -> list[tuple[str, str]]:
    found = check_quotas("p", asks, parse_quotas(quotas), [], slots)
    return [(check.mark, check.finding) for check in found]


@pytest.mark.parametrize(
    "hard",
    [
        {"requests.cpu": "8", "memory": "8Gi", "pods": "4", "count/jobs.batch": "9"},
        {"limits.memory": "8Gi", f"requests.{GPU}": "4"},
        {"services": "0", "persistentvolumeclaims": "0", "requests.storage": "0"},
    ],
)
def test_quotas_with_room(hard: dict[str, str]) -> None:
    asks = pod({"cpu": "2", "memory": "2Gi", GPU: "1"}, {"memory": "2Gi", GPU: "1"})
    assert judge(asks, quota(hard)) == []


@pytest.mark.parametrize(
    ("hard", "mark", "words"),
    [
        ({"cpu": "1"}, "BAD", "asks for 2 CPUs (requests.cpu); expected: 1 CPU (requests.cpu) at"),
        ({f"requests.{GPU}": "0"}, "BAD", f"asks for 1 {GPU} (requests.{GPU})"),
        ({"limits.cpu": "100"}, "BAD", "the quota counts limits.cpu, and the pod does not say it"),
        ({"pods": "3"}, "warn", "of 4 slots 3 can be used at once by traits.aoa: quota q gives 3"),
        ({"requests.memory": "5Gi"}, "warn", "of 4 slots 2 can be used"),
    ],
)  # fmt: skip
def test_quotas_that_refuse_or_are_small(hard: dict[str, str], mark: str, words: str) -> None:
    asks = pod({"cpu": "2", "memory": "2Gi", GPU: "1"}, {"memory": "2Gi", GPU: "1"})
    ((found, finding),) = judge(asks, quota(hard))
    assert found == mark
    assert words in finding


def test_what_is_in_use_is_told() -> None:
    ((_, finding),) = judge(pod({"cpu": "2"}), quota({"cpu": "6"}, {"cpu": "4"}))
    assert "gives 6 CPUs (requests.cpu), and 4 CPUs (requests.cpu) of it in use" in finding
    assert "do: slots = 3, or ask for a larger quota" in finding


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        ({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["gpu"]}]}}, True),
        ({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["other"]}]}}, False),
        ({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "DoesNotExist"}]}}, False),
        ({"scopes": ["Terminating"]}, True),
        ({"scopes": ["NotTerminating"]}, False),
        ({"scopes": ["BestEffort"]}, False),
        ({"scopes": ["NotBestEffort"]}, True),
    ],
)  # fmt: skip
def test_quotas_count_only_the_pods_of_their_scope(spec: dict[str, Any], *, counts: bool) -> None:
    asks = pod({"cpu": "2"}, priorityClassName="gpu", activeDeadlineSeconds=60)
    assert bool(judge(asks, quota({"cpu": "1"}, **spec))) is counts


def test_limit_ranges_fill_in_what_a_pod_leaves_out() -> None:
    ranges = parse_limit_ranges([limit_range(
        min={"ephemeral-storage": "1Gi"}, max={"memory": "8Gi"}, default={"cpu": "4"},
        defaultRequest={"cpu": "1"},
    )])  # fmt: skip
    assert amounts_of(pod({"cpu": "2"}), ranges) == {
        "requests.cpu": 2.0, "limits.cpu": 4.0, "requests.memory": 2.0**33,
        "limits.memory": 2.0**33, "requests.ephemeral-storage": 2.0**30,
    }  # fmt: skip
    assert check_limit_ranges("p", pod({"cpu": "2"}), ranges) == []


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max": {"memory": "1Gi"}}, "asks for 2048 MiB (limits.memory); expected: at most 1024"),
        ({"min": {"cpu": "4"}}, "asks for 2 CPUs (requests.cpu); expected: at least 4 CPUs"),
        ({"default": {"cpu": "500m"}},
         "got: 2 CPUs (requests.cpu); expected: 0.5 CPUs (limits.cpu) at most; do: say 'cpu_limit"),
        ({"kind": "Pod", "max": {"cpu": "4"}}, "does not say limits.cpu; expected: at most 4 CPUs"),
    ],
)  # fmt: skip
def test_limit_ranges_that_refuse(limits: dict[str, Any], words: str) -> None:
    asks = pod({"cpu": "2", "memory": "2Gi"}, {"memory": "2Gi"})
    found = check_limit_ranges("p", asks, parse_limit_ranges([limit_range(**limits)]))
    assert [check.mark for check in found] == ["BAD"]
    assert "no pod of traits.aoa would be made" in found[0].finding
    assert words in found[0].finding


def test_limits_that_are_none() -> None:
    for parse, item in (
        (parse_quotas, quota({"cpu": "much"})),
        (parse_limit_ranges, limit_range(max={"cpu": "much"})),
    ):
        with pytest.raises(SoftwareError, match="cannot understand a limit of a namespace"):
            parse([item])
