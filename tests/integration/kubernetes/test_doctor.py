"""``muster doctor`` on a cluster: what is good, what is bad, and that nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from muster.backends.kubernetes.backend import KubernetesBackend
from muster.backends.kubernetes.names import RIGHTS
from muster.doctor.site import examine_site
from muster.site import read_site
from muster.store.database import URL_VARIABLE
from tests.integration.kubernetes.doctor_office import Office
from tests.s3_server import empty_bucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from muster.model.wave import Wave
    from muster.store.database import Database
    from tests.kubernetes_under_test import KubernetesUnderTest

REPOSITORY = Path(__file__).resolve().parents[3]
thorough = pytest.mark.thorough


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
        "ok   cluster mini: one watch for all batches, 200 calls a second at most",
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


def test_what_an_account_lacks_is_told_with_the_line_of_a_role(office: Office) -> None:
    office.write({"cpu": ""})
    lacking = {("batch", "jobs", "create"), ("batch", "jobs", "delete"), ("", "events", "list")}
    office.kubernetes.set_rights([right for right in RIGHTS if right not in lacking])
    code, checks = office.doctor()
    assert code == 1
    (rights,) = bad_of(checks["cluster mini"])
    assert rights.startswith(
        f"muster may not create, delete jobs; where: namespace {office.kubernetes.namespace}"
    )
    assert '{apiGroups: ["batch"], resources: [jobs], verbs: [create, delete]}' in rights
    (events,) = warned(checks["cluster mini"])
    assert "why a Job has no pods cannot be told" in events
    assert bad_of(checks["pool cpu"]) == ["not tried: see cluster mini"]


def test_the_rights_of_batches_are_enough(office: Office) -> None:
    """What may not be looked at is told, and tried by the pod."""
    office.write({"cpu": ""})
    office.kubernetes.set_rights(list(RIGHTS))
    code, checks = office.doctor()
    assert code == 0, checks
    told = [check["finding"] for check in checks["cluster mini"]]
    assert any(said.startswith("may not list quotas and limit ranges and nodes") for said in told)
    pool = [check["finding"] for check in checks["pool cpu"]]
    assert pool[0].startswith(f"may not look at PersistentVolumeClaim {office.claim}")
    assert pool[1].startswith("a pod on cpu-")


def test_what_pools_name_and_is_not_there(office: Office) -> None:
    """None of them gets as far as a pod."""
    office.kubernetes.make_secret("present", other="x")
    office.write(
        {
            "secret": 'env_from = [{ secret = "absent" }, { secret = "no", optional = true }]',
            "key": 'environment_from = { TOKEN = { secret = "present", key = "token" } }',
            "class": 'priority_class = "urgent", runtime_class = "nvidia"',
        }
    )
    code, checks = office.doctor()
    assert code == 1
    secret, _ = bad_of(checks["pool secret"])
    assert secret.startswith("no Secret absent; where: namespace ")
    key, _ = bad_of(checks["pool key"])
    assert key.startswith("Secret present lacks token; where: namespace ")
    assert "got: other; " in key
    priority, _ = bad_of(checks["pool class"])
    assert priority.startswith("no PriorityClass urgent; where: the cluster; do: make it, or")
    assert not (office.work / "doctor").exists()


def test_limits_of_the_namespace(office: Office) -> None:
    placement = (
        '"traits.predict" = { pool = "{}", cpus = 9, memory = "4GiB" }\n'
        '"traits.cov" = { pool = "{}", memory = "2GiB" }\n'
    )
    with office.kubernetes.own_namespace() as own:
        own.make_claim(office.claim, office.work)
        own.set_quota("small", **{"requests__cpu": "8", "requests__memory": "8Gi"})
        limits = [{"type": "Container", "max": {"memory": "3Gi"}, "default": {"cpu": "2"}}]
        own.create("limitranges", {"metadata": {"name": "tight"}, "spec": {"limits": limits}})
        office.kubernetes = own
        office.write({"cpu": 'max_memory = "6GiB"'}, placement.replace("{}", "cpu"))
        code, checks = office.doctor()
        found = bad_of(checks["pool cpu"])
    assert code == 1
    assert any("traits.predict would be made; where: quota small; got: asks for 9 CPUs" in f
               for f in found)  # fmt: skip
    assert any("limit range tight; got: 9 CPUs (requests.cpu); expected: 2 CPUs (limits.cpu)" in f
               for f in found)  # fmt: skip
    assert any("got: asks for 4096 MiB (limits.memory); expected: at most 3072 MiB" in f
               for f in found)  # fmt: skip
    assert not any("traits.cov" in f for f in found)


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        ('image = "registry.invalid/muster:1"',
         ("ImagePullBackOff", "no such host", "do: correct image")),
        pytest.param('node_selector = { pool = "none" }',
                     ("Unschedulable: 0/3 nodes are available", "do: wait for a node"),
                     marks=thorough),
        pytest.param('python = "/nonexistent/python"',
                     ("the environment does not start", "no such file", "correct python"),
                     marks=thorough),
        pytest.param('python = "/bin/false"',
                     ("the environment does not start", "exit code 1"), marks=thorough),
        pytest.param('python = "/bin/true"',
                     ("the pod ended well, and its result is not seen here",), marks=thorough),
        pytest.param('labels = { "kueue.x-k8s.io/queue-name" = "q" }', (), marks=thorough),
    ],
)  # fmt: skip
def test_pods_that_do_not_start(
    office: Office, pool: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.doctor.kubernetes_probe_job.LASTING_S", 1.0)
    office.write({"odd": pool})
    code, checks = office.doctor("--patience", "3")
    found = bad_of(checks["pool odd"])
    assert code == len(words[:1])
    assert all(word in found[-1] for word in words), found
    assert office.probes() == []


@thorough
@pytest.mark.parametrize(("kind", "words"), [("jobs", "refuses the Job"), ("pods", "FailedCreate")])
def test_a_policy_that_refuses_is_told_in_its_own_words(
    office: Office, kind: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.doctor.kubernetes_probe_job.LASTING_S", 1.0)
    office.write({"cpu": ""})
    office.kubernetes.deny(kind, "no cost centre is said")
    code, checks = office.doctor("--patience", "5")
    assert code == 1
    found = bad_of(checks["pool cpu"])
    assert words in found[0]
    assert "no cost centre is said" in found[0]
    assert office.probes() == []


@thorough
def test_a_work_directory_that_pods_do_not_see(office: Office) -> None:
    """The doctor alone sees a file system that is mounted over the work directory."""
    mount = f"mount -t tmpfs muster-test {office.work}"
    alone = ("unshare", "--mount", "sh", "-c")
    if subprocess.run([*alone, mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount anything")
    office.write({"cpu": ""})
    command = "from muster.cli import main; raise SystemExit(main())"
    ran = subprocess.run(
        [*alone, f'{mount} && exec "$@"', "sh", sys.executable, "-c", command, "doctor",
         str(office.site)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 1, ran.stderr
    last = ran.stdout.splitlines()[-1]
    assert last.startswith(
        f"BAD  pool cpu: the pod cannot use the work directory; where: {office.work}"
    )
    assert "got: muster: " in last
    assert office.probes() == []


@thorough
@pytest.mark.parametrize("secret", ["s3", "wrong"])
def test_a_work_directory_on_s3(office: Office, s3_server: str, secret: str) -> None:
    endpoint = s3_server if secret == "s3" else "http://127.0.0.1:9"
    name = f"{secret}-{uuid.uuid4().hex[:8]}"
    office.kubernetes.make_secret(
        name, AWS_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
    )  # fmt: skip
    office.write({"cpu": f'env_from = [{{ secret = "{name}" }}]'})
    text = office.site.read_text()
    office.site.write_text(text.replace(f'work = "{office.work}"', 'work = "s3://work/muster"'))
    with empty_bucket(s3_server, "work") as bucket:
        code, checks = office.doctor()
        left = [item["Key"] for item in bucket.list_objects_v2(Bucket="work").get("Contents", [])]
    assert [check["finding"] for check in checks["work directory"]] == [
        "s3://work/muster can be written and read"
    ]
    last = checks["pool cpu"][-1]["finding"]
    if secret == "s3":
        assert code == 0, checks
        assert last.endswith("it has read and written s3://work/muster")
        assert left == []
    else:
        assert code == 1
        assert last.startswith("the pod cannot use the work directory; where: s3://work/muster/")
        assert "got: muster: " in last
    assert office.probes() == []


@thorough
def test_pools_in_two_namespaces(office: Office) -> None:
    with office.kubernetes.own_namespace() as own:
        own.make_claim(office.claim, office.work)
        own.set_quota("none", pods="0")
        office.write({"one": "", "two": f'namespace = "{own.namespace}"'})
        code, checks = office.doctor()
    assert code == 1
    first = office.kubernetes.namespace
    assert {name for name in checks if name.startswith("cluster")} == {
        f"cluster mini, namespace {first}", f"cluster mini, namespace {own.namespace}",
    }  # fmt: skip
    assert bad_of(checks["pool one"]) == []
    assert "where: quota none; got: asks for 1 pods" in bad_of(checks["pool two"])[0]


@pytest.mark.parametrize("moment", ["sent", "there"])
def test_a_doctor_that_is_interrupted_leaves_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Neither a Job that is there, nor one that is still on its way to the API server."""
    office.write({"cpu": 'node_selector = { pool = "none" }'})
    submit = KubernetesBackend.submit

    async def interrupt() -> None:
        sent = asyncio.Event()

        async def submit_slowly(backend: KubernetesBackend, wave: Wave) -> str:
            sent.set()
            await asyncio.sleep(0.5)
            return await submit(backend, wave)

        async def examine() -> None:
            async for _ in examine_site(read_site(str(office.site)), office.db):
                pass

        monkeypatch.setattr(KubernetesBackend, "submit", submit_slowly)
        task = asyncio.ensure_future(examine())
        await sent.wait()
        while moment == "there" and not await asyncio.to_thread(office.probes):
            await asyncio.sleep(0.05)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.sleep(1.0)

    asyncio.run(interrupt())
    assert office.probes() == []
    assert [*(office.work / "doctor").iterdir()] == []


