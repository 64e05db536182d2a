"""The backend as tests open it: against a cluster whose pods see the test's own folder."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from muster.model.kubernetes_target import Kubernetes, KubernetesTarget
from muster.model.kubernetes_words import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubernetes_under_test import KubernetesUnderTest


def make_target(kubernetes: KubernetesUnderTest, folder: Path, **words: Any) -> KubernetesTarget:
    """Return a pool on a cluster, whose pods see a folder by a claim of its own."""
    claim = f"work-{uuid.uuid4().hex[:8]}"
    kubernetes.make_claim(claim, folder)
    said = {
        "image": kubernetes.image,
        "volumes": (Volume(path=str(folder), claim=claim),),
        "termination_grace": "00:00:10",
        **words,
    }
    cluster = make_cluster(kubernetes, **said.pop("cluster", {}))
    return KubernetesTarget(cluster=cluster, **said)


def make_cluster(kubernetes: KubernetesUnderTest, **words: Any) -> Kubernetes:
    """Return how a cluster under test is reached, with little patience."""
    said = {
        "kubeconfig": str(kubernetes.kubeconfig),
        "namespace": kubernetes.namespace,
        "requests_per_s": 200,
        "result_grace": "00:00:02",
        "stuck_after": "00:00:02",
    }
    return Kubernetes(**{**said, **words})
