"""One pod on its node: volumes, image, variables, its process, and how all that ends."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.admission import ENDED
from tests.kubernetes_cluster.conditions import set_condition, write_event
from tests.kubernetes_cluster.containers import Container
from tests.kubernetes_cluster.environment import (
    ConfigProblem,
    MountProblem,
    Mounts,
    expand,
    make_environment,
    make_mounts,
)
from tests.kubernetes_cluster.quantities import parse_quantity
from tests.kubernetes_cluster.storage import now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from tests.kubernetes_cluster.storage import Storage

    Object = dict[str, Any]

_IMAGE = re.compile(
    r"[a-z0-9]+([._:/-][A-Za-z0-9_.-]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]{64})?"
)
LOOK_AGAIN_S = 0.3
PULL_AGAIN_S = 10.0
LEAST_GRACE_S = 2.0
UNKNOWN = "The container could not be located when the pod was terminated"


def size_of(folder: Path) -> int:
    """Return the bytes of a folder's files."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


@dataclass(frozen=True)
class Ending:
    """Why the kubelet ends a pod: its phase and reason then, and the condition that says so."""

    grace_s: float
    reason: str = ""
    message: str = ""
    disrupted: bool = False

    @property
    def fails(self) -> bool:
        return bool(self.reason)


def _why_not(command: list[str], error: Exception) -> str:
    """Say in runc's words why a command cannot be started."""
    name = command[0] if command else ""
    if not isinstance(error, FileNotFoundError):
        return f"error: {error}"
    why = f"stat {name}: no such file or directory"
    return (
        f'exec: "{name}": {why if "/" in name else "executable file not found in $PATH"}: unknown'
    )


class Ended(Exception):
    """The pod is to end, before its container has started."""