@thorough
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_doctor_that_is_told_to_end_leaves_nothing(
    office: Office, number: int, code: int
) -> None:
    office.write({"cpu": 'node_selector = { pool = "none" }'})
    command = "from muster.cli import main; raise SystemExit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", command, "doctor", str(office.site)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    ) as doctor:  # fmt: skip
        office.kubernetes.until(office.probes)
        doctor.send_signal(number)
        assert doctor.stderr is not None
        said = doctor.stderr.read()
        assert doctor.wait(60) == code, said
    assert "Traceback" not in said
    assert office.probes() == []


def absent_cluster(office: Office) -> None:
    text = office.site.read_text().replace('namespace = "', 'namespace = "no-such-')
    office.site.write_text(text)


def no_kubeconfig(office: Office) -> None:
    path = str(office.kubernetes.kubeconfig)
    office.site.write_text(office.site.read_text().replace(path, f"{path}.not"))


def old_token(office: Office) -> None:
    office.kubernetes.rotate_token(write=False)


def away(office: Office) -> None:
    office.kubernetes.go_away()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (absent_cluster, "no such namespace; where: no-such-"),
        (no_kubeconfig, "no kubeconfig; where: cluster mini"),
        (old_token, "the API server does not take these credentials; where: http://"),
        (away, "the API server does not answer; where: cluster mini, GET /version"),
    ],
)
def test_a_cluster_that_cannot_be_used(
    office: Office, fault: Callable[[Office], None], words: str
) -> None:
    office.write({"cpu": "", "more": ""})
    fault(office)
    code, checks = office.doctor()
    assert code == 1
    assert bad_of(checks["cluster mini"])[0].startswith(words)
    assert bad_of(checks["pool cpu"]) == bad_of(checks["pool more"]) == [
        "not tried: see cluster mini"
    ]  # fmt: skip
