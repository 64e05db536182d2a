"""What the tests may do to the stand-in behind its API: a port of its own, one path an action."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.kubernetes_cluster.admission import ENDED
from tests.kubernetes_cluster.collector import delete_pod
from tests.kubernetes_cluster.conditions import set_condition, write_event
from tests.kubernetes_cluster.faults import Hold, Refusals
from tests.kubernetes_cluster.nodes import make_node
from tests.kubernetes_cluster.pod_worker import Ending

if TYPE_CHECKING:
    from tests.kubernetes_cluster.cluster import StandIn

    Object = dict[str, Any]

LOW_MEMORY = (
    "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. Container"
    " was using 1Gi, request is 0, has larger consumption of memory. "
)
SHUTDOWN = "Pod was terminated in response to imminent node shutdown."
UNREACHABLE = "node.kubernetes.io/unreachable"


class Control:
    """POST /standin/ACTION with the action's arguments as JSON; the answer is what it returns."""

    def __init__(self, cluster: StandIn) -> None:
        self._cluster = cluster
        self.app = web.Application()
        self.app.router.add_post("/standin/{action}", self._handle)

    async def _handle(self, request: web.Request) -> web.Response:
        action = getattr(self, request.match_info["action"], None)
        if action is None or request.match_info["action"].startswith("_"):
            return web.Response(status=404, text="no such action")
        result = action(**await request.json())
        if inspect.isawaitable(result):
            result = await result
        return web.json_response(result)

    # -- the server ------------------------------------------------------------------------

    async def go_away(self, seconds: float | None) -> None:
        await self._cluster.go_away(seconds)

    async def back(self) -> None:
        await self._cluster.come_back()

    def break_watches(self) -> int:
        return self._cluster.break_watches()

    def mute(self, *, muted: bool) -> None:
        """Let watches be silent without ending, as a connection does that is half open."""
        event = self._cluster.faults.unmuted
        event.clear() if muted else event.set()

    def compact(self) -> None:
        self._cluster.store.compact()

    def hold(
        self, verb: str, resource: str, times: int, seconds: float | None, *, cut: bool
    ) -> None:
        self._cluster.faults.holds.append(Hold(verb, resource, times, seconds, cut))

    def release(self) -> int:
        """Let all answers go that are held; how many were yet to be held."""
        holds, self._cluster.faults.holds = self._cluster.faults.holds, []
        for hold in holds:
            hold.released.set()
        return sum(hold.times for hold in holds)

    def refuse(self, times: int, code: int, message: str, headers: dict[str, str]) -> None:
        self._cluster.faults.refusals.append(Refusals(times, code, message, headers))

    def set_token(self, token: str) -> None:
        self._cluster.faults.token = token

    def set_rights(self, rights: list[list[str]] | None) -> None:
        """Allow only these: (group, resource or resource/subresource, verb); None allows all."""
        found = None if rights is None else {(g, r, v) for g, r, v in rights}
        self._cluster.faults.rights = found

    def deny(self, resource: str, message: str, code: int, reason: str, webhook: str) -> None:
        rule = {
            "resource": resource,
            "message": message,
            "code": code,
            "reason": reason,
            "webhook": webhook,
        }
        self._cluster.faults.denied.append(rule)

    def clear(self) -> None:
        self._cluster.faults.clear()

    def forget_events(self) -> None:
        store = self._cluster.store
        for event in store.list("events"):
            store.delete("events", event["metadata"]["namespace"], event["metadata"]["name"])

    # -- pods ------------------------------------------------------------------------------

    def preempt(self, namespace: str, name: str) -> None:
        store = self._cluster.store
        said = "default-scheduler: preempting to accommodate a higher priority pod"
        with store.edit("pods", namespace, name) as pod:
            set_condition(pod, "DisruptionTarget", reason="PreemptionByScheduler", message=said)
        found = store.get("pods", namespace, name)
        write_event(store, found, "default-scheduler", "Preempted", "Preempted by a pod")
        delete_pod(store, found)

    def evict_for_memory(self, namespace: str, name: str) -> None:
        """End a pod as its kubelet does when the node is short of memory."""
        uid = self._cluster.store.get("pods", namespace, name)["metadata"]["uid"]
        ending = Ending(0.0, "Evicted", LOW_MEMORY, disrupted=True)
        self._cluster.kubelets.workers[uid].end(ending)

    # -- nodes -----------------------------------------------------------------------------

    def add_node(self, **node: Any) -> None:
        self._cluster.store.create("nodes", make_node(**node))

    def cordon(self, name: str, *, cordoned: bool) -> None:
        with self._cluster.store.edit("nodes", "", name) as node:
            node["spec"]["unschedulable"] = cordoned

    def drain(self, name: str) -> None:
        """Let nothing new onto a node and evict what is there."""
        self.cordon(name, cordoned=True)
        store = self._cluster.store
        for pod in self._pods_on(name):
            meta = pod["metadata"]
            with store.edit("pods", meta["namespace"], meta["name"]) as evicted:
                set_condition(
                    evicted,
                    "DisruptionTarget",
                    reason="EvictionByEvictionAPI",
                    message="Eviction API: evicting",
                )
            delete_pod(store, store.get("pods", meta["namespace"], meta["name"]))

    def shut_down(self, name: str) -> None:
        """Shut a node down gracefully: its pods end as failed and stay."""
        self.cordon(name, cordoned=True)
        ending = Ending(2.0, "Terminated", SHUTDOWN, disrupted=True)
        self._cluster.kubelets.end_on(name, ending)

    async def lose_node(self, name: str, taint_after_s: float, gone_after_s: float | None) -> None:
        """Let a node vanish: not ready, then its pods are deleted, then it is no node any more."""
        store, loop = self._cluster.store, asyncio.get_running_loop()
        self._cluster.kubelets.lose(name)
        with store.edit("nodes", "", name) as node:
            set_condition(
                node,
                "Ready",
                value="Unknown",
                reason="NodeStatusUnknown",
                message="Kubelet stopped posting node status.",
            )
            taints = node["spec"].setdefault("taints", [])
            taints += [{"key": UNREACHABLE, "effect": e} for e in ("NoSchedule", "NoExecute")]
        for pod in self._pods_on(name):
            meta = pod["metadata"]
            with store.edit("pods", meta["namespace"], meta["name"]) as unready:
                set_condition(unready, "Ready", value=False, reason="NodeNotReady")
        loop.call_later(taint_after_s, self._taint, name)
        if gone_after_s is not None:
            loop.call_later(gone_after_s, self._remove_node, name)

    def _taint(self, name: str) -> None:
        store = self._cluster.store
        for pod in self._pods_on(name):
            meta = pod["metadata"]
            with store.edit("pods", meta["namespace"], meta["name"]) as tainted:
                set_condition(
                    tainted,
                    "DisruptionTarget",
                    reason="DeletionByTaintManager",
                    message="Taint manager: deleting due to NoExecute taint",
                )
            delete_pod(store, store.get("pods", meta["namespace"], meta["name"]))

    def _remove_node(self, name: str) -> None:
        if self._cluster.store.find("nodes", "", name) is not None:
            self._cluster.store.delete("nodes", "", name)
        self._cluster.kubelets.restore(name)

    def restore_node(self, name: str) -> None:
        """Let a lost, cordoned or shut node take pods again; one that is gone comes back new."""
        from tests.kubernetes_cluster.nodes import NODES

        store = self._cluster.store
        self._cluster.kubelets.restore(name)
        if store.find("nodes", "", name) is None:
            store.create("nodes", make_node(**next(n for n in NODES if n["name"] == name)))
            return
        with store.edit("nodes", "", name) as node:
            taints = node["spec"].get("taints") or []
            node["spec"] = {"taints": [t for t in taints if t["key"] != UNREACHABLE]}
            set_condition(node, "Ready", reason="KubeletReady")

    def _pods_on(self, node: str) -> list[Object]:
        return [
            pod
            for pod in self._cluster.store.list("pods")
            if pod["spec"].get("nodeName") == node and pod["status"]["phase"] not in ENDED
        ]