class PodWorker:
    """Runs a pod; its task ends when the pod has."""

    def __init__(self, store: Storage, pod: Object, folder: Path, image: Mapping[str, str]) -> None:
        self._store = store
        self._pod = pod
        self._image = image
        self.folder = folder / pod["metadata"]["uid"]
        self.node = pod["spec"]["nodeName"]
        self.container: Container | None = None
        self.ending: Ending | None = None
        self._told_to_end = asyncio.Event()

    @property
    def memory_limit(self) -> str | None:
        limits = self._pod["spec"]["containers"][0].get("resources", {}).get("limits") or {}
        found: str | None = limits.get("memory")
        return found

    def end(self, ending: Ending) -> None:
        """End the pod; a later word counts only where it leaves less time."""
        if self.ending is None or ending.grace_s < self.ending.grace_s:
            kept = self.ending if self.ending is not None and self.ending.fails else ending
            self.ending = Ending(ending.grace_s, kept.reason, kept.message, kept.disrupted)
            self._told_to_end.set()

    async def run(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        deadline = self._pod["spec"].get("activeDeadlineSeconds")
        timer = None
        if deadline is not None:
            said = "Pod was active on the node longer than the specified deadline"
            grace = self._pod["spec"]["terminationGracePeriodSeconds"]
            late = Ending(grace, "DeadlineExceeded", said)
            timer = asyncio.get_running_loop().call_later(deadline, self.end, late)
        try:
            self._wait_word("ContainerCreating")
            mounts = await self._until(self._mount)
            await self._until(self._pull)
            variables = await self._until(self._configure)
            await self._run_container(mounts, variables)
        except Ended:
            self._write_end(137, "ContainerStatusUnknown", UNKNOWN)
        finally:
            if timer is not None:
                timer.cancel()
            if self.container is not None:
                self.container.kill()

    async def _until(self, attempt: Any) -> Any:
        """Try until it is done or the pod is to end."""
        while True:
            if self.ending is not None:
                raise Ended
            done, result = attempt()
            if done:
                return result
            await self._pause(LOOK_AGAIN_S if result is None else result)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._told_to_end.wait(), seconds)

    # -- before the container --------------------------------------------------------------

    def _mount(self) -> tuple[bool, Any]:
        try:
            return True, make_mounts(self._store, self._pod, self.folder)
        except MountProblem as problem:
            self._event("FailedMount", str(problem), warning=True)
            return False, None

    def _pull(self) -> tuple[bool, Any]:
        container = self._pod["spec"]["containers"][0]
        image, policy = container["image"], container["imagePullPolicy"]
        host = image.partition("/")[0]
        if not _IMAGE.fullmatch(image):
            said = f'Failed to apply default image tag "{image}": couldn\'t parse image reference'
            self._wait_word("InvalidImageName", f'{said} "{image}": invalid reference format')
            return False, None
        if not host.endswith(".invalid"):
            return True, None
        if policy == "Never":
            said = f'Container image "{image}" is not present with pull policy of Never'
            self._wait_word("ErrImageNeverPull", said)
            return False, None
        said = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}"'
        said += f": failed to do request: dial tcp: lookup {host}: no such host"
        state = self._state().get("waiting", {})
        if state.get("reason") != "ErrImagePull":
            self._event("Failed", f'Failed to pull image "{image}": {said}', warning=True)
            self._wait_word("ErrImagePull", said)
            return False, LOOK_AGAIN_S
        back_off = f'Back-off pulling image "{image}"'
        self._event("BackOff", back_off)
        self._wait_word("ImagePullBackOff", f"{back_off}: ErrImagePull: {said}")
        return False, PULL_AGAIN_S

    def full_volume(self) -> str:
        """Return the words for a scratch volume that holds more than it may; else none."""
        for volume in self._pod["spec"].get("volumes") or []:
            limit = (volume.get("emptyDir") or {}).get("sizeLimit")
            folder = self.folder / "volumes" / volume["name"]
            if limit is not None and folder.is_dir() and size_of(folder) > parse_quantity(limit):
                name = volume["name"]
                return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
        return ""

    def _check_user(self) -> None:
        spec = self._pod["spec"]
        security = {
            **(spec.get("securityContext") or {}),
            **(spec["containers"][0].get("securityContext") or {}),
        }
        if security.get("runAsNonRoot") and security.get("runAsUser") == 0:
            raise ConfigProblem("container's runAsUser breaks non-root policy")

    def _configure(self) -> tuple[bool, Any]:
        try:
            self._check_user()
            return True, make_environment(self._store, self._current() or self._pod)
        except ConfigProblem as problem:
            self._wait_word("CreateContainerConfigError", str(problem))
            self._event("Failed", f"Error: {problem}", warning=True)
            return False, None

    # -- the container ---------------------------------------------------------------------

    async def _run_container(self, mounts: Mounts, variables: Mapping[str, str]) -> None:
        meta, spec = self._pod["metadata"], self._pod["spec"]["containers"][0]
        words = [*(spec.get("command") or []), *(spec.get("args") or [])]
        command = [mounts.translate(expand(word, dict(variables))) for word in words]
        home = Path(mounts.translate(spec.get("workingDir") or ""))
        environment = {
            **self._image,
            "HOSTNAME": self._pod["spec"].get("hostname", meta["name"]),
            **{name: mounts.translate(value) for name, value in variables.items()},
        }
        folder = home if home.is_absolute() and home.is_dir() else self.folder
        try:
            self.container = Container(meta["uid"], command, environment, folder)
        except (OSError, IndexError, ValueError) as error:
            said = "failed to create containerd task: failed to create shim task: OCI runtime"
            said += f" create failed: unable to start container process: {_why_not(command, error)}"
            self._event("Failed", f"Error: {said}", warning=True)
            self._write_end(128, "StartError", said)
            return
        started = now()
        self._write_running(started)
        self._event("Started", f"Container {spec['name']} started")
        await self._first_of(self.container.exited)
        if not self.container.exited.done():
            await self._stop(self.container)
        code = await self.container.exited
        reason = "Completed" if code == 0 else "Error"
        reason = "OOMKilled" if self.container.out_of_memory else reason
        fallback = spec["terminationMessagePolicy"] == "FallbackToLogsOnError" and code != 0
        message = self.container.log.tail() if fallback else ""
        self._write_end(code, reason, message, started)

    async def _first_of(self, exited: Awaitable[int]) -> None:
        told = asyncio.ensure_future(self._told_to_end.wait())
        try:
            await asyncio.wait([told, asyncio.ensure_future(exited)], return_when="FIRST_COMPLETED")
        finally:
            told.cancel()

    async def _stop(self, container: Container) -> None:
        """End the process: politely, and when its grace has passed for sure."""
        name = self._pod["spec"]["containers"][0]["name"]
        self._event("Killing", f"Stopping container {name}")
        loop = asyncio.get_running_loop()
        container.terminate()
        began = loop.time()
        while not container.exited.done():
            self._told_to_end.clear()
            grace = max(self.ending.grace_s if self.ending else 0.0, LEAST_GRACE_S)
            left = began + grace - loop.time()
            if left <= 0:
                container.kill()
                await container.exited
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._first_of(container.exited), left)

    # -- what is written -------------------------------------------------------------------

    def _current(self) -> Object | None:
        meta = self._pod["metadata"]
        found = self._store.find("pods", meta["namespace"], meta["name"])
        return found if found and found["metadata"]["uid"] == meta["uid"] else None

    def _state(self) -> Object:
        statuses = (self._current() or {"status": {}})["status"].get("containerStatuses") or []
        state: Object = statuses[0]["state"] if statuses else {}
        return state

    @contextlib.contextmanager
    def _edit(self) -> Any:
        meta = self._pod["metadata"]
        if self._current() is None:
            yield {"metadata": meta, "spec": self._pod["spec"], "status": {"phase": "Pending"}}
            return
        with self._store.edit("pods", meta["namespace"], meta["name"]) as pod:
            yield pod

    def _container_status(self, state: Object, *, ready: bool = False) -> list[Object]:
        container = self._pod["spec"]["containers"][0]
        return [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "restartCount": 0,
                "ready": ready,
                "started": ready,
                "state": state,
                "lastState": {},
            }
        ]

    def _wait_word(self, reason: str, message: str = "") -> None:
        with self._edit() as pod:
            status = pod["status"]
            status.setdefault("startTime", now())
            status.update(hostIP="127.0.0.1", hostIPs=[{"ip": "127.0.0.1"}])
            waiting = {"reason": reason} | ({"message": message} if message else {})
            status["containerStatuses"] = self._container_status({"waiting": waiting})
            set_condition(pod, "Initialized")
            self._set_ready(pod, "ContainersNotReady")

    def _write_running(self, started: str) -> None:
        with self._edit() as pod:
            status = pod["status"]
            status["phase"] = "Running"
            status.update(podIP="127.0.0.1", podIPs=[{"ip": "127.0.0.1"}])
            state = {"running": {"startedAt": started}}
            status["containerStatuses"] = self._container_status(state, ready=True)
            set_condition(pod, "PodReadyToStartContainers")
            set_condition(pod, "Ready")
            set_condition(pod, "ContainersReady")

    def _set_ready(self, pod: Object, reason: str) -> None:
        name = self._pod["spec"]["containers"][0]["name"]
        said = f"containers with unready status: [{name}]" if "Not" in reason else ""
        for kind in ("Ready", "ContainersReady"):
            set_condition(pod, kind, value=False, reason=reason, message=said)

    def _write_end(self, code: int, reason: str, message: str = "", started: str = "") -> None:
        ending = self.ending
        with self._edit() as pod:
            status = pod["status"]
            if status["phase"] in ENDED:
                return
            terminated: Object = {"exitCode": code, "reason": reason, "finishedAt": now()}
            terminated["startedAt"] = started or terminated["finishedAt"]
            terminated |= {"message": message} if message else {}
            status["containerStatuses"] = self._container_status({"terminated": terminated})
            failed = code != 0 or (ending is not None and ending.fails)
            status["phase"] = "Failed" if failed else "Succeeded"
            self._set_ready(pod, "PodFailed" if failed else "PodCompleted")
            if ending is not None and ending.fails:
                status["reason"], status["message"] = ending.reason, ending.message
                if ending.disrupted:
                    set_condition(
                        pod,
                        "DisruptionTarget",
                        reason="TerminationByKubelet",
                        message=ending.message,
                    )

    def _event(self, reason: str, message: str, *, warning: bool = False) -> None:
        if self._current() is not None:
            write_event(self._store, self._pod, "kubelet", reason, message, warning=warning)
