"""One more process that supervises a batch, for tests that kill it, stop it, or count its calls."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from minislurm.cluster import SlurmCluster
from muster.backends.slurm.client import CommandClient
from muster.jobs.supervision.supervisor import Supervisor
from muster.model.slurm_target import SlurmTarget
from muster.store import batches, claims
from muster.store.database import Database
from tests.integration.slurm.campaign import QUICK, Campaign


class DiesBefore(CommandClient):
    """Ends its process when it is to submit."""

    async def submit(self, folder: str, script: str) -> int:
        os._exit(9)


class DiesAfter(CommandClient):
    """Ends its process as soon as Slurm has answered."""

    async def submit(self, folder: str, script: str) -> int:
        await super().submit(folder, script)
        os._exit(9)


class NotesSubmissions(CommandClient):
    """Writes down when it submits."""

    async def submit(self, folder: str, script: str) -> int:
        with Path(os.environ["TURNS"]).open("a") as file:
            file.write(f"{time.time()}\n")
        return await super().submit(folder, script)


CLIENTS = {
    "well": CommandClient,
    "dies-before": DiesBefore,
    "dies-after": DiesAfter,
    "notes": NotesSubmissions,
}


async def main(url: str, slurm: str, folder: str, batch_id: str, how: str) -> None:
    db = Database(url)
    campaign = Campaign(db, SlurmCluster(Path(slurm)), Path(folder))
    spec = batches.read_spec(db, batch_id)
    assert isinstance(spec.target, SlurmTarget)
    backend = campaign.backend(CLIENTS[how], spec.target.cluster)
    claim = claims.take_claim(db, batch_id)
    await Supervisor(db, backend, claim, back_off=QUICK).run()
    await backend.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
