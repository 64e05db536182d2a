"""The nodes that the stand-in has at first: two of processors, one of GPUs."""

from __future__ import annotations

from typing import Any

from tests.kubernetes_cluster.storage import now

GPU = "nvidia.com/gpu"
GPU_TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}

NODES: tuple[dict[str, Any], ...] = (
    {"name": "cpu-1", "labels": {"pool": "cpu"}, "amounts": {"cpu": "8", "memory": "16Gi"}},
    {"name": "cpu-2", "labels": {"pool": "cpu"}, "amounts": {"cpu": "8", "memory": "16Gi"}},
    {
        "name": "gpu-1",
        "labels": {"pool": "gpu", "gpu": "a100", "nvidia.com/gpu.product": "NVIDIA-A100"},
        "amounts": {"cpu": "8", "memory": "16Gi", GPU: "2", "nvidia.com/mig-1g.10gb": "2"},
        "taints": [GPU_TAINT],
    },
)


def make_node(
    name: str,
    amounts: dict[str, str],
    labels: dict[str, str] | None = None,
    taints: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return a node that is ready."""
    room = {"pods": "110", **amounts}
    own = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **(labels or {})}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "kubelet is posting ready status",
        "lastTransitionTime": now(),
        "lastHeartbeatTime": now(),
    }
    return {
        "metadata": {"name": name, "labels": own},
        "spec": {"taints": taints} if taints else {},
        "status": {
            "capacity": room,
            "allocatable": room,
            "conditions": [ready],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "1",
                "containerRuntimeVersion": "containerd://2.1.4",
                "kernelVersion": "6.12.0",
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.36.0",
                "machineID": "1",
                "operatingSystem": "linux",
                "osImage": "Debian GNU/Linux 13 (trixie)",
                "systemUUID": "1",
            },
        },
    }
