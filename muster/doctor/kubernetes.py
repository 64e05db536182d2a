"""Trying a Kubernetes cluster and its pools before they are trusted: what is asked, in which order.

Nothing more is asked for than batches need: what the account may not look at is told by the pod
that is sent to each pool, with the cluster's own words.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from muster.backends.kubernetes.backend import KubernetesBackend
from muster.backends.kubernetes.client import UNAUTHORIZED, ApiError
from muster.backends.kubernetes.names import RIGHTS
from muster.doctor import kubernetes_findings
from muster.doctor.check import Check, bad
from muster.doctor.kubernetes_limits import parse_limit_ranges, parse_quotas
from muster.doctor.kubernetes_looks import Looks
from muster.doctor.kubernetes_nodes import parse_nodes
from muster.doctor.kubernetes_pool import Inventory, PoolExaminer
from muster.doctor.probe import ahead_s, check_clocks
from muster.errors import MusterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from muster.pools import KubernetesPool
    from muster.site import Site
    from muster.store.database import Database

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


class ClusterExaminer:
    """Tries one cluster of a site, and all pools on it.

    Parameters
    ----------
    db : Database
        The store, at this version's schema.
    site : Site
        Whose.
    pools : dict of str to KubernetesPool
        By name: all on one cluster, in one namespace of it or in several.
    patience_s : float
        How long a pod may wait to begin, in seconds.
    """

    def __init__(
        self, db: Database, site: Site, pools: dict[str, KubernetesPool], patience_s: float
    ) -> None:
        ways: dict[str, dict[str, KubernetesPool]] = {}
        for name, pool in pools.items():
            ways.setdefault(pool.target(site).connection, {})[name] = pool
        self._namespaces = [
            NamespaceExaminer(db, site, own, patience_s, is_alone=len(ways) == 1)
            for own in ways.values()
        ]

    async def examine(self) -> AsyncIterator[Check]:
        """Try each namespace of the cluster, with all its pools at once."""
        for namespace in self._namespaces:
            async for check in namespace.examine():
                yield check


class NamespaceExaminer:
    """Tries one namespace of a cluster, as it is reached for some pools.

    Parameters
    ----------
    db, site, patience_s
        As of :class:`ClusterExaminer`.
    pools : dict of str to KubernetesPool
        By name: all reached in one way.
    is_alone : bool
        Whether the cluster's name alone says which one it is.
    """

    def __init__(
        self,
        db: Database,
        site: Site,
        pools: dict[str, KubernetesPool],
        patience_s: float,
        *,
        is_alone: bool,
    ) -> None:
        self._site = site
        self._pools = pools
        self._patience_s = patience_s
        self._cluster = next(iter(pools.values())).target(site).cluster
        self._namespace = self._cluster.namespace
        self._label = f"cluster {self._cluster.name}"
        if not is_alone:
            self._label += f", namespace {self._namespace}"
            if self._cluster.context is not None:
                self._label += f", context {self._cluster.context}"
        self._backend = KubernetesBackend(db, self._cluster)
        self._client = self._backend.client
        self._looks = Looks(self._client)
        self._inventory = Inventory(self._namespace)

    async def examine(self) -> AsyncIterator[Check]:
        """Try the cluster, then all pools at once."""
        pods: list[asyncio.Task[list[Check]]] = []
        try:
            checks = await self._examine_cluster()
            for check in checks:
                yield check
            if not all(check.good for check in checks):
                for name in self._pools:
                    yield Check(f"pool {name}", False, f"not tried: see {self._label}")
                return
            pods = [asyncio.ensure_future(self._examine_pool(n, p)) for n, p in self._pools.items()]
            for pod in pods:
                for check in await pod:
                    yield check
        finally:
            for pod in pods:
                pod.cancel()
            await asyncio.gather(*pods, return_exceptions=True)  # each ends what it submitted
            await self._backend.close()

    # -- the cluster -------------------------------------------------------------------------

    async def _examine_cluster(self) -> list[Check]:
        try:
            checks = await self._greet()
            if all(check.good for check in checks):
                checks += await self._check_account()
                checks += await self._check_namespace()
        except ApiError as error:
            if error.status == UNAUTHORIZED:
                return [
                    bad(self._label, "the API server does not take these credentials",
                        where=self._client.host, got=error.message or error.reason,
                        do="log in again, or correct context, kubeconfig or connection")
                ]  # fmt: skip
            return [Check(self._label, False, str(error))]
        except ModuleNotFoundError as error:
            return [
                bad(self._label, "a package is missing here", got=error.name,
                    do="install the extra 'kubernetes'")
            ]  # fmt: skip
        except MusterError as error:
            return [Check(self._label, False, str(error))]
        cluster = self._cluster
        said = (
            f"one watch for all batches, {cluster.requests_per_s:g} calls a second at most of each "
            f"process (requests_per_s); a pod is given up that waits for {cluster.stuck_after} s "
            "(stuck_after) for what time alone does not bring"
        )
        return [*checks, Check(self._label, True, said)]

    async def _greet(self) -> list[Check]:
        """Ask for the version, and compare clocks."""
        await asyncio.to_thread(importlib.import_module, "kubernetes_asyncio.client.rest")
        started_s, before_s = time.monotonic(), time.time()
        async with self._client.open("GET", "/version") as response:
            told = json.loads(await response.read())
            date = response.headers.get("Date")
        between_s = before_s, time.time()
        took_s = time.monotonic() - started_s
        way = (
            f"connection {self._cluster.connection}" if self._cluster.connection
            else "the account of this pod" if self._cluster.in_cluster
            else f"context {self._cluster.context or 'that is current'}"
        )  # fmt: skip
        said = f" at {self._client.host}, asked by {way}, answered within {took_s:.2f} s"
        checks = [kubernetes_findings.check_version(self._label, told, said)]
        if date is not None:
            told_s = parsedate_to_datetime(date).timestamp()
            ahead = {"the API server": ahead_s(told_s, *between_s, resolution_s=1.0)}
            checks.append(check_clocks(self._label, ahead))
        return checks

    async def _check_account(self) -> list[Check]:
        """Ask who this is, and whether it may do what batches need."""
        allowed: dict[tuple[str, str, str], bool] = {}
        for right in RIGHTS:
            group, resource, verb = right
            plural, _, part = resource.partition("/")
            asked = {
                "namespace": self._namespace, "group": group, "resource": plural, "verb": verb,
            }  # fmt: skip
            body = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": asked | ({"subresource": part} if part else {})},
            }
            answer = await self._client.call("POST", _REVIEWS, None, body)
            allowed[right] = bool((answer.get("status") or {}).get("allowed"))
        user = await self._read_user()
        return kubernetes_findings.check_rights(self._label, self._namespace, user, allowed)

    async def _read_user(self) -> str | None:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            answer = await self._client.call("POST", _WHO, None, body)
        except ApiError:
            return None  # it is told by nobody, and nothing else hangs on it
        found = ((answer.get("status") or {}).get("userInfo") or {}).get("username")
        return None if found is None else str(found)

    async def _check_namespace(self) -> list[Check]:
        """Look at the namespace and its limits, and at the nodes, as far as that is allowed."""
        label, namespace = self._label, self._namespace
        seen, space = await self._looks.get_namespace(namespace)
        if seen and (space is None or (space.get("status") or {}).get("phase") == "Terminating"):
            got = "there is none" if space is None else "it is being deleted"
            return [
                bad(label, "no such namespace", where=namespace, got=got,
                    do="make it, or correct namespace of the cluster")
            ]  # fmt: skip
        quotas = await self._looks.list_of(namespace, "resourcequotas")
        ranges = await self._looks.list_of(namespace, "limitranges")
        nodes = await self._looks.list_nodes()
        self._inventory = Inventory(
            namespace,
            parse_quotas(quotas or []),
            parse_limit_ranges(ranges or []),
            None if nodes is None else parse_nodes(nodes),
        )
        listed = {"quotas": quotas, "limit ranges": ranges, "nodes": nodes}
        unseen = [what for what, found in listed.items() if found is None]
        if not unseen:
            return []
        said = f"may not list {' and '.join(unseen)} (no right to): whether pods fit, the pods tell"
        return [Check(label, True, said)]

    async def _examine_pool(self, name: str, pool: KubernetesPool) -> list[Check]:
        examiner = PoolExaminer(
            self._site, name, pool, self._backend, self._looks, self._inventory, self._patience_s
        )
        try:
            return await examiner.examine()
        except MusterError as error:
            return [Check(f"pool {name}", False, str(error))]
