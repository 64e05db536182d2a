"""A person at a machine: inputs, an installation of their own, and `muster` as they call it.

``Desk.muster`` starts the command as a process; ``Desk.invoke`` runs the same entry point in this
process, for questions and refusals.  No command may print a traceback; every call checks that.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import rasterio
import yaml

from tests.command_line import invoke

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

PATIENCE_S = 240.0
POLL_S = 0.02
BANDS = ("predict", "cov", "aoa")
INFER = ("traits", "infer", "--params", "params.yaml")


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def run_id(self) -> str:
        """The run that an inference names in its closing report."""
        found = re.search(r"^run (\S+)$", self.stdout, re.MULTILINE)
        return found[1] if found else str(self.json()["run"])

    def json(self) -> Any:
        """What was printed, as one JSON document."""
        return json.loads(self.stdout)

    @property
    def complaints(self) -> list[str]:
        """What stderr says of things that are not as they should be, line by line."""
        return [
            line
            for line in self.stderr.splitlines()
            if not re.match(r"\S+Z INFO ", line) and line.strip()
        ]


def assert_says_once(ran: Ran, *parts: str) -> None:
    """Expect one complaint that has all the parts, and the first of them nowhere else."""
    found = [line for line in ran.complaints if parts[0] in line]
    assert len(found) == 1, f"{parts[0]!r} is not said once in:\n{ran.stderr}"
    absent = [part for part in parts if part not in found[0]]
    assert not absent, f"{absent} not in {found[0]!r}"


@dataclass
class Desk:
    """A person's folder and installation.

    Attributes
    ----------
    folder : Path
        Where the person is; ``maps`` in it takes the products.
    store_url : str
        Their store, migrated.
    region : Path
        Holds stack.tif, plots.csv, and trained bundles in models/.
    """

    folder: Path
    store_url: str
    region: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scratch.mkdir(parents=True)
        self.environment = {
            **{name: value for name, value in os.environ.items() if "MUSTER" not in name},
            "MUSTER_HOME": str(self.home),
            "MUSTER_STORE_URL": self.store_url,
            "TMPDIR": str(self.scratch),
        }

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def maps(self) -> Path:
        return self.folder / "maps"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def bands(self) -> Path:
        return self.home / "work" / "bands"

    def write_params(self, traits: Sequence[str], **changes: Any) -> Path:
        """Write params.yaml over the region's predictors and models."""
        params: dict[str, Any] = {
            "traits": {"names": list(traits)},
            "predictors": str(self.region / "stack.tif"),
            "models": str(self.region / "models"),
            "output": "maps",
        } | changes
        path = self.folder / "params.yaml"
        path.write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
        return path

    def start(
        self,
        *arguments: str,
        before: Sequence[str] = (),
        preexec: Callable[[], None] | None = None,
        **environment: str,
    ) -> Running:
        """Start a command, perhaps by another one, and do not wait for it."""
        log = self.folder / f"stderr-{time.monotonic_ns()}.txt"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*before, sys.executable, "-m", "muster", *arguments],
                cwd=self.folder,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                preexec_fn=preexec,
            )
        return Running(process, log)

    def muster(self, *arguments: str, **options: Any) -> Ran:
        """Run a command to its end."""
        return self.start(*arguments, **options).wait()

    def infer(self, *arguments: str, **options: Any) -> Ran:
        """Run an inference by params.yaml to its end."""
        return self.muster(*INFER, *arguments, **options)

    def start_infer(self, *arguments: str, **options: Any) -> Running:
        """Start an inference by params.yaml."""
        return self.start(*INFER, *arguments, **options)

    def invoke(self, *arguments: str, **environment: str) -> Ran:
        """Run a command to its end in this process."""
        ran = Ran(*invoke(arguments, self.folder, self.environment | environment))
        assert "Traceback" not in ran.stdout + ran.stderr, ran.stderr
        return ran

    def invoke_infer(self, *arguments: str, **environment: str) -> Ran:
        """Run an inference by params.yaml in this process; its steps run in their own."""
        return self.invoke(*INFER, *arguments, **environment)

    def status(self, run: str) -> dict[str, Any]:
        """What the store says of a run."""
        ran = self.invoke("status", run, "--json")
        assert ran.code == 0, ran.stderr
        found: dict[str, Any] = ran.json()
        return found

    def states(self, run: str) -> dict[str, dict[str, str]]:
        """Group → step without its "traits." → state, the inspection's group being "inputs"."""
        states: dict[str, dict[str, str]] = {}
        for element in self.status(run)["elements"]:
            step = element["step"].removeprefix("traits.")
            states.setdefault(element["group"], {})[step] = element["state"]
        return states

    def first_run(self) -> str:
        """Id of the run that was opened first."""
        ran = self.invoke("status", "--json")
        return str(ran.json()[-1]["id"])

    def newest_run(self) -> str:
        """Id of the run that was opened last."""
        ran = self.invoke("status", "--json")
        return str(ran.json()[0]["id"])

    def report(self, run: str) -> Path:
        """Where the store says that a run's report is."""
        return Path(self.status(run)["run"]["facts"]["report"])

    def stage(self, trait: str, task: str, interval: str = "static") -> Path:
        """The one band raster of a trait and task."""
        folder = self.bands / "default" / interval / trait
        (path,) = [p for p in folder.iterdir() if p.name.startswith(f"{task}-")]
        return path

    def stages(self) -> dict[str, int]:
        """Every band raster that is there, with its mtime in ns."""
        return {
            f"{path.parent.name}/{path.name.partition('-')[0]}": path.stat().st_mtime_ns
            for path in self.bands.rglob("*.tif")
        }

    def products(self) -> list[str]:
        """Everything in the output folder, hidden names too, but for the reports."""
        return sorted(
            str(path.relative_to(self.maps))
            for path in self.maps.rglob("*")
            if path.is_file() and path.parent.name != "reports"
        )

    def parts(self) -> list[Path]:
        """Everything half-written, wherever it lies."""
        return sorted([*self.folder.rglob("*.part"), *self.folder.rglob(".*.part")])

    def borrow_bands(self, other: Desk, *traits: str) -> None:
        """Take another installation's band rasters over."""
        for trait in traits:
            part = Path("default") / "static" / trait
            shutil.copytree(other.bands / part, self.bands / part)

    def processes(self) -> list[psutil.Process]:
        """Every process of this installation, by its environment."""
        return [p for p in psutil.process_iter() if _environment_of(p) == str(self.home)]

    def runners(self) -> list[psutil.Process]:
        """The processes in which steps compute."""
        names = {"muster.jobs.running.child", "muster.jobs.running.serve"}
        return [p for p in self.processes() if names & set(_command_of(p))]

    def assert_nothing_half_written(self) -> None:
        """Expect no temporary file anywhere, and every raster whole."""
        assert not self.parts()
        for path in [*self.bands.rglob("*.tif"), *self.maps.rglob("*.tif")]:
            read_bands(path)

    def assert_quiet(self) -> None:
        """Expect that no process of this installation is left, within seconds."""
        deadline = time.monotonic() + 10
        while self.processes() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        assert not self.processes()


