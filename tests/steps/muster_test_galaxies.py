"""A galaxy model that does harm at chosen realizations, as any package may add one."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.config import parse_config
from muster.frozen import Frozen
from muster.mocks.galaxies.model import Expectation, load_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.mocks.galaxies.catalog import GalaxyCatalog
    from muster.mocks.galaxies.stream import RandomStream
    from muster.mocks.halos.catalog import HaloCatalog


class Harm(Frozen):
    """Realizations at which it does harm.

    Attributes
    ----------
    stray : tuple of int
        A galaxy is a satellite of no halo there.
    crash : tuple of int
        The process crashes there.
    once : tuple of int
        The process is killed there at the first attempt.
    ledger : str
        Folder where each box leaves a file with a line an attempt.
    """

    stray: tuple[int, ...] = ()
    crash: tuple[int, ...] = ()
    once: tuple[int, ...] = ()
    ledger: str = ""


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
            name = f"{params.ledger}/{realization}-{stream.redshift_index}"
            with open(name, "a", encoding="utf-8") as ledger:
                ledger.write(f"{attempt}\n")
        if realization in params.crash:
            os.kill(os.getpid(), signal.SIGABRT)
        if realization in params.once and attempt == "1":
            os.kill(os.getpid(), signal.SIGABRT)
        hod = load_model("hod")
        galaxies = hod.generate(halos, hod.parse({}), stream, histories=histories)
        if realization in params.stray and len(galaxies):
            upid = np.array(galaxies.properties["upid"])
            upid[0] = 987_654_321
            return replace(galaxies, properties={**galaxies.properties, "upid": upid})
        return galaxies

    def expect(self, halos: HaloCatalog, params: Harm) -> Expectation | None:
        hod = load_model("hod")
        return hod.expect(halos, hod.parse({}))


FAULTY = FaultyModel()
