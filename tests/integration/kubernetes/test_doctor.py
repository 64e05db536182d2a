"""``muster doctor`` on a cluster: what is good, what is bad, and that nothing is left."""

from __future__ import annotations

import json
import tomllib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from muster.cli import main
from muster.store.database import URL_VARIABLE

if TYPE_CHECKING:
    from muster.store.database import Database
    from tests.kubernetes_under_test import KubernetesUnderTest

REPOSITORY = Path(__file__).resolve().parents[3]
POOL = 'backend = "kubernetes", slots = 2'
thorough = pytest.mark.thorough


class Office:
    """A person with a site file, at a cluster."""

    def __init__(
        self,
        kubernetes: KubernetesUnderTest,
        db: Database,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.kubernetes = kubernetes
        self.db = db
        self.work = folder / "work"
        self.work.mkdir()
        self.site = folder / "mine.toml"
        self.claim = f"work-{uuid.uuid4().hex[:8]}"
        kubernetes.make_claim(self.claim, self.work)
        self._capsys = capsys

    def write(self, pools: dict[str, str], placement: str = "", cluster: str = "") -> None:
        """Write a site file: name of a pool → what it says."""
        lines = [f"{name} = {{ {POOL}{words and ', '}{words} }}" for name, words in pools.items()]
        volume = f'{{ claim = "{self.claim}", path = "{self.work}" }}'
        self.site.write_text(
            f'work = "{self.work}"\n[pools]\n' + "\n".join(lines) + "\n[kubernetes.mini]\n"
            f'kubeconfig = "{self.kubernetes.kubeconfig}"\nresult_grace = "00:00:02"\n'
            f'namespace = "{self.kubernetes.namespace}"\nrequests_per_s = 200\n{cluster}\n'
            f'[kubernetes.mini.defaults]\nimage = "{self.kubernetes.image}"\n'
            f'volumes = [{volume}]\ntermination_grace = "00:00:05"\n[placement]\n{placement}'
        )
        tomllib.loads(self.site.read_text())

    def doctor(self, *options: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
        """Run the command; its exit code, and its checks by name."""
        code = main(["doctor", str(self.site), "--json", *options])
        found: dict[str, list[dict[str, Any]]] = {}
        for check in json.loads(self._capsys.readouterr().out)["checks"]:
            found.setdefault(check["name"], []).append(check)
            assert "\n" not in check["finding"]
        return code, found

    def text(self) -> tuple[int, list[str]]:
        code = main(["doctor", str(self.site)])
        return code, self._capsys.readouterr().out.splitlines()

    def probes(self) -> list[str]:
        """List the doctor's jobs and pods that are there, however they are."""
        found = [*self.kubernetes.list("jobs"), *self.kubernetes.list("pods")]
        return [
            one["metadata"]["name"]
            for one in found
            if "doctor-" in str(one["metadata"].get("annotations"))
        ]


@pytest.fixture
def office(
    kubernetes: KubernetesUnderTest,
    db: Database,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Office:
    monkeypatch.setenv(URL_VARIABLE, db.url)
    return Office(kubernetes, db, tmp_path, capsys)


def bad_of(checks: list[dict[str, Any]]) -> list[str]:
    return [check["finding"] for check in checks if not check["good"]]


def warned(checks: list[dict[str, Any]]) -> list[str]:
    return [check["finding"] for check in checks if check["warning"]]


def test_a_good_site(office: Office) -> None:
    store = f"store-{uuid.uuid4().hex[:8]}"
    office.kubernetes.make_secret(store, url=office.db.url)
    gpu = (
        'node_selector = { gpu = "a100" }, environment = { NVIDIA_VISIBLE_DEVICES = "GPU-1" }, '
        'tolerations = [{ key = "nvidia.com/gpu", operator = "Exists" }], max_memory = "200GiB"'
    )
    office.write(
        {"cpu": f'store = {{ secret = "{store}", key = "url" }}', "gpu": gpu},
        '"traits.cov" = { pool = "cpu", cpus = 8, memory = "4GiB", time = "02:00:00" }\n'
        '"traits.aoa" = { pool = "gpu", cpus = 9, memory = "4GiB", gpus = 2 }\n',
    )
    code, lines = office.text()
    expected = (
        "ok   store: at version",
        "ok   work directory: ",
        "ok   cluster mini: Kubernetes v1.",
        "ok   cluster mini: the clocks of this machine and the API server agree",
        "ok   cluster mini: muster may do in namespace",
        "ok   cluster mini: one watch for all batches, 200 requests a second at most",
        f"ok   pool cpu: PersistentVolumeClaim {office.claim}, Secret {store} are there",
        "ok   pool cpu: 2 of 3 nodes take its pods: 8 CPUs, 16384 MiB",
        "ok   pool cpu: Kubernetes would take Jobs of traits.cov (8 CPUs, 4096 MiB, 02:00:00)",
        "ok   pool cpu: a pod on cpu-",
        "ok   pool cpu: the store is reached from there, at version",
        f"ok   pool gpu: PersistentVolumeClaim {office.claim} is there",
        "ok   pool gpu: 1 of 3 nodes take its pods: 8 CPUs, 16384 MiB, 2 nvidia.com/gpu",
        "warn pool gpu: max_memory is 204800 MiB, a node has 16384 MiB for pods",
        "ok   pool gpu: Kubernetes would take Jobs of traits.aoa (9 CPUs, 2 GPUs, 4096 MiB)",
        "warn pool gpu: traits.aoa would wait for ever, unless a larger node is added on demand; "
        "got: asks for 9 CPUs, 2 GPUs, 4096 MiB; gpu-1 has 8 CPUs",
        "ok   pool gpu: a pod on gpu-1",
        "warn pool gpu: the job was given a GPU (NVIDIA_VISIBLE_DEVICES=GPU-1), and nvidia-smi",
    )
    assert code == 0, lines
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == [*expected]
    assert office.probes() == []
    assert [*(office.work / "doctor").iterdir()] == []
