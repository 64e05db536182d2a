"""Model bundles for a request, trained in a process of their own while the services start.

What was trained, and from what, is written beside the bundles, so that a second run with the same
plots and predictors starts from what is there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from muster import storage
from muster.errors import InvalidInput, SoftwareError
from muster.laptop.home import read_tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from muster.laptop.request import Request

_STAMP_NAME = "trained_from.json"


class Training:
    """The making of a request's inputs: the example where it is asked for, and the bundles.

    Parameters
    ----------
    request : Request
        What is asked for.
    environment : mapping
        Environment of the processes.
    log : Path
        Takes their output.
    tell : callable
        Called with a line for each thing that is done.
    """

    def __init__(
        self,
        request: Request,
        environment: Mapping[str, str],
        log: Path,
        tell: Callable[[str], None],
    ) -> None:
        self._request = request
        self._environment = dict(environment)
        self._log = log
        self._tell = tell
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make the example if need be, and begin to train what is not trained yet."""
        if self._request.example and not (
            self._request.plots.exists() and storage.exists(self._request.predictors[0])
        ):
            self._tell("making the example region")
            folder = str(self._request.plots.parent)
            self._process = self._open(["-m", "muster.laptop.example_region", folder])
            self._wait("the example region was not made")
        if self._read_stamp() == make_stamp(self._request):
            return
        # What is there is no longer what it says; an interrupted training must not pass for done.
        storage.delete(str(self._request.models / _STAMP_NAME))
        self._tell(f"training models of {', '.join(self._request.traits)}")
        self._process = self._open(["-m", "muster", *render_train(self._request)])

    def finish(self) -> None:
        """Wait until all is trained.

        Raises
        ------
        InvalidInput, SoftwareError
            With the trainer's own last line.
        """
        if self._process is None:
            return
        self._wait("training failed")
        stamp = json.dumps(make_stamp(self._request), indent=1)
        storage.write_text(str(self._request.models / _STAMP_NAME), stamp)

    def abandon(self) -> None:
        """End what runs; nothing half-written is left where a bundle should be."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _open(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def _wait(self, what: str) -> None:
        if self._process is None:
            return
        code = self._process.wait()
        self._process = None
        if code != 0:
            said = read_tail(self._log, 1)
            error_class = InvalidInput if code in (65, 66) else SoftwareError
            raise error_class(what, where=self._log, got=said or f"exit code {code}")

    def _read_stamp(self) -> object:
        path = str(self._request.models / _STAMP_NAME)
        try:
            return json.loads(storage.read_text(path)) if storage.exists(path) else None
        except ValueError:
            return None


def render_train(request: Request) -> list[str]:
    """Render the arguments of ``muster`` that train a request's models."""
    arguments = ["traits", "train", "--overwrite", "--output", str(request.models)]
    arguments += ["--plots", str(request.plots)]
    for predictors in request.predictors:
        arguments += ["--predictors", predictors]
    if request.predictors_in_plots:
        arguments.append("--predictors-from-csv")
    for trait in request.traits:
        arguments += ["--traits", trait]
        if trait in request.units:
            arguments += ["--unit", f"{trait}={request.units[trait]}"]
    return arguments


def make_stamp(request: Request) -> dict[str, object]:
    """Say what a request's models are trained from, and what files they are."""
    bundles = {}
    for trait in request.traits:
        folder = str(request.models / trait)
        for name in storage.list(folder):
            bundles[f"{trait}/{name}"] = storage.stat(storage.join(folder, name)).version
    return {
        "bundles": bundles,
        "arguments": render_train(request),
        "plots": storage.sha256(str(request.plots)),
        "predictors": {uri: storage.stat(uri).version for uri in request.predictors},
    }
