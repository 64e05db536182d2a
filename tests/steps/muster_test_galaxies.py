"""A galaxy model that does harm at chosen realizations, as any package may add one."""

from __future__ import annotations

import os
import pickle
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from muster_test_crash import crash

from muster.config import parse_config
from muster.frozen import Frozen
from muster.mocks.errors import ModelError
from muster.mocks.galaxies.boxes import generate_box
from muster.mocks.galaxies.catalog import GalaxyCatalog
from muster.mocks.galaxies.model import Expectation, load_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.mocks.galaxies.stream import RandomStream
    from muster.mocks.halos.catalog import HaloCatalog
    from muster.model.step import StepContext

WAIT_S = 0.02


class Harm(Frozen):
    """Realizations at which it does harm.

    Attributes
    ----------
    massless : tuple of int
        A galaxy has no stellar mass there.
    crash : tuple of int
        The process crashes there.
    once : tuple of int
        The process is killed there at the first attempt.
    harm_while : str
        It does harm only while this file is there; always, where none is named.
    wait_for : str
        Each box waits until this file is there.
    ledger : str
        Folder where each box leaves a file with a line an attempt; variables of the environment in
        it are filled.
    """

    massless: tuple[int, ...] = ()
    crash: tuple[int, ...] = ()
    once: tuple[int, ...] = ()
    harm_while: str = ""
    wait_for: str = ""
    ledger: str = ""

    @property
    def does_harm(self) -> bool:
        """Whether it does harm now."""
        return not self.harm_while or Path(self.harm_while).exists()


class FaultyModel:
    """HOD galaxies, and harm."""

    name = "faulty"
    compiles = False

    def check_installed(self) -> str | None:
        return load_model("hod").check_installed()

    def parse(self, parameters: Mapping[str, Any]) -> Harm:
        return parse_config(Harm, dict(parameters), "parameters of faulty")

    def versions(self) -> dict[str, str]:
        return load_model("hod").versions()

    def generate(
        self, halos: HaloCatalog, params: Harm, stream: RandomStream, *, histories: bool = False
    ) -> GalaxyCatalog:
        realization = stream.realization
        attempt = os.environ.get("MUSTER_ATTEMPT", "0")
        if params.ledger:
            folder = os.path.expandvars(params.ledger)
            name = f"{folder}/{realization}-{stream.redshift_index}"
            with open(name, "a", encoding="utf-8") as ledger:
                ledger.write(f"{attempt}\n")
        while params.wait_for and not Path(params.wait_for).exists():
            time.sleep(WAIT_S)
        if realization in params.crash and params.does_harm:
            crash(signal.SIGABRT)
        if realization in params.once and attempt == "1":
            crash(signal.SIGABRT)
        hod = load_model("hod")
        galaxies = hod.generate(halos, hod.parse({}), stream, histories=histories)
        if realization in params.massless and params.does_harm and len(galaxies):
            mass = np.array(galaxies.properties["logsm_t_obs"])
            mass[0] = np.nan
            return replace(galaxies, properties={**galaxies.properties, "logsm_t_obs": mass})
        return galaxies

    def expect(self, halos: HaloCatalog, params: Harm) -> Expectation | None:
        hod = load_model("hod")
        return hod.expect(halos, hod.parse({}))


FAULTY = FaultyModel()


class Telling:
    """A galaxy a halo, with the process that made it, and a model's harm in slabs but the first."""

    name = "telling"
    compiles = False

    def generate(
        self, halos: HaloCatalog, params: Any, stream: RandomStream, *, histories: bool = False
    ) -> GalaxyCatalog:
        said = os.environ["MUSTER_INDEX"]
        print(f"slab {stream.slab} of element {said}", flush=True)
        if stream.slab == 1 and params == "die":
            os._exit(9)
        if stream.slab == 1 and params == "fail":
            raise ModelError("planted", where=self.name)
        if params == "sleep":
            time.sleep(600)
        made = {
            name: np.full(len(halos), int(n)) for name, n in (("pid", os.getpid()), ("i", said))
        }
        return GalaxyCatalog(halos.positions, made, np.arange(len(halos)), {})


def share_slabs(*, halos: str, act: str, out: Path, context: StepContext) -> dict[str, Any]:
    """Populate a box of pickled haloes by processes, and say which they were."""
    where = {"seed": 1, "realization": 0, "redshift_index": 0, "slabs": 4}
    read = pickle.loads(Path(halos).read_bytes())
    box = generate_box(read, Telling(), act, workers=context.threads, **where)
    pids = np.unique(box.properties["pid"]).tolist()
    if act == "orphan":
        os.kill(pids[0], signal.SIGKILL)
    out.write_text("made")
    rss_mib = psutil.Process().memory_info().rss / 2**20
    return {
        "pid": os.getpid(),
        "rss_mib": rss_mib,
        "pids": pids,
        "indexes": np.unique(box.properties["i"]).tolist(),
    }
