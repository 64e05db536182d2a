"""Which resources there are, which verbs each has, and what a path means."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.kubernetes_cluster.statuses import ApiRefusal

ALL = frozenset({"create", "get", "list", "watch", "delete"})
READ = frozenset({"get", "list", "watch"})


@dataclass(frozen=True)
class Resource:
    """A kind of object, and what may be done with it.

    Attributes
    ----------
    subresources : mapping of str to frozenset of str
        Name → verbs.
    """

    group: str
    version: str
    plural: str
    kind: str
    verbs: frozenset[str] = ALL
    namespaced: bool = True
    subresources: dict[str, frozenset[str]] = field(default_factory=dict)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


RESOURCES = {
    resource.plural: resource
    for resource in (
        Resource(
            "",
            "v1",
            "pods",
            "Pod",
            ALL | {"patch"},
            subresources={
                "log": frozenset({"get"}),
                "status": frozenset({"get"}),
                "eviction": frozenset({"create"}),
            },
        ),
        Resource(
            "batch",
            "v1",
            "jobs",
            "Job",
            ALL | {"patch"},
            subresources={"status": frozenset({"get"})},
        ),
        Resource("", "v1", "events", "Event", READ),
        Resource("", "v1", "secrets", "Secret"),
        Resource("", "v1", "configmaps", "ConfigMap"),
        Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
        Resource("", "v1", "serviceaccounts", "ServiceAccount"),
        Resource("", "v1", "resourcequotas", "ResourceQuota"),
        Resource("", "v1", "limitranges", "LimitRange"),
        Resource("", "v1", "namespaces", "Namespace", namespaced=False),
        Resource("", "v1", "nodes", "Node", READ, namespaced=False),
        Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False),
        Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False),
        Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False),
        Resource(
            "authorization.k8s.io",
            "v1",
            "selfsubjectaccessreviews",
            "SelfSubjectAccessReview",
            frozenset({"create"}),
            namespaced=False,
        ),
        Resource(
            "authentication.k8s.io",
            "v1",
            "selfsubjectreviews",
            "SelfSubjectReview",
            frozenset({"create"}),
            namespaced=False,
        ),
    )
}


@dataclass(frozen=True)
class Target:
    """What a path means: a collection, an object or a part of one."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[a-z]+))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[a-z]+))?)?"
)


def parse_path(path: str) -> Target:
    """Say what a path means; 404 as for a page that is none."""
    found = _PATH.fullmatch(path)
    resource = RESOURCES.get(found["plural"]) if found else None
    unknown = ApiRefusal(404, "the server could not find the requested resource", details={})
    if found is None or resource is None:
        raise unknown
    version = found["core"] or f"{found['group']}/{found['version']}"
    if resource.api_version != version or (found["namespace"] and not resource.namespaced):
        raise unknown
    if found["sub"] and found["sub"] not in resource.subresources:
        raise unknown
    if found["name"] and resource.namespaced and not found["namespace"]:
        raise unknown
    return Target(resource, found["namespace"] or "", found["name"] or "", found["sub"] or "")


def verb_of(method: str, target: Target, *, watch: bool) -> str:
    """Name the verb of a call as authorization does."""
    if method == "GET":
        return "get" if target.name else ("watch" if watch else "list")
    verbs = {
        "POST": "create",
        "DELETE": "delete" if target.name else "deletecollection",
        "PATCH": "patch",
        "PUT": "update",
    }
    return verbs.get(method, method.lower())


def allowed_verbs(target: Target) -> frozenset[str]:
    if target.subresource:
        return target.resource.subresources[target.subresource]
    return target.resource.verbs
