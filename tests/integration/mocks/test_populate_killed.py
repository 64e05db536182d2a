"""Kill -9 while catalogues are made: the next run finishes, and nothing is made twice or differs.

What is killed is the process that follows the run, the runner of a job, or the step's own process,
at moments drawn from a seed: somewhere between a box's draws and those of the next.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import pytest

from muster.mocks.campaign.config import read_campaign
from muster.mocks.campaign.selection import select
from muster.mocks.plan.catalogue_inputs import plan_one
from muster.mocks.populate import populate_mock
from muster.store.campaign_state import find_whole
from muster.store.campaigns import find_campaign
from muster.store.database import Database
from tests.batches import add_steps_to_path
from tests.conftest import fresh_database
from tests.mock_campaigns import write_campaign
from tests.system.desk import PATIENCE_S, Desk, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.desk import Running

pytest.importorskip("h5py", reason="h5py is not installed: make mocks")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

POLL_S = 0.002
SLOTS = 2
REALIZATIONS, REDSHIFTS = 3, (1.1, 0.5)
BOXES = REALIZATIONS * len(REDSHIFTS)
SUBMIT = ("campaign", "submit", "small-1.yaml", "--here", "--allow-dirty")


@dataclass(frozen=True)
class Killed:
    """A desk at which a campaign is made, with a ledger of who began which box.

    Attributes
    ----------
    desk : Desk
        The person's place.
    file, ledger : Path
        The campaign file, and the folder where each box leaves a line an attempt.
    """

    desk: Desk
    file: Path
    ledger: Path

    @property
    def catalogs(self) -> Path:
        return self.desk.folder / "campaigns" / "1_small" / "catalogs"

    def begun(self) -> Counter[str]:
        """REALIZATION-REDSHIFT INDEX → how often the box was begun."""
        counts = {p.name: len(p.read_text().split()) for p in self.ledger.iterdir()}
        return Counter(counts)

    def files(self) -> dict[str, str]:
        """Name → sha256 of everything below catalogs, hidden files too."""
        return {
            str(p.relative_to(self.catalogs)): sha256(p)
            for p in self.catalogs.rglob("*")
            if p.is_file()
        }

    def recorded(self) -> dict[str, int]:
        """What the record has as made: box, as the ledger names it → mtime of its file in ns."""
        campaign = read_campaign(self.file)
        db = Database(self.desk.store_url)
        try:
            record = find_campaign(db, campaign.folder_uri)
            whole = find_whole(db, record, "mocks.populate", artifact="catalogue")
        finally:
            db.close()
        return {
            f"{realization}-{campaign.redshift_index(redshift)}": (
                self.catalogs / product.uri.partition("/catalogs/")[2]
            )
            .stat()
            .st_mtime_ns
            for (realization, redshift), product in whole.items()
        }

    def wait_until_begun(self, running: Running, count: int) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while len(list(self.ledger.iterdir())) < count:
            assert running.process.poll() is None, running.stderr()
            assert time.monotonic() < deadline_s, running.stderr()
            time.sleep(POLL_S)

    def processes(self, role: str) -> list[psutil.Process]:
        """The runners of jobs that populate, or the processes that the step runs in."""
        found = []
        for process in self.desk.processes():
            try:
                environment, command = process.environ(), process.cmdline()
            except psutil.Error:
                continue
            is_step = environment.get("MUSTER_ROLE") == "step"
            named = "populate" in environment.get("MUSTER_WORK", "") + " ".join(command)
            if named and is_step == (role == "step") and "MUSTER_JOB" in environment:
                found.append(process)
        return found


@pytest.fixture
def killed(
    tmp_path: Path, store_url: str, migrated_template: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Killed]:
    add_steps_to_path(monkeypatch)
    with fresh_database(store_url, migrated_template) as url:
        desk = Desk(tmp_path / "at", url, tmp_path)
        ledger = desk.folder / "ledger"
        ledger.mkdir()
        desk.environment["LEDGER"] = str(ledger)
        file = write_campaign(
            desk.folder,
            realizations=REALIZATIONS,
            redshifts=REDSHIFTS,
            model="faulty",
            parameters={"ledger": "$LEDGER"},
            retry_backoff="none",
        )
        yield Killed(desk, file, ledger)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name → sha256 of all catalogues, made one by one in this process, without a run."""
    with pytest.MonkeyPatch.context() as patch:
        add_steps_to_path(patch)
        folder = tmp_path_factory.mktemp("undisturbed")
        patch.setenv("LEDGER", str(folder))
        campaign = read_campaign(
            write_campaign(
                folder,
                realizations=REALIZATIONS,
                redshifts=REDSHIFTS,
                model="faulty",
                parameters={"ledger": "$LEDGER"},
            )
        )
        made = {}
        for coordinate in select(campaign):
            path = folder / "box.hdf5"
            populate_mock(**plan_one(campaign, coordinate), catalogue=path)
            name = f"{coordinate.folder}/mock_z{coordinate.redshift:.3f}.hdf5"
            made[name] = sha256(path)
            path.unlink()
    return made


