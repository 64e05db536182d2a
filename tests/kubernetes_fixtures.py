"""A Kubernetes for the tests: a stand-in on this machine, or the cluster that KUBECONFIG names.

Each test that asks for one is marked ``kubernetes``.  With KUBECONFIG set, ``-m kubernetes`` runs
them in a namespace of that cluster, which is made and removed again, with the image that
MUSTER_TEST_IMAGE names; what only the stand-in can do is skipped there.  A run without that ``-m``
never touches a cluster that happens to be configured.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.batches import STEPS_FOLDER
from tests.kubernetes_under_test import KubernetesUnderTest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Object = dict[str, Any]
    MakeKubernetes = Callable[..., "KubernetesUnderTest"]

ROOT = Path(__file__).parents[1]
AGENT = "muster-tests"
MARKER = "kubernetes"


@dataclass
class StandInUnderTest(KubernetesUnderTest):
    """The stand-in: a process of its own, which ends with this one."""

    folder: Path = Path()
    url: str = ""
    control_url: str = ""
    token: str = ""
    process: subprocess.Popen[str] | None = None
    _seen: dict[str, int] = field(default_factory=dict)

    @classmethod
    def start(cls, folder: Path, *options: str) -> StandInUnderTest:
        python_path = os.pathsep.join([str(ROOT), str(STEPS_FOLDER)])
        command = [sys.executable, "-P", "-m", "tests.kubernetes_cluster", "--folder", str(folder)]
        command += ["--env", f"PYTHONPATH={python_path}", *options]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, f"the stand-in did not start:\n{(folder / 'log').read_text()}"
        words = json.loads((folder / "standin.json").read_text())
        found = cls(
            kubeconfig=folder / "kubeconfig",
            namespace=f"muster-{uuid.uuid4().hex[:8]}",
            image="registry.example.org/muster/compute:test",
            folder=folder,
            url=url,
            control_url=words["control"],
            token=words["token"],
            process=process,
        )
        found.write_kubeconfig()
        found.do("POST", "/api/v1/namespaces", {"metadata": {"name": found.namespace}})
        return found

    def write_kubeconfig(self) -> None:
        """Write the kubeconfig at once, so that no reader sees half of it."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "standin",
            "clusters": [{"name": "standin", "cluster": {"server": self.url}}],
            "users": [{"name": "muster", "user": {"token": self.token}}],
            "contexts": [
                {
                    "name": "standin",
                    "context": {
                        "cluster": "standin",
                        "user": "muster",
                        "namespace": self.namespace,
                    },
                }
            ],
        }
        new = self.kubeconfig.with_suffix(".new")
        new.write_text(yaml.safe_dump(config))
        new.replace(self.kubeconfig)

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": kind,
            "User-Agent": AGENT,
        }
        return _send(method, f"{self.url}{path}", body, headers)

    @contextlib.contextmanager
    def watch(self, plural: str, **query: str) -> Iterator[Iterator[Object]]:
        """Open a watch of the namespace and give its events as they come."""
        words = "&".join(f"{key}={value}" for key, value in {"watch": "true", **query}.items())
        headers = {"Authorization": f"Bearer {self.token}", "User-Agent": AGENT}
        url = f"{self.url}{self.path(plural)}?{words}"
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as a:
            yield (json.loads(line) for line in a)

    def control(self, action: str, **words: Any) -> Any:
        code, answer = _send("POST", f"{self.control_url}/standin/{action}", words, {})
        assert code == 200, f"{action}: {code} {answer}"
        return answer

    def count_processes(self, key: str) -> int:
        from tests.integration.slurm.campaign import count_jobs

        return count_jobs(key)

    def _lines(self, name: str) -> list[Object]:
        lines = (self.folder / name).read_text().splitlines()
        return [json.loads(line) for line in lines[self._seen.get(name, 0) :]]

    def calls(self) -> list[Object]:
        return [call for call in self._lines("calls") if not call["agent"].startswith(AGENT)]

    def used_rights(self) -> set[tuple[str, str, str]]:
        """Return what others than the tests have done: group, resource/subresource, verb."""
        return {
            (call["group"], f"{call['resource']}/{call['subresource']}".rstrip("/"), call["verb"])
            for call in self.calls()
            if "verb" in call
        }

    def forget_calls(self) -> None:
        self._seen["calls"] = len((self.folder / "calls").read_text().splitlines())

    def take_refused(self) -> list[Object]:
        found = self._lines("refused")
        self._seen["refused"] = self._seen.get("refused", 0) + len(found)
        return found

    def errors(self) -> str:
        """Return what went wrong inside the stand-in."""
        file = self.folder / "errors"
        return file.read_text() if file.exists() else ""

    def rotate_token(self, *, write: bool = True) -> None:
        self.token = uuid.uuid4().hex
        self.control("set_token", token=self.token)
        if write:
            self.write_kubeconfig()

    def mend(self) -> None:
        self.control("clear")
        self.control("back")
        self.write_kubeconfig()

    def stop(self) -> None:
        """End the stand-in, which may have been ended already."""
        process = self.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


