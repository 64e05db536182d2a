"""The tests' cluster as somebody has it who only has a login node: Slurm's commands over ssh."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.backends.remote.mirror import MirroredFiles
from muster.backends.remote.ssh import SshCommands
from muster.backends.remote.transport import SharedFiles
from muster.backends.slurm.backend import SlurmBackend
from muster.backends.slurm.client import CommandClient
from muster.backends.slurm.clients import SLURM_CLIENTS, SLURM_FOLDER
from muster.model.slurm_target import Cluster, SlurmTarget
from tests.batches import STEPS_FOLDER, store_batch
from tests.integration.slurm.campaign import Campaign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from minislurm.cluster import SlurmCluster
    from muster.model.batch import Batch
    from tests.integration.backends.sshd import Sshd

REPOSITORY = Path(__file__).parents[3]
PYTHONPATH = os.pathsep.join([str(REPOSITORY), str(STEPS_FOLDER)])

# Does what it is asked, and can be held before it does, and before it says that it has.
SBATCH = """\
#!/bin/bash
hold() {{
  if [[ -e {folder}/hold-$1 ]]; then
    mv {folder}/hold-$1 {folder}/held-$1
    while [[ -e {folder}/held-$1 ]]; do sleep 0.05; done
  fi
}}
hold before
answer=$({sbatch} "$@")
code=$?
hold after
echo "$answer"
exit $code
"""


def open_login_node(server: Sshd, slurm: SlurmCluster) -> None:
    """Let whoever logs in find the cluster, and an sbatch that a test can hold."""
    folder = server.folder / "bin"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    real = shutil.which("sbatch", path=slurm.search_path)
    program = folder / "sbatch"
    program.write_text(SBATCH.format(folder=shlex.quote(str(folder)), sbatch=real))
    program.chmod(0o755)
    server.stop()
    server.start(
        f"SetEnv SLURM_CONF={slurm.environment['SLURM_CONF']} PATH={folder}:{slurm.search_path}"
    )


def make_backend(
    db: Any, cluster: Cluster, work_root: Path | None, look_again_s: float = 0.3
) -> SlurmBackend:
    """Open the backend as a fresh process would, with less patience."""
    commands = SshCommands(cluster, SLURM_CLIENTS, back_off_s=0.1, keepalive_s=0.5)
    client = CommandClient(commands, db, cluster.name)
    files = SharedFiles()
    if cluster.work is not None:
        files = MirroredFiles(
            commands, str(work_root), cluster.work, folder=SLURM_FOLDER, python=cluster.python
        )
    backend = SlurmBackend(db, cluster, client, files, commands)
    backend.look_again_s = look_again_s
    return backend


@dataclass
class LoginCampaign(Campaign):
    """A campaign by somebody who only has a login node.

    Attributes
    ----------
    server : Sshd
        The login node.
    work : Path or None
        The work directory on the cluster; None where it is that of this side.
    """

    server: Sshd = None  # type: ignore[assignment]
    work: Path | None = None

    @property
    def cluster(self) -> Cluster:
        """How the cluster is reached."""
        said: dict[str, Any] = {
            "poll_every": "00:00:01",
            "result_grace": "00:00:01",
            "submissions_per_s": 100,
            "environment": {"PYTHONPATH": PYTHONPATH, "LEDGER": str(self.ledger)},
            "work": str(self.work) if self.work else None,
        }
        return self.server.cluster(**{**said, **self.settings})

    @property
    def work_root(self) -> Path:
        """The work directory on this side."""
        return self.folder / "work"

    def backend(self, client: type[CommandClient] = CommandClient) -> SlurmBackend:
        """Open the backend as a fresh process would."""
        return make_backend(self.db, self.cluster, self.work_root)

    def store(self, batch: Batch, place: Mapping[str, Any] | None = None) -> Batch:
        """Put a batch on the cluster and into the store."""
        slurm = SlurmTarget(
            cluster=self.cluster,
            work_root=str(self.work_root) if self.work else None,
            **{"partition": "genoa", **(place or {})},
        )
        placed = batch.model_copy(update={"target": slurm})
        return store_batch(self.db, placed)

    def hold(self, when: str) -> None:
        """Hold the next sbatch: ``before`` or ``after`` the cluster has the job."""
        (self.server.folder / "bin" / f"hold-{when}").touch()

    def is_held(self, when: str) -> bool:
        """Tell whether an sbatch is held."""
        return (self.server.folder / "bin" / f"held-{when}").exists()

    def let_go(self, when: str) -> None:
        """Let the sbatch that is held go on."""
        (self.server.folder / "bin" / f"held-{when}").unlink()
