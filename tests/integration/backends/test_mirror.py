"""A mirrored work directory, over a real server: whole or absent, once, and through every break."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from muster import storage
from muster.backends.remote import login_node
from muster.backends.remote.mirror import MirroredFiles
from muster.backends.remote.mirror_arrivals import Arrivals
from muster.backends.remote.mirror_paths import WorkPaths
from muster.backends.remote.ssh import SshCommands
from muster.backends.remote.transport import NotAllCame
from muster.backends.slurm.clients import SLURM_CLIENTS, SLURM_FOLDER
from muster.errors import ConfigError, InvalidInput, MissingInput, SoftwareError, Transient
from muster.jobs.running.runner import Running, run_elements
from muster.model.attempt import Result
from muster.model.fence import read_batch_file, write_fences
from muster.model.logs import log_of
from muster.model.wave import Wave
from tests.batches import add_steps_to_path, make_batch
from tests.integration.backends.sshd import Sshd, sshd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from muster.model.batch import Batch

pytestmark = pytest.mark.slow

__all__ = ["sshd"]

HOSTILE = ["a b", "$(id)", "'", '"', "\\", "new\nline", "é", "-n", "*", "trailing "]


@dataclass
class Sides:
    """A work directory on this side, and one on the cluster."""

    server: Sshd
    here: Path
    there: Path

    def on(self, scenario: Callable[[MirroredFiles], Awaitable[object]], **settings: int):
        async def play() -> object:
            ssh = SshCommands(
                self.server.cluster(work=str(self.there)), SLURM_CLIENTS, back_off_s=0.1
            )
            try:
                return await scenario(
                    MirroredFiles(
                        ssh, str(self.here), str(self.there), folder=SLURM_FOLDER, **settings
                    )
                )
            finally:
                await ssh.close()

        return asyncio.run(play())

    def send(self, *paths: Path) -> None:
        self.on(lambda mirror: mirror.send([str(path) for path in paths]))

    def collect(self, *folders: str, **settings: int) -> None:
        paths = [str(self.here / folder) for folder in folders]
        self.on(lambda mirror: mirror.collect(paths), **settings)

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file on the cluster as a job does: under another name, renamed."""
        path = self.there / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        temporary = path.with_name(f".{path.name}.job.part")
        temporary.write_bytes(data)
        temporary.rename(path)
        return path


@pytest.fixture
def sides(sshd: Sshd, tmp_path: Path) -> Sides:
    (tmp_path / "here").mkdir()
    return Sides(sshd, tmp_path / "here", tmp_path / "there" / "work")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files_below(folder: Path) -> dict[str, int]:
    """Map each file below to its inode."""
    return {
        str(path.relative_to(folder)): path.stat().st_ino
        for path in folder.rglob("*")
        if path.is_file()
    }


def submitted(folder: Path, count: int = 1, **settings: object) -> Batch:
    settings = {"layout": None, **settings}  # as the files that tests write here are called
    batch = make_batch(folder, [{"text": f"t{n}"} for n in range(count)], **settings)
    write_fences(Wave(batch, "key", dict.fromkeys(range(count), 1), batch.resources))
    return batch


# --- there and to


@pytest.mark.parametrize("layout", [None, 2])
def test_batch_runs_over_there_and_its_result_is_read_here(
    sides: Sides, monkeypatch: pytest.MonkeyPatch, layout: int | None
):
    add_steps_to_path(monkeypatch)
    batch = submitted(sides.here, 3, layout=layout)
    sides.send(Path(batch.work_uri))
    moved = str(sides.there) + batch.uri.removeprefix(str(sides.here))
    there = read_batch_file(moved)
    assert there.work_uri == str(sides.there / "work/b")
    assert there.elements[0].outputs == {"out": str(sides.there / "products/b-0.txt")}
    assert run_elements(moved, None, Running("key")) == 0
    sides.collect("work/b")
    for index in range(3):
        said = Result.model_validate_json(storage.read_bytes(batch.result_uri(index, 1)))
        (artifact,) = said.artifacts
        assert artifact.uri == batch.elements[index].outputs["out"]
        assert storage.sha256(artifact.uri) == artifact.sha256
        assert Path(artifact.uri).read_text() == f"t{index}"


