"""A galaxy model that does harm at chosen realizations, as any package may add one."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from muster_test_crash import crash

from muster.config import parse_config
from muster.frozen import Frozen
from muster.mocks.galaxies.model import Expectation, load_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.mocks.galaxies.catalog import GalaxyCatalog
    from muster.mocks.galaxies.stream import RandomStream
    from muster.mocks.halos.catalog import HaloCatalog

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