def _send(method: str, url: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            text = response.headers.get_content_type() == "text/plain"
            data = response.read()
            return response.status, data.decode(errors="replace") if text else _read(data)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _read(error.read())


def _read(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")


@dataclass
class RealCluster(KubernetesUnderTest):
    """The cluster that KUBECONFIG names; the namespace is the tests' own."""

    client: Any = None

    @classmethod
    def open(cls, kubeconfig: Path) -> RealCluster:
        from kubernetes import config

        found = cls(
            kubeconfig=kubeconfig,
            namespace=f"muster-test-{uuid.uuid4().hex[:8]}",
            image=os.environ.get("MUSTER_TEST_IMAGE", ""),
            real=True,
            client=config.new_client_from_config(str(kubeconfig)),
        )
        if not found.image:
            pytest.skip("KUBECONFIG is set, but MUSTER_TEST_IMAGE names no image to run there")
        found.do("POST", "/api/v1/namespaces", {"metadata": {"name": found.namespace}})
        return found

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        from kubernetes.client import ApiException

        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            answer = self.client.call_api(
                path,
                method,
                header_params={"Content-Type": kind, "Accept": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=30,
            )
        except ApiException as error:
            return error.status, _read((error.body or "").encode())
        text = answer.headers.get("Content-Type", "").startswith("text/plain")
        said = answer.data.decode(errors="replace") if text else _read(answer.data)
        return answer.status, said

    def remove(self) -> None:
        """Remove the namespace, and the volumes that were made for it."""
        for volume in self.do("GET", "/api/v1/persistentvolumes")["items"]:
            name = volume["metadata"]["name"]
            if name.startswith(f"{self.namespace}-"):
                self.call("DELETE", f"/api/v1/persistentvolumes/{name}")
        self.call("DELETE", f"/api/v1/namespaces/{self.namespace}")


def pytest_configure(config: pytest.Config) -> None:
    words = "uses Kubernetes; with KUBECONFIG set, -m kubernetes takes that cluster, not a stand-in"
    config.addinivalue_line("markers", f"{MARKER}: {words}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"kubernetes", "make_kubernetes"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKER)


def real_cluster(config: pytest.Config) -> Path | None:
    """Return the kubeconfig of the cluster that this run was asked to use."""
    named = os.environ.get("KUBECONFIG")
    return Path(named) if named and MARKER in str(config.option.markexpr) else None


@pytest.fixture(scope="session")
def kubernetes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KubernetesUnderTest]:
    """A cluster that the tests of a session share; faults end with the test that made them."""
    named = real_cluster(request.config)
    if named is not None:
        cluster = RealCluster.open(named)
        yield cluster
        cluster.remove()
        return
    pytest.importorskip("kubernetes_validate", reason="the stand-in reads the API's schemas there")
    standin = StandInUnderTest.start(tmp_path_factory.mktemp("kubernetes"))
    yield standin
    standin.stop()


@pytest.fixture
def make_kubernetes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeKubernetes]:
    """Start stand-ins of the test's own, which it may end; arguments are the program's."""
    if real_cluster(request.config):
        pytest.skip("a real cluster cannot be started when a test asks for one")
    pytest.importorskip("kubernetes_validate", reason="the stand-in reads the API's schemas there")
    standins = []

    def make(*options: str) -> StandInUnderTest:
        standin = StandInUnderTest.start(tmp_path_factory.mktemp("kubernetes"), *options)
        standins.append(standin)
        return standin

    yield make
    for standin in standins:
        standin.stop()


@pytest.fixture(autouse=True)
def _kubernetes_is_whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """End the faults of a test, and fail it where it called what the stand-in does not know."""
    asked = "kubernetes" in request.fixturenames
    cluster = request.getfixturevalue("kubernetes") if asked else None
    yield
    if cluster is None:
        return
    cluster.mend()
    refused = cluster.take_refused()
    if refused:
        pytest.fail(f"the stand-in does not know these calls: {refused}", pytrace=False)
    if isinstance(cluster, StandInUnderTest) and cluster.errors():
        pytest.fail(f"the stand-in itself has failed: {cluster.errors()}", pytrace=False)
