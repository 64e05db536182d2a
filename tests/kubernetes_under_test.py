"""What tests do to a cluster, behind the backend's back and whichever cluster it is."""

from __future__ import annotations

import base64
import contextlib
import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Object = dict[str, Any]

PATIENCE_S = 60.0


@dataclass
class KubernetesUnderTest:
    """A namespace of a cluster, and what tests do to it behind the backend's back.

    Attributes
    ----------
    kubeconfig : Path
        File that names the cluster, a user of it and the namespace.
    image : str
        Image that the pods of tests run.
    real : bool
        Whether it is a cluster, and not the stand-in.
    """

    kubeconfig: Path
    namespace: str
    image: str
    real: bool = False

    # -- calls of the tests' own -----------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Call the API and return its code and its answer, as JSON where it is that."""
        raise NotImplementedError

    def path(self, plural: str, name: str = "", sub: str = "") -> str:
        """Return the path of a resource of the namespace."""
        group = "apis/batch/v1" if plural == "jobs" else "api/v1"
        words = [group, "namespaces", self.namespace, plural, name, sub]
        return "/" + "/".join(filter(None, words))

    def do(self, method: str, path: str, body: Any = None) -> Any:
        """Call the API, and fail where it refuses."""
        code, answer = self.call(method, path, body)
        assert code < 300, f"{method} {path}: {code} {answer}"
        return answer

    @contextlib.contextmanager
    def own_namespace(self) -> Iterator[Self]:
        """Give the same cluster with an empty namespace, which is removed afterwards."""
        name = f"{self.namespace}-{uuid.uuid4().hex[:6]}"
        self.do("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        yield replace(self, namespace=name)
        self.do("DELETE", f"/api/v1/namespaces/{name}")

    def create(self, plural: str, body: Object) -> Object:
        made: Object = self.do("POST", self.path(plural), body)
        return made

    def find(self, plural: str, name: str) -> Object | None:
        code, answer = self.call("GET", self.path(plural, name))
        return answer if code == 200 else None

    def list(self, plural: str, query: str = "") -> list[Object]:
        found: list[Object] = self.do("GET", f"{self.path(plural)}{query}")["items"]
        return found

    def pods_of(self, job: str) -> list[Object]:
        """Return the pods of a Job in the order of their indexes, the older first."""
        pods = self.list("pods", f"?labelSelector=batch.kubernetes.io/job-name={job}")
        label = "batch.kubernetes.io/job-completion-index"
        return sorted(
            pods,
            key=lambda pod: (
                int(pod["metadata"]["labels"][label]),
                pod["metadata"]["creationTimestamp"],
            ),
        )

    def events_of(self, name: str) -> list[Object]:
        return self.list("events", f"?fieldSelector=involvedObject.name={name}")

    def delete(self, plural: str, name: str, **options: Any) -> None:
        body = {"propagationPolicy": "Background", **options}
        self.do("DELETE", self.path(plural, name), body)

    def suspend(self, job: str, *, suspended: bool) -> None:
        self.do("PATCH", self.path("jobs", job), {"spec": {"suspend": suspended}})

    def evict(self, pod: str) -> None:
        """Evict a pod by the API of evictions, as a drain does."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        self.do("POST", self.path("pods", pod, "eviction"), body)

    def make_secret(self, name: str, **values: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self.create("secrets", {"metadata": {"name": name}, "data": data})

    def make_config_map(self, name: str, **values: str) -> None:
        self.create("configmaps", {"metadata": {"name": name}, "data": values})

    def set_quota(self, name: str, **hard: str) -> None:
        """Limit the namespace; a name's dot is written as two underscores (count__jobs)."""
        limits = {key.replace("__", "."): value for key, value in hard.items()}
        self.create("resourcequotas", {"metadata": {"name": name}, "spec": {"hard": limits}})

    def make_claim(self, name: str, folder: Path) -> None:
        """Make a claim of a volume that is a folder of this machine."""
        volume = f"{self.namespace}-{name}"
        common = {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
        }
        self.do(
            "POST",
            "/api/v1/persistentvolumes",
            {
                "metadata": {"name": volume},
                "spec": {
                    **common,
                    "capacity": {"storage": "1Gi"},
                    "hostPath": {"path": str(folder)},
                },
            },
        )
        self.create(
            "persistentvolumeclaims",
            {
                "metadata": {"name": name},
                "spec": {
                    **common,
                    "volumeName": volume,
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            },
        )

    def until(self, reached: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
        """Return the first answer that is something; fail when none comes."""
        deadline = time.monotonic() + patience_s
        while not (found := reached()):
            assert time.monotonic() < deadline, "it never came to be"
            time.sleep(0.02)
        return found

    def run_job(self, command: list[str], completions: int = 1, **words: Any) -> str:
        """Create a Job as :func:`make_job` makes it, of the tests' image; return its name."""
        name = words.pop("name", f"job-{uuid.uuid4().hex[:8]}")
        words["container"] = {"image": self.image, **words.get("container", {})}
        self.create("jobs", make_job(name, command, completions, **words))
        return name

    def pod_of(self, job: str, reached: Callable[[Object], Any] | None = None) -> Object:
        """Return the pod of a Job's first index, when it is as asked for."""

        def look() -> Object | None:
            pods = self.pods_of(job)
            return pods[-1] if pods and (reached is None or reached(pods[-1])) else None

        found: Object = self.until(look)
        return found

    def running_pod(self, job: str) -> str:
        """Return the name of a Job's first pod when it runs."""
        pod = self.pod_of(job, lambda pod: pod["status"]["phase"] == "Running")
        name: str = pod["metadata"]["name"]
        return name

    def job_ended(self, name: str) -> Object:
        """Return a Job when it has ended."""

        def ended() -> Object | None:
            job = self.find("jobs", name)
            conditions = (job or {}).get("status", {}).get("conditions") or []
            words = {one["type"] for one in conditions if one["status"] == "True"}
            return job if words & {"Complete", "Failed"} else None

        found: Object = self.until(ended)
        return found

    # -- what is looked at -----------------------------------------------------------------

    def count_processes(self, key: str) -> int:
        """Count what really runs under a submission key."""
        running = 0
        for pod in self.list("pods", "?fieldSelector=status.phase=Running"):
            annotations = pod["metadata"].get("annotations") or {}
            running += annotations.get("muster.dev/submission") == key
        return running

    def calls(self) -> list[Object]:
        """Return the calls of others than the tests: verb, group, resource, subresource, status."""
        self._only_standin("tell what was called")
        return []

    def take_refused(self) -> list[Object]:
        """Return the calls that nothing here knows, and forget them."""
        return []

    # -- faults that only the stand-in has ---------------------------------------------------

    def _only_standin(self, what: str) -> None:
        pytest.skip(f"a real cluster cannot {what} when a test asks it to")

    def control(self, action: str, **words: Any) -> Any:
        self._only_standin(action.replace("_", " "))

    def go_away(self, seconds: float | None = None) -> None:
        """Refuse connections for a time, or until :meth:`come_back`."""
        self.control("go_away", seconds=seconds)

    def come_back(self) -> None:
        self.control("back")

    def break_watches(self) -> int:
        """Cut every watch's connection; how many there were."""
        found: int = self.control("break_watches")
        return found

    def mute_watches(self, *, muted: bool = True) -> None:
        """Let watches go on and say nothing."""
        self.control("mute", muted=muted)

    def expire_history(self) -> None:
        """Forget the history: a watch or a page that begins before now is answered by 410."""
        self.control("compact")

    def hold_answers(
        self,
        verb: str = "create",
        resource: str = "jobs",
        *,
        times: int = 1,
        seconds: float | None = None,
    ) -> None:
        """Do the next such calls, but keep their answers: for a time, or until released."""
        self.control("hold", verb=verb, resource=resource, times=times, seconds=seconds, cut=False)

    def cut_answers(self, verb: str = "create", resource: str = "jobs", *, times: int = 1) -> None:
        """Do the next such calls, and cut the connection in place of an answer."""
        self.control("hold", verb=verb, resource=resource, times=times, seconds=None, cut=True)

    def release_answers(self) -> int:
        """Send the answers that are held; how many of those asked for have not come yet."""
        found: int = self.control("release")
        return found

    def throttle(self, times: int, retry_after_s: int = 1) -> None:
        """Answer so many calls by 429 with Retry-After."""
        said = "the server has received too many requests and has asked us to try again later"
        headers = {"Retry-After": str(retry_after_s)}
        self.control("refuse", times=times, code=429, message=said, headers=headers)

    def fail_calls(self, times: int, code: int = 500) -> None:
        """Answer so many calls by a fault of the server."""
        said = "Internal error occurred: etcdserver: request timed out"
        self.control("refuse", times=times, code=code, message=said, headers={})

    def rotate_token(self, *, write: bool = True) -> None:
        """Let only a new token be valid, and write it into the kubeconfig where asked to."""
        self._only_standin("change the token")

    def set_rights(self, rights: list[tuple[str, str, str]] | None) -> None:
        """Allow only these verbs: (group, resource or resource/subresource, verb)."""
        self.control("set_rights", rights=rights)

    def deny(
        self,
        resource: str,
        message: str,
        *,
        code: int = 403,
        reason: str = "Forbidden",
        webhook: str = "policy.example.org",
    ) -> None:
        """Let an admission webhook refuse what is created."""
        words = {"message": message, "code": code, "reason": reason, "webhook": webhook}
        self.control("deny", resource=resource, **words)

    def forget_events(self) -> None:
        self.control("forget_events")

    def preempt(self, pod: str) -> None:
        self.control("preempt", namespace=self.namespace, name=pod)

    def evict_for_memory(self, pod: str) -> None:
        """End a pod as the kubelet of a node that is short of memory."""
        self.control("evict_for_memory", namespace=self.namespace, name=pod)

    def lose_node(
        self, node: str, *, taint_after_s: float = 0.5, gone_after_s: float | None = 1.0
    ) -> None:
        """Let a node vanish with all that runs; its pods are deleted after so many seconds, and
        taken away with the node after so many more (None: never).
        """
        words = {"taint_after_s": taint_after_s, "gone_after_s": gone_after_s}
        self.control("lose_node", name=node, **words)

    def restore_node(self, node: str) -> None:
        self.control("restore_node", name=node)

    def shut_down_node(self, node: str) -> None:
        self.control("shut_down", name=node)

    def drain_node(self, node: str) -> None:
        self.control("drain", name=node)

    def cordon_node(self, node: str, *, cordoned: bool = True) -> None:
        self.control("cordon", name=node, cordoned=cordoned)

    def add_node(self, name: str, amounts: dict[str, str], **words: Any) -> None:
        self.control("add_node", name=name, amounts=amounts, **words)

    def mend(self) -> None:
        """End all faults."""


def make_job(name: str, command: list[str], completions: int = 1, **words: Any) -> Object:
    """Return an Indexed Job of the kind that Muster makes, of one small container.

    ``pod`` and ``job`` add to the pod's and the Job's spec, ``container`` to the container.
    """
    container = {
        "name": "main",
        "image": "registry.example.org/muster/compute:test",
        "command": command,
        **words.get("container", {}),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": words.get("labels", {"suite": "muster"})},
        "spec": {
            "completionMode": "Indexed",
            "completions": completions,
            "parallelism": words.get("parallelism", completions),
            "backoffLimitPerIndex": 0,
            "podReplacementPolicy": "Failed",
            **words.get("job", {}),
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 1,
                    "containers": [container],
                    **words.get("pod", {}),
                }
            },
        },
    }
