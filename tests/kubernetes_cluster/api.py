"""The API server: who may call, what a call means, and what it answers."""

from __future__ import annotations

import copy
import json
import uuid
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.kubernetes_cluster.admission import admit, finish_job
from tests.kubernetes_cluster.collector import delete_job, delete_pod
from tests.kubernetes_cluster.conditions import set_condition
from tests.kubernetes_cluster.faults import TESTS_AGENT
from tests.kubernetes_cluster.lists import Lists
from tests.kubernetes_cluster.patches import patch_item
from tests.kubernetes_cluster.resources import RESOURCES, Target, allowed_verbs, parse_path, verb_of
from tests.kubernetes_cluster.selectors import parse_field_selector, parse_label_selector
from tests.kubernetes_cluster.statuses import (
    ApiRefusal,
    NotEmulated,
    conflict,
    details_of,
    forbidden,
    success,
)
from tests.kubernetes_cluster.validation import check_body
from tests.kubernetes_cluster.watches import WatchStream, answer_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kubernetes_cluster.cluster import StandIn
    from tests.kubernetes_cluster.storage import Storage

    Object = dict[str, Any]

LIST_QUERY = {"labelSelector", "fieldSelector", "limit", "continue", "resourceVersion"}
WATCH_QUERY = {"timeoutSeconds", "allowWatchBookmarks", "watch"}
WRITE_QUERY = {"fieldValidation", "fieldManager", "dryRun"}
DELETE_QUERY = {"gracePeriodSeconds", "propagationPolicy", "dryRun"}
LOG_QUERY = {
    *("container", "follow", "limitBytes", "previous"),
    *("sinceSeconds", "sinceTime", "tailLines", "timestamps"),
}
QUERIES = {
    "list": LIST_QUERY | WATCH_QUERY,
    "watch": LIST_QUERY | WATCH_QUERY,
    "create": WRITE_QUERY,
    "patch": WRITE_QUERY,
    "delete": DELETE_QUERY,
    "get": LOG_QUERY,
}
UNKNOWN = {404, 405, 406, 415, 501}
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"}
ORPHAN_WARNING = (
    '299 - "child pods are preserved by default when jobs are deleted; set'
    " propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this"
    ' warning"'
)