def test_folders_arrive_with_contents_and_modes(sides: Sides):
    top = sides.here / "work" / "b"
    (top / "inner" / "empty").mkdir(parents=True)
    (top / "inner").chmod(0o750)
    for number, name in enumerate(HOSTILE):
        (top / "inner" / name).write_text(f"content {number}")
    (top / "script.sh").write_text("#!/bin/sh\n")
    (top / "script.sh").chmod(0o755)
    (top / "environment").write_text("TOKEN=secret\n")
    (top / "environment").chmod(0o600)
    (top / "none").touch()
    (top / ".x.part").write_text("of a writer that was killed")
    sides.send(top)
    there = sides.there / "work" / "b"
    assert {p.name for p in (there / "inner").iterdir()} == {*HOSTILE, "empty"}
    for number, name in enumerate(HOSTILE):
        assert (there / "inner" / name).read_text() == f"content {number}"
    assert mode_of(there / "inner") == 0o750
    assert mode_of(there / "script.sh") == 0o755
    assert mode_of(there / "environment") == 0o600
    assert (there / "none").read_bytes() == b""
    assert not list(there.glob(".*"))


def test_private_file_is_private_at_every_moment(sides: Sides):
    secret = sides.here / "b" / "environment"
    secret.parent.mkdir()
    secret.write_bytes(os.urandom(16 << 20))
    secret.chmod(0o600)
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for path in (sides.there / "b").glob("*"):
                with contextlib.suppress(FileNotFoundError):
                    seen.append(mode_of(path))

    watcher = threading.Thread(target=watch)
    previous = os.umask(0)
    try:
        watcher.start()
        sides.send(secret)
    finally:
        os.umask(previous)
        done.set()
        watcher.join()
    assert set(seen) == {0o600}
    assert len(seen) > 3


def test_what_is_there_is_not_sent_again(sides: Sides):
    batch = submitted(sides.here, 2)
    sides.send(Path(batch.work_uri))
    before = files_below(sides.there)
    for path in sides.here.rglob("*"):
        os.utime(path)
    sides.send(Path(batch.work_uri))
    assert files_below(sides.there) == before
    fence = Path(batch.fence_uri(1))
    content = fence.read_text()
    times = fence.stat()
    fence.write_text(content.replace('"attempt":1', '"attempt":2'))
    os.utime(fence, ns=(times.st_atime_ns, times.st_mtime_ns))
    sides.send(Path(batch.work_uri))
    after = files_below(sides.there)
    assert {name for name in after if after[name] != before[name]} == {"work/b/fence/1"}
    assert '"attempt":2' in (sides.there / "work/b/fence/1").read_text()


def test_only_what_is_in_the_work_directory_is_sent(sides: Sides, tmp_path: Path):
    (tmp_path / "other").write_text("x")
    with pytest.raises(InvalidInput, match="work directory"):
        sides.send(tmp_path / "other")
    with pytest.raises(MissingInput):
        sides.send(sides.here / "absent")


def test_cut_while_sending_leaves_nothing_half_written(sides: Sides):
    big = sides.here / "b" / "big"
    big.parent.mkdir()
    big.write_bytes(os.urandom(32 << 20))
    started = threading.Event()

    def cut() -> None:
        while not list(sides.there.glob("b/.muster-*.part")):
            time.sleep(0.002)
        started.set()
        sides.server.cut()

    cutter = threading.Thread(target=cut, daemon=True)
    cutter.start()
    with pytest.raises(Transient):
        sides.send(big)
    assert started.is_set()
    assert not (sides.there / "b" / "big").exists()
    sides.send(big)
    assert (sides.there / "b" / "big").read_bytes() == big.read_bytes()


def test_what_broken_connections_left_is_swept_in_the_end(sides: Sides):
    (sides.here / "b").mkdir()
    (sides.here / "b" / "x").write_text("x")
    old, new = sides.write("b/.muster-1.part", "old"), sides.write("b/.muster-2.part", "new")
    os.utime(old, (0, 0))
    sides.send(sides.here / "b")
    assert not old.exists()
    assert new.exists()