def finish(killed: Killed, undisturbed: dict[str, str]) -> None:
    """Run it again, and expect every catalogue once, whole and as it would have been."""
    before, begun = killed.recorded(), killed.begun()
    ran = killed.desk.start(*SUBMIT).wait()
    assert ran.code == 0, ran.stderr
    after = killed.recorded()
    assert len(after) == BOXES
    assert {box: after[box] for box in before} == before, "made once is made"
    again = killed.begun() - begun
    assert set(again).isdisjoint(before), "computed again although it was there"
    assert set(again.values()) <= {1}
    assert killed.files() == undisturbed
    counts = killed.desk.invoke("campaign", "status", "Small", "--json").json()["counts"]
    assert {s: n for s, n in counts.items() if n} == {"completed": BOXES}
    killed.desk.assert_quiet()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("seed", "reconciled"),
    [
        pytest.param(seed, reconciled, id=f"{seed}-{'reconciled' if reconciled else 'at-once'}")
        for seed in range(1, 3)
        for reconciled in (True, False)
    ],
)
def test_the_process_that_follows_is_killed(
    killed: Killed, undisturbed: dict[str, str], seed: int, *, reconciled: bool
) -> None:
    """What had ended but was not recorded is recorded by ``reconcile``, or by the next submit.

    Either way only what ran then is made again, and no run of the campaign stays open.
    """
    draw = random.Random(seed)
    running = killed.desk.start(*SUBMIT)
    begun_first = draw.randint(SLOTS + 1, BOXES - 1)  # so that one has ended at least
    killed.wait_until_begun(running, begun_first)
    time.sleep(draw.uniform(0, 0.5))
    running.kill(signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    killed.desk.assert_quiet()
    whole = {name: digest for name, digest in killed.files().items() if name in undisturbed}
    assert whole.items() <= undisturbed.items(), "what has its name is whole"
    begun = killed.begun()
    assert set(begun.values()) == {1}
    if reconciled:
        ran = killed.desk.invoke("reconcile", "--silent-for", "0")
        assert ran.code == 0, ran.stderr
        # A runner may have ended between its file's publication and its result, one a slot.
        least = max(begun_first - SLOTS, len(whole) - SLOTS)
        assert least <= len(killed.recorded()) <= len(whole)
    finish(killed, undisturbed)
    # What had ended is known, and only what ran then is begun again.
    assert sum(killed.begun().values()) <= BOXES + SLOTS
    ended = killed.desk.invoke("campaign", "status", "Small", "--json").json()["runs"]
    assert [run["state"] for run in ended] == ["succeeded", "cancelled"]


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(1, 3))
@pytest.mark.parametrize("role", ["runner", "step"])
def test_a_process_of_a_job_is_killed(
    killed: Killed, undisturbed: dict[str, str], role: str, seed: int
) -> None:
    draw = random.Random(seed)
    running = killed.desk.start(*SUBMIT)
    killed.wait_until_begun(running, draw.randint(1, 3))
    time.sleep(draw.uniform(0, 0.2))
    deadline_s = time.monotonic() + PATIENCE_S
    hit = False
    while not hit and running.process.poll() is None:
        assert time.monotonic() < deadline_s
        for process in killed.processes(role)[:1]:
            try:
                process.kill()
                hit = True
            except psutil.NoSuchProcess:  # over since it was listed
                continue
    ran = running.wait()
    assert hit, "the run was over before anything could be killed"
    assert ran.code == 0, "it is tried again by the run itself"
    begun = killed.begun()
    assert set(begun) == {f"{r}-{i}" for r in range(REALIZATIONS) for i in range(len(REDSHIFTS))}
    assert sum(begun.values()) <= BOXES + 1, begun
    assert killed.files() == undisturbed
    finish(killed, undisturbed)
    assert killed.begun() == begun, "nothing was left to do"