class Api:
    """Answers every call to the API's port."""

    def __init__(self, cluster: StandIn) -> None:
        self._cluster = cluster
        self._store: Storage = cluster.store
        self._lists = Lists(cluster.store)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one call, and write it down."""
        agent = request.headers.get("User-Agent", "")
        call: Object = {"method": request.method, "path": request.path, "agent": agent}
        try:
            answer = await self._answer(request, call)
        except ApiRefusal as refusal:
            call["status"] = refusal.code
            known = "verb" in call and refusal.code in (404,)
            if refusal.code in UNKNOWN and not known:
                self._cluster.write_refused({**call, "message": refusal.message})
            answer = web.json_response(refusal.body, status=refusal.code, headers=refusal.headers)
        except Exception:
            self._cluster.write_error()
            answer = web.json_response(ApiRefusal(500, "the stand-in has failed").body, status=500)
        if call.get("verb") != "watch" or answer.status != 200:
            self._cluster.write_call({**call, "status": answer.status})
        return answer

    async def _answer(self, request: web.Request, call: Object) -> web.StreamResponse:
        self._cluster.faults.check_token(request.headers.get("Authorization", ""))
        if request.path == "/version":
            return web.json_response(VERSION)
        if request.path in ("/readyz", "/livez", "/healthz"):
            return web.Response(text="ok")
        target = parse_path(request.path)
        query = dict(request.query)
        watch = query.get("watch") in ("true", "1")
        verb = verb_of(request.method, target, watch=watch)
        if verb not in allowed_verbs(target):
            raise ApiRefusal(405, "the server does not allow this method on the requested resource")
        self._check_form(request, verb, query)
        call |= {
            "verb": verb,
            "group": target.resource.group,
            "resource": target.resource.plural,
            "subresource": target.subresource,
            "namespace": target.namespace,
            "name": target.name,
        }
        ours = call["agent"].startswith(TESTS_AGENT)
        if not ours:
            self._cluster.faults.check(target, verb)
        if verb == "watch":
            self._cluster.write_call({**call, "status": 200})
        answer = await self._do(request, target, verb, query)
        if not ours and await self._cluster.faults.hold(target, verb) and request.transport:
            request.transport.abort()
        return answer

    @staticmethod
    def _check_form(request: web.Request, verb: str, query: dict[str, str]) -> None:
        unknown = set(query) - QUERIES[verb] - {"pretty"}
        if unknown:
            raise NotEmulated(f"the parameter {unknown.pop()} of {verb}")
        if ";as=" in request.headers.get("Accept", "").replace(" ", ""):
            raise ApiRefusal(406, "only application/json is known here")
        kind = request.content_type
        if verb == "create" and kind != "application/json":
            raise ApiRefusal(415, f"the body of the request was in an unknown format: {kind}")

    async def _do(
        self, request: web.Request, target: Target, verb: str, query: dict[str, str]
    ) -> web.StreamResponse:
        if target.subresource == "log":
            return await self._log(request, target, query)
        if target.subresource == "eviction":
            return self._evict(target, await _read_json(request))
        if verb in ("list", "watch"):
            matches = self._selector(target, query)
            if verb == "watch":
                cluster = self._cluster
                stream = WatchStream(self._store, cluster.faults, target.resource, matches)
                return await stream.answer(request, query, cluster.bookmark_every_s)
            return web.json_response(
                self._lists.answer(target.resource, target.namespace, matches, query)
            )
        plural, where = target.resource.plural, (target.namespace, target.name)
        if verb == "get":
            return web.json_response(self._store.get(plural, *where))
        if verb == "create":
            return self._create(target, await _read_json(request), query)
        if verb == "patch":
            patch = await _read_json(request)
            item = patch_item(self._store, target, patch, request.content_type)
            return web.json_response(item)
        options = {**await _read_json(request, empty=True), **query}
        return self._delete(target, options)

    def _selector(self, target: Target, query: dict[str, str]) -> Callable[[Object], bool]:
        labels = parse_label_selector(query.get("labelSelector", ""))
        fields = parse_field_selector(target.resource.plural, query.get("fieldSelector", ""))
        namespace = target.namespace

        def matches(item: Object) -> bool:
            inside = not namespace or item["metadata"].get("namespace") == namespace
            return inside and labels(item) and fields(item)

        return matches

    # -- writing ---------------------------------------------------------------------------

    def _create(self, target: Target, body: Object, query: dict[str, str]) -> web.Response:
        resource = target.resource
        if resource.namespaced and not target.namespace:
            raise ApiRefusal(405, "an object is created in a namespace")
        check_body(resource, body, strict=query.get("fieldValidation") not in ("Ignore", "Warn"))
        item = copy.deepcopy(body)
        meta = item.setdefault("metadata", {})
        if meta.pop("resourceVersion", None):
            raise ApiRefusal(400, "resourceVersion should not be set on objects to be created")
        meta.pop("uid", None)
        if resource.plural == "selfsubjectaccessreviews":
            return self._review(item)
        if resource.plural == "selfsubjectreviews":
            user = {"username": "muster", "groups": ["system:authenticated"]}
            return web.json_response({**item, "status": {"userInfo": user}}, status=201)
        if target.namespace:
            self._enter(target, meta)
        self._cluster.faults.deny(resource.plural, item)
        admit(self._store, resource.plural, item)
        if resource.plural == "jobs":
            finish_job(item, str(uuid.uuid4()))
        elif resource.plural == "namespaces":
            meta["finalizers"] = ["kubernetes"]
        if query.get("dryRun"):
            return web.json_response(item, status=201)
        made = self._store.create(resource.plural, item)
        if resource.plural == "namespaces":
            self._cluster.furnish(made["metadata"]["name"])
        return web.json_response(made, status=201)

    def _enter(self, target: Target, meta: Object) -> None:
        """Put an object into the namespace of its path."""
        if meta.setdefault("namespace", target.namespace) != target.namespace:
            said = "the namespace of the provided object does not match the namespace sent on the"
            raise ApiRefusal(400, f"{said} request")
        space = self._store.get("namespaces", "", target.namespace)
        if space["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {target.namespace} because it is"
            name = meta.get("name") or meta.get("generateName", "")
            raise forbidden(target.resource, name, f"{why} being terminated")

    def _review(self, item: Object) -> web.Response:
        asked = item["spec"].get("resourceAttributes")
        if not asked:
            raise NotEmulated("reviews of anything but resources")
        part = f"/{asked['subresource']}" if asked.get("subresource") else ""
        resource = f"{asked['resource']}{part}"
        allowed = self._cluster.faults.allows(asked.get("group", ""), resource, asked["verb"])
        item["status"] = {"allowed": allowed} | ({} if allowed else {"reason": ""})
        item |= {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
        return web.json_response(item, status=201)

    def _evict(self, target: Target, body: Object) -> web.Response:
        if body.get("kind") != "Eviction" or body.get("apiVersion") != "policy/v1":
            raise ApiRefusal(400, "the body is no policy/v1 Eviction")
        self._store.get("pods", target.namespace, target.name)
        with self._store.edit("pods", target.namespace, target.name) as pod:
            set_condition(
                pod,
                "DisruptionTarget",
                reason="EvictionByEvictionAPI",
                message="Eviction API: evicting",
            )
        grace = (body.get("deleteOptions") or {}).get("gracePeriodSeconds")
        delete_pod(self._store, self._store.get("pods", target.namespace, target.name), grace)
        return web.json_response(success(code=201), status=201)

    def _delete(self, target: Target, options: Object) -> web.Response:
        resource, plural = target.resource, target.resource.plural
        item = self._store.get(plural, target.namespace, target.name)
        wanted = (options.get("preconditions") or {}).get("uid", item["metadata"]["uid"])
        if wanted != item["metadata"]["uid"]:
            uid = item["metadata"]["uid"]
            why = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
            raise conflict(resource, target.name, why)
        policy = options.get("propagationPolicy")
        if policy not in (None, "Background", "Foreground", "Orphan"):
            raise ApiRefusal(422, f'DeleteOptions.meta.k8s.io "" is invalid: {policy}')
        if plural == "pods":
            grace = options.get("gracePeriodSeconds")
            deleted = delete_pod(self._store, item, None if grace is None else int(grace))
            return web.json_response(deleted)
        headers = {}
        if plural == "jobs":
            if policy is None:
                policy, headers = "Orphan", {"Warning": ORPHAN_WARNING}
            deleted = delete_job(self._store, item, policy)
            if policy == "Foreground":
                return web.json_response(deleted)
        else:
            deleted = self._store.delete(plural, target.namespace, target.name)
            if plural == "namespaces":
                return web.json_response(deleted)
        details = details_of(resource, target.name, uid=item["metadata"]["uid"])
        return web.json_response(success(details=details), headers=headers)

    # -- logs ------------------------------------------------------------------------------

    async def _log(
        self, request: web.Request, target: Target, query: dict[str, str]
    ) -> web.StreamResponse:
        pod = self._store.get("pods", target.namespace, target.name)
        name = pod["spec"]["containers"][0]["name"]
        if query.get("container", name) != name:
            said = f"container {query['container']} is not valid for pod {target.name}"
            raise ApiRefusal(400, said)
        if query.get("previous") == "true":
            said = f'previous terminated container "{name}" in pod "{target.name}" not found'
            raise ApiRefusal(400, said)
        if not pod["spec"].get("nodeName"):
            return web.Response(text="")
        log = self._cluster.kubelets.log_of(pod["metadata"]["uid"])
        if log is None:
            statuses = pod["status"].get("containerStatuses") or [{"state": {}}]
            reason = statuses[0]["state"].get("waiting", {}).get("reason", "ContainerCreating")
            said = f'container "{name}" in pod "{target.name}" is waiting to start: {reason}'
            raise ApiRefusal(400, said)
        return await answer_log(request, query, log)


async def _read_json(request: web.Request, *, empty: bool = False) -> Object:
    data = await request.read()
    if not data and empty:
        return {}
    try:
        found: Object = json.loads(data)
    except ValueError as error:
        raise ApiRefusal(400, f"the body is no JSON: {error}") from None
    return found


def kinds() -> list[str]:
    """Return the names of all resources that are known here."""
    return sorted(RESOURCES)