# --- and back


def test_new_and_grown_files_come_back(sides: Sides):
    submitted(sides.here)
    sides.write("work/b/progress/0/1.json", '{"fraction": 0.1}')
    sides.write("work/b/logs/0/1.log", "first\n")
    sides.write("work/b/slurm/a b_1.out", "slurm's\n")
    sides.write("work/b/slurm/key/started.3", "17\n")
    sides.write("work/b/unasked/x.json", "{}")
    sides.collect("work/b")
    here = sides.here / "work" / "b"
    assert (here / "progress/0/1.json").read_text() == '{"fraction": 0.1}'
    assert (here / "logs/0/1.log").read_text() == "first\n"
    assert (here / "slurm/a b_1.out").read_text() == "slurm's\n"
    assert (here / "slurm/key/started.3").read_text() == "17\n", "that a task has begun is news"
    assert not (here / "unasked").exists()
    inode = (here / "logs/0/1.log").stat().st_ino
    with (sides.there / "work/b/logs/0/1.log").open("a") as log:
        log.write("second\n")
    sides.write("work/b/progress/0/1.json", '{"fraction": 0.9}')
    sides.collect("work/b")
    assert (here / "logs/0/1.log").read_text() == "first\nsecond\n"
    assert (here / "logs/0/1.log").stat().st_ino == inode
    assert (here / "progress/0/1.json").read_text() == '{"fraction": 0.9}'


def test_what_is_known_does_not_come_again_even_after_a_restart(sides: Sides):
    batch = submitted(sides.here)
    result = {"artifacts": [], "facts": {"path": str(sides.there / "x")}}
    sides.write("work/b/results/0/1.json", json.dumps(result))
    sides.write("work/b/logs/0/1.log", "x" * 100_000)
    sides.write("work/b/progress/0/1.json", "{}")
    sides.collect("work/b")
    before = files_below(sides.here)
    said = json.loads(Path(batch.result_uri(0, 1)).read_text())
    assert said["facts"]["path"] == str(sides.here / "x")
    sides.collect("work/b")
    assert files_below(sides.here) == before


def test_folder_that_is_not_there_yet_is_no_error(sides: Sides):
    sides.collect("work/b", "work/c")
    assert not list(sides.here.rglob("*"))


def test_plan_comes_back_with_the_paths_of_this_side(sides: Sides):
    plan = sides.here / "runs" / "r" / "plan.json"
    batch = make_batch(sides.here, [{}], layout=None)
    element = batch.elements[0].model_copy(update={"outputs": {"plan": str(plan)}})
    batch = batch.model_copy(update={"elements": (element,)})
    write_fences(Wave(batch, "key", {0: 1}, batch.resources))
    told = {"model": "/models/m.txt", "out": str(sides.there / "bands/b.tif")}
    written = sides.write("runs/r/plan.json", json.dumps(told))
    artifact = {
        "name": "plan",
        "uri": str(written),
        "sha256": hashlib.sha256(written.read_bytes()).hexdigest(),
        "bytes": written.stat().st_size,
        "media_type": "application/json",
    }
    result = {"submission": "key", "index": 0, "attempt": 1, "outcome": "succeeded"}
    result |= {"started_at": "2026-01-01T00:00:00Z", "seconds": 1, "host": "n1", "pid": 1}
    sides.write("work/b/results/0/1.json", json.dumps({**result, "artifacts": [artifact]}))
    sides.collect("work/b")
    assert json.loads(plan.read_text()) == {
        "model": "/models/m.txt",
        "out": str(sides.here / "bands/b.tif"),
    }
    said = Result.model_validate_json(Path(batch.result_uri(0, 1)).read_bytes())
    assert said.artifacts[0].uri == str(plan)
    assert said.artifacts[0].sha256 == hashlib.sha256(plan.read_bytes()).hexdigest()
    assert said.artifacts[0].bytes == plan.stat().st_size
    before = files_below(sides.here)
    sides.collect("work/b")
    assert files_below(sides.here) == before


