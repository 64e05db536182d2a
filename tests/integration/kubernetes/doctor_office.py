"""A person with a site file, at a cluster whose pods see the test's own folder."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from muster.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from muster.store.database import Database
    from tests.kubernetes_under_test import KubernetesUnderTest

POOL = 'backend = "kubernetes", slots = 2'


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