@dataclass(frozen=True)
class Running:
    """A command on its way."""

    process: subprocess.Popen[bytes]
    log: Path

    def stderr(self) -> str:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until it has said something so often."""
        deadline = time.monotonic() + PATIENCE_S
        while self.stderr().count(text) < times:
            assert self.process.poll() is None, f"ended before {text!r}: {self.stderr()}"
            assert time.monotonic() < deadline, f"never said {text!r}: {self.stderr()}"
            time.sleep(POLL_S)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to this one process."""
        self.process.send_signal(number)

    def wait(self, patience_s: float = PATIENCE_S) -> Ran:
        """Wait for its end."""
        try:
            stdout, _ = self.process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise AssertionError(f"still running: {self.stderr()}") from None
        ran = Ran(self.process.returncode, stdout.decode(), self.stderr())
        assert "Traceback" not in ran.stdout + ran.stderr, ran.stderr
        return ran


def read_bands(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read a raster to its last pixel: band description → masked (row, col), unpacked."""
    with rasterio.open(path) as dataset:
        values = dataset.read(masked=True)
        return {
            name: values[i] * dataset.scales[i] + dataset.offsets[i]
            for i, name in enumerate(dataset.descriptions)
        }


def say_states(build: str, **others: str) -> dict[str, str]:
    """The states of a trait's four steps: ``build``, and one for all others or each by its name."""
    rest = others.pop("bands", build)
    return {**dict.fromkeys(BANDS, rest), **others, "build": build}


def _environment_of(process: psutil.Process) -> str | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        environment: Mapping[str, str] = process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    return environment.get("MUSTER_HOME")


def _command_of(process: psutil.Process) -> Iterator[str] | list[str]:
    try:
        command: list[str] = process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []
    return command


def files_of(*traits: str, folder: str = "") -> list[str]:
    """Everything that a folder of products holds when these traits are mapped."""
    names = [f"{trait}.{suffix}" for trait in traits for suffix in ("json", "png", "tif")]
    return sorted(f"{folder}{name}" for name in [*names, "collection.json"])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