def test_result_that_is_no_json_comes_as_it_is(sides: Sides):
    sides.write("work/b/results/0/1.json", b"\xff no json")
    sides.collect("work/b")
    assert (sides.here / "work/b/results/0/1.json").read_bytes() == b"\xff no json"


def test_log_grows_without_gap_or_double_while_it_is_written(sides: Sides):
    log = sides.write("work/b/logs/0/1.log", "")
    done = threading.Event()

    def write() -> None:
        with log.open("ab") as file:
            for number in range(200_000):
                file.write(b"line %d\n" % number)
        done.set()

    async def scenario(mirror: MirroredFiles) -> None:
        writer = threading.Thread(target=write)
        writer.start()
        while not done.is_set():
            await mirror.collect([str(sides.here / "work/b")])
            here = sides.here / "work/b/logs/0/1.log"
            known = here.read_bytes()
            assert log.read_bytes().startswith(known)
        writer.join()
        await mirror.collect([str(sides.here / "work/b")])

    sides.on(scenario)
    assert (sides.here / "work/b/logs/0/1.log").read_bytes() == log.read_bytes()


@pytest.mark.parametrize("again", ["short", "another that is longer than the first one was"])
def test_log_that_begins_anew_is_brought_anew(sides: Sides, again: str):
    sides.write("work/b/logs/0/1.log", "the first one that was\n")
    sides.collect("work/b")
    sides.write("work/b/logs/0/1.log", again)
    sides.collect("work/b")
    assert (sides.here / "work/b/logs/0/1.log").read_text() == again


def test_one_look_is_bounded_and_results_wait_for_their_logs(sides: Sides):
    for index in range(6):
        sides.write(f"work/b/logs/{index}/1.log", os.urandom(40_000))
        sides.write(f"work/b/results/{index}/1.json", f'{{"index": {index}}}')
    here = sides.here / "work" / "b"
    looks = 0
    while True:
        looks += 1
        with contextlib.suppress(Transient):
            sides.collect("work/b", limit_bytes=60_000)
            break
        size = sum(path.stat().st_size for path in here.rglob("*.log"))
        assert size <= looks * 4 * 61_000
        for result in here.glob("results/*/*.json"):
            log = Path("logs", result.parent.name, "1.log")
            assert (here / log).read_bytes() == (sides.there / "work/b" / log).read_bytes()
    assert looks > 1
    assert len(list(here.glob("results/*/1.json"))) == 6


def result_in(index: int, log: str, end: int) -> str:
    said = {"submission": "key", "index": index, "attempt": 1, "outcome": "succeeded"}
    said |= {"started_at": "2026-01-01T00:00:00Z", "seconds": 1, "host": "n1", "pid": 1}
    return json.dumps({**said, "log": {"name": log, "begin": end - 40_000, "end": end}})


@pytest.mark.parametrize("log", ["logs/0.1.log", "slurm/key/0.out"])
def test_results_wait_for_the_log_that_they_share(sides: Sides, log: str):
    batch = submitted(sides.here, 3, layout=2)
    written = sides.write(f"work/b/{log}", os.urandom(120_000))
    for index in range(3):
        sides.write(f"work/b/results/{index}.1.json", result_in(index, log, (index + 1) * 40_000))
    here = sides.here / "work" / "b"
    with pytest.raises(Transient):
        sides.collect("work/b", limit_bytes=20_000)
    assert not list(here.glob("results/*"))
    for _ in range(3):
        with contextlib.suppress(Transient):
            sides.collect("work/b", limit_bytes=60_000)
    content = written.read_bytes()
    for index in range(3):
        part = log_of(batch, index, 1).read()
        assert part == content[index * 40_000 : (index + 1) * 40_000]


@pytest.mark.parametrize("log", ["../secret", "/etc/passwd", "results/0.1.json", "logs/../x", 7])
def test_a_result_names_no_log_elsewhere(sides: Sides, log: object):
    path = sides.write("work/b/results/0.1.json", json.dumps({"log": {"name": log}}))
    assert login_node.find_log(str(path)) is None
    sides.collect("work/b")
    assert (sides.here / "work/b/results/0.1.json").exists()


def test_one_batch_that_waits_does_not_keep_another_from_its_results(sides: Sides):
    for index in range(6):
        sides.write(f"work/a/logs/{index}/1.log", os.urandom(100_000))
        sides.write(f"work/a/results/{index}/1.json", "{}")
    sides.write("work/a/slurm/key/started.0", "7\n")
    sides.write("work/b/results/0/1.json", "{}")
    with pytest.raises(NotAllCame) as caught:
        sides.collect("work/a", "work/b", limit_bytes=20_000)
    assert caught.value.folders == {str(sides.here / "work/a")}
    assert (sides.here / "work/b/results/0/1.json").exists()
    assert (sides.here / "work/a/slurm/key/started.0").read_text() == "7\n"
    assert not (sides.here / "work/a/results").exists()


def test_what_cannot_be_read_keeps_no_other_batch_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In this process: whoever runs the tests may be allowed to read everything."""
    for name in ("a", "b"):
        (tmp_path / name / "results" / "0").mkdir(parents=True)
        (tmp_path / name / "results" / "0" / "1.json").write_text(name)
    scan = os.scandir

    def refuse(path: str):
        if path == str(tmp_path / "a" / "results" / "0"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(path)

    monkeypatch.setattr(login_node.os, "scandir", refuse)
    folders = [{"path": str(tmp_path / n), "known": {}, "outputs": []} for n in ("a", "b")]
    out = io.BytesIO()
    login_node.Collector(
        {"limit": 1000, "share": 250, "scheduler": SLURM_FOLDER, "folders": folders}, out
    ).run()
    header, end = out.getvalue().splitlines()
    assert json.loads(header)["p"] == "results/0/1.json"
    assert header.startswith(b'{"f": 1')
    said = json.loads(end[1:])
    assert end[:1] == b"b"
    assert said["waiting"] == [0]
    assert said["problems"] == ["results/0: Permission denied"]


def test_notes_of_what_has_begun_come_at_once_and_once(sides: Sides):
    sides.write("work/b/slurm/key/started.0", "7\n")
    sides.write("work/b/logs/0/1.log", os.urandom(300_000))
    sides.collect("work/b", limit_bytes=1_000)
    assert (sides.here / "work/b/slurm/key/started.0").read_text() == "7\n"
    before = files_below(sides.here / "work/b/slurm")
    sides.collect("work/b")
    assert files_below(sides.here / "work/b/slurm") == before


def test_log_of_what_runs_does_not_keep_results_waiting(sides: Sides):
    sides.write("work/b/logs/0/1.log", os.urandom(300_000))
    sides.write("work/b/logs/1/1.log", "short")
    sides.write("work/b/results/1/1.json", "{}")
    sides.collect("work/b", limit_bytes=20_000)
    assert (sides.here / "work/b/results/1/1.json").exists()
    assert (sides.here / "work/b/logs/0/1.log").stat().st_size < 100_000


def test_large_output_goes_on_where_it_broke_off(sides: Sides):
    batch = submitted(sides.here)
    content = os.urandom(1_000_000)
    sides.write("products/b-0.txt", content)
    sides.write("work/b/results/0/1.json", "{}")
    with pytest.raises(Transient):
        sides.collect("work/b", limit_bytes=600_000)
    assert not (sides.here / "products/b-0.txt").exists()
    (part,) = (sides.here / "products").iterdir()
    assert 0 < part.stat().st_size < 1_000_000
    assert not Path(batch.result_uri(0, 1)).exists()
    sides.collect("work/b", limit_bytes=2_000_000)
    assert (sides.here / "products/b-0.txt").read_bytes() == content
    assert [path.name for path in (sides.here / "products").iterdir()] == ["b-0.txt"]
    assert Path(batch.result_uri(0, 1)).exists()


def test_cut_while_collecting_leaves_nothing_half_written(sides: Sides):
    submitted(sides.here, 4)
    for index in range(4):
        sides.write(f"work/b/logs/{index}/1.log", os.urandom(8 << 20))
        sides.write(f"products/b-{index}.txt", os.urandom(2 << 20))
        sides.write(f"work/b/results/{index}/1.json", f'{{"index": {index}}}')
    here = sides.here / "work" / "b"

    def cut() -> None:
        while not list(here.glob("results/0/1.json")):
            time.sleep(0.001)
        sides.server.cut()

    threading.Thread(target=cut, daemon=True).start()
    with pytest.raises(Transient):
        sides.collect("work/b", limit_bytes=256 << 20)
    for result in here.glob("results/*/*.json"):
        index = result.parent.name
        assert json.loads(result.read_text()) == {"index": int(index)}
        for name in (f"work/b/logs/{index}/1.log", f"products/b-{index}.txt"):
            assert (sides.here / name).read_bytes() == (sides.there / name).read_bytes()
    for product in (sides.here / "products").glob("b-*"):
        assert product.stat().st_size == 2 << 20
    assert not (here / "results/3").exists()
    sides.collect("work/b", limit_bytes=256 << 20)
    for name in files_below(sides.there):
        assert (sides.here / name).read_bytes() == (sides.there / name).read_bytes()


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.thorough)])
def test_many_results_come_quickly_and_at_once(sides: Sides, count: int):
    for index in range(count):
        for name in (f"results/{index}/1.json", f"progress/{index}/1.json"):
            sides.write(f"work/b/{name}", f'{{"index": {index}}}')
        sides.write(f"work/b/logs/{index}/1.log", f"log of {index}\n")

    async def scenario(mirror: MirroredFiles) -> tuple[float, float]:
        started = time.monotonic()
        await mirror.collect([str(sides.here / "work/b")])
        middle = time.monotonic()
        await mirror.collect([str(sides.here / "work/b")])
        return middle - started, time.monotonic() - middle

    first_s, second_s = sides.on(scenario)
    assert len(list(sides.here.glob("work/b/results/*/1.json"))) == count
    assert sides.server.count_logins() == 1
    assert sides.server.count_sessions() == 2  # one command a look
    assert first_s < 60
    assert second_s < first_s


def test_names_are_taken_literally_and_links_are_not_followed(sides: Sides, tmp_path: Path):
    for name in HOSTILE:
        sides.write(f"work/b/slurm/{name}.out", name)
    (tmp_path / "secret").write_text("secret")
    (sides.there / "work/b/slurm/link.out").symlink_to(tmp_path / "secret")
    os.mkfifo(sides.there / "work/b/slurm/pipe.out")
    sides.collect("work/b")
    found = {path.name: path.read_text() for path in (sides.here / "work/b/slurm").iterdir()}
    assert found == {f"{name}.out": name for name in HOSTILE}


@pytest.mark.parametrize(
    "name", ["../x", "results/../../x", "/etc/x", "fence/0", "logs//x", "logs"]
)
def test_login_node_cannot_write_elsewhere(tmp_path: Path, name: str):
    (tmp_path / "b").mkdir()
    arrivals = Arrivals(WorkPaths(str(tmp_path), "/there"), [str(tmp_path / "b")], SLURM_FOLDER)
    arrivals.describe()
    header = {"f": 0, "p": name, "s": 1, "m": 0, "at": 0, "n": 1, "k": 0}
    with pytest.raises(SoftwareError, match="nobody asked for"):
        arrivals.take(header, b"x")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_noise_of_the_login_shell_reaches_no_file(sides: Sides):
    noise = f"echo '{{\"end\": true}}'; echo noise >&2; touch {sides.server.home}/noisy\n"
    (sides.server.home / ".bashrc").write_text(noise)
    sides.write("work/b/results/0/1.json", "{}")
    sides.collect("work/b")
    if not (sides.server.home / "noisy").exists():
        pytest.skip("the account's shell reads no .bashrc when sshd starts it")
    assert (sides.here / "work/b/results/0/1.json").read_text() == "{}"


def test_login_node_without_python_is_a_wrong_configuration(sides: Sides, tmp_path: Path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "env", "sed"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    sides.server.stop()
    sides.server.start(f"ForceCommand PATH={programs} exec /bin/sh")
    with pytest.raises(ConfigError, match="no Python on the login node"):
        sides.collect("work/b")
