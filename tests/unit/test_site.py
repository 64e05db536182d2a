"""The site file: strict, and every error says which key, where, and what is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.config import parse_keep_s, parse_size_mib, parse_time_s, render_keep
from muster.errors import ConfigError, MissingInput
from muster.model.resources import Caps, Resources
from muster.model.slurm_target import Cluster, SlurmTarget
from muster.model.step import STEPS
from muster.pools import SlurmPool
from muster.site import SITES_FOLDER, read_site, render_pools

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
[pools]
local = { backend = "local", slots = 3, max_memory = "2GiB", max_time = "1-00:00:00" }
[placement]
"traits.predict" = { pool = "local", cpus = 2, memory = "512MiB", time = "02:00:00" }
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_a_step_gets_what_the_file_says(tmp_path: Path) -> None:
    site = read_site(write(tmp_path, GOOD))
    placement, pool = site.placed("traits.predict")
    assert placement.resources == Resources(cpus=2, memory_mib=512, time_limit_s=7200)
    assert pool.caps == Caps(memory_mib=2048, time_limit_s=86400)
    assert render_pools(site)["local"]["slots"] == 3
    assert render_pools(site)["local"]["include_deferred"] is True


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("slots = 3", "slotz = 3, slots = 3", "unknown key; where: {path}; got: pools.local.slotz; "
         "expected: backend, launcher, max_memory, max_time, ntasks, slots"),
        ("slots = 3", "slots = 0", "at least one slot"),
        ('backend = "local"', 'backend = "slarm"', "pools.local.backend: unknown; where: {path}; "
         "got: 'slarm'; expected: local, slurm"),
        ('backend = "local"', 'backend = "local", qos = "a"', "got: pools.local.qos; "
         "expected: backend, launcher, max_memory, max_time, ntasks, slots"),
        ("[pools]\nlocal", "[pools]\nx = 3\nlocal", "pools.x"),
        ('backend = "local", ', "", "expected: pools.local.backend"),
        ('pool = "local"', 'pool = "lokal"', "pool 'lokal'; there are ['local']"),
        ('"traits.predict"', '"traits.predikt"', "unknown step 'traits.predikt'"),
        ('memory = "512MiB"', 'memory = "512"', "'512MiB', '190GiB'"),
        ('memory = "512MiB"', 'memory = "3GiB"', "asks for 3072 memory in MiB"),
        ('time = "02:00:00"', 'time = "2h"', "[days-]hours:minutes:seconds"),
        ("[pools]", "[retention]\nruns = 30\n[pools]", "'02:00:00', '30d'; or 'never', to keep"),
        ("[pools]", '[retention]\nbands = "0d"\n[pools]', "at least one second"),
        ("[pools]", '[retention]\nband = "1d"\n[pools]', "got: retention.band; expected: bands"),
        ("[pools]", "[pools", "not a TOML file"),
        ("[pools]", '[job_types]\ncpu = { pool = "gpu" }\n[pools]',
         "job type 'cpu' is placed on pool 'gpu'; there are ['local']"),
        ("[pools]", '[job_types]\ncpu = { pool = "local", memory = "3GiB" }\n[pools]',
         "job type 'cpu' asks for 3072 memory in MiB, its pool gives 2048 at most"),
        ("[pools]", '[job_types]\ncpu = { pool = "local", deadline = "01:00:00" }\n[pools]',
         "got: job_types.cpu.deadline; expected: cpus, gpus, memory, pool, time"),
        ("[pools]", "[job_types]\n'a b' = { pool = 'local' }\n[pools]",
         "job type name 'a b' may hold letters"),
        ("[pools]", "[extra]\na = 1\n[pools]",
         "got: extra; expected: clusters, job_types, kubernetes, name"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_site(path)
    message = str(caught.value)
    assert says.format(path=path) in message
    assert path in message
    assert "\n" not in message


SLURM = """
work = "/scratch/work"
[pools]
slurm = { backend = "slurm", slots = 8, partition = "genoa", gres = "gpu:l40s", pack = 3, python = "py3" }
[pools.login]
backend = "slurm"
slots = 2
cluster = "near"
prelude = []
container = ["apptainer", "exec", "/images/muster.sif"]
environment = { "A" = "pool" }
options = { "nice" = 5, "overcommit" = true, "image" = "docker:a/b:1" }
[clusters.near]
poll_every = "00:01:00"
prelude = ["module load python"]
environment = { "A" = "cluster", "B" = "cluster" }
python = "python3.12"
[placement]
"traits.predict" = { pool = "slurm", cpus = 2 }
"""  # noqa: E501


def test_a_pool_says_where_its_batches_run_in_slurms_words(tmp_path: Path) -> None:
    site = read_site(write(tmp_path, SLURM))
    pool = site.pools["slurm"]
    assert isinstance(pool, SlurmPool)
    place = pool.target(site)
    assert place == SlurmTarget(
        partition="genoa",
        gres="gpu:l40s",
        pack=3,
        cluster=Cluster(
            name="near",
            poll_every="00:01:00",
            prelude=["module load python"],
            environment={"A": "cluster", "B": "cluster"},
            python="py3",
        ),
    )
    assert SlurmTarget.model_validate_json(place.model_dump_json()) == place


def test_what_a_pool_says_of_its_jobs_takes_the_clusters_place(tmp_path: Path) -> None:
    site = read_site(write(tmp_path, SLURM))
    pool = site.pools["login"]
    assert isinstance(pool, SlurmPool)
    place = pool.target(site)
    assert place.options == {"nice": 5, "overcommit": True, "image": "docker:a/b:1"}
    assert place.cluster.prelude == ()
    assert place.cluster.container == ("apptainer", "exec", "/images/muster.sif")
    assert place.cluster.environment == {"A": "pool"}
    assert place.cluster.python == "python3.12"
    assert place.cluster.name == "near"


def test_slurm_as_it_is_found_here_needs_no_cluster_in_the_file(tmp_path: Path) -> None:
    text = SLURM.replace("[clusters.near]", "[clusters.other]").replace('cluster = "near"\n', "")
    site = read_site(write(tmp_path, text))
    pool = site.pools["slurm"]
    assert isinstance(pool, SlurmPool)
    assert pool.target(site).cluster.name == "other"
    bare = GOOD.replace('backend = "local"', 'backend = "slurm"')
    site = read_site(write(tmp_path, bare))
    pool = site.pools["local"]
    assert isinstance(pool, SlurmPool)
    assert pool.target(site) == SlurmTarget(cluster=Cluster(name="slurm"))


@pytest.mark.parametrize(
    ("words", "launcher"),
    [
        ("ntasks = 4", ("srun",)),
        ('ntasks = 4, launcher = ["srun", "-n", "{ntasks}"]', ("srun", "-n", "{ntasks}")),
        ("ntasks = 1", None),
        ("nodes = 2", None),
    ],
)
def test_a_pool_of_several_ranks_starts_them_by_a_launcher(
    tmp_path: Path, words: str, launcher: tuple[str, ...] | None
) -> None:
    site = read_site(write(tmp_path, SLURM.replace("pack = 3", words)))
    pool = site.pools["slurm"]
    assert isinstance(pool, SlurmPool)
    place = pool.target(site)
    assert place.launcher == launcher
    assert SlurmTarget.model_validate_json(place.model_dump_json()) == place
    assert ("launcher" in place.model_dump()) == (launcher is not None)


def test_a_pool_of_this_machine_may_have_ranks_too(tmp_path: Path) -> None:
    target = 'backend = "local"'
    site = read_site(write(tmp_path, GOOD.replace(target, f"{target}, ntasks = 2")))
    place = site.pools["local"].target(site)
    assert place.launch_command(8) == ("mpirun", "--bind-to", "none", "-n", "2")
    plain = read_site(write(tmp_path, GOOD)).pools["local"].target(site)
    assert plain.model_dump() == {}, "batches of this machine keep their bytes"


def test_batches_travel_where_the_cluster_has_a_folder_of_its_own(tmp_path: Path) -> None:
    there = '[clusters.near]\ntransport = "ssh"\nhost = "login1"\nwork = "/there"'
    site = read_site(write(tmp_path, SLURM.replace("[clusters.near]", there)))
    pool = site.pools["slurm"]
    assert isinstance(pool, SlurmPool)
    assert pool.target(site).work_root == "/scratch/work"
    assert pool.target(site).cluster.work == "/there"


SLURM_KEYS = (
    "account, backend, cluster, constraint, container, environment, exclusive, gres, launcher, "
    "max_memory, max_time, nodes, ntasks, options, pack, partition, prelude, python, qos, "
    "reservation, slots"
)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('partition = "genoa"', 'partion = "genoa"',
         f"unknown key; where: {{path}}; got: pools.slurm.partion; expected: {SLURM_KEYS}"),
        ("slots = 2", "slots = 2\nslurm = 1", f"got: pools.login.slurm; expected: {SLURM_KEYS}"),
        ("slots = 8", "slots = 0", "pools.slurm.slots: a pool needs at least one slot"),
        ("slots = 8, ", "", "a key is missing; where: {path}; expected: pools.slurm.slots"),
        ('"genoa"', '"genoa; rm"', "pools.slurm.partition: holds what no word of Slurm's holds"),
        ('"gpu:l40s"', '"gpu:l40s:2"', "pools.slurm.gres: the number of GPUs is said by the plac"),
        ("pack = 3", "pack = 0", "pools.slurm.pack"),
        ("pack = 3", 'launcher = ["srun"]', "pools.slurm: launcher: only with ntasks of 2 or more"),
        ("pack = 3", "ntasks = 2, launcher = []", "pools.slurm.launcher: names no command"),
        ("pack = 3", 'ntasks = 2, launcher = ["srun", ""]', "pools.slurm.launcher: has a word"),
        ("pack = 3", 'ntasks = 2, launcher = ["mpirun", "-n", "{tasks}"]',
         "pools.slurm.launcher: has {{tasks}}; it may have {{ntasks}} and {{cpus}}"),
        ('"nice" = 5', '"mem" = 5', "pools.login.options: option 'mem' is set by Muster itself"),
        ('"nice" = 5', '"nice" = 5.5', "pools.login.options.nice: should be a number, true"),
        ('"nice" = 5', '"nice" = false', "pools.login.options.nice: is false: leave it out"),
        ('{ "A" = "pool" }', '{ "A b" = "x" }', "pools.login.environment: no variable can have"),
        ("prelude = []", 'prelude = "x"', "pools.login.prelude: should be a list"),
        ('cluster = "near"', 'cluster = "far"', "pool 'login' is on cluster 'far'; there are ["),
        ("[clusters.near]", "[clusters.far]\n[clusters.near]",
         "pool 'slurm' does not say which cluster; there are ['far', 'near']"),
        ("[clusters.near]", "[clusters.near]\nname = 'x'", "got: clusters.near.name; expected: "
         "container, environment, host, key, known_hosts, poll_every, port, prelude, python, "
         "result_grace, submissions_per_s, transport, user, work"),
        ("[clusters.near]", '[clusters.near]\ntransport = "ftp"', "clusters.near.transport"),
        ("[clusters.near]", '[clusters.near]\ntransport = "ssh"', "transport ssh needs a host"),
        ("[clusters.near]", "[clusters.'a b']", "cluster name 'a b' may hold"),
        ('work = "/scratch/work"', 'work = "s3://b/work"', "needs work to be an absolute path"),
        ('work = "/scratch/work"', 'work = "work"', "in which its jobs start, not 'work'"),
        ('work = "/scratch/work"', 'work = "/a%a"', "without % and"),
        ('work = "/scratch/work"', "work = '/a\\b'", "without % and"),
        ('work = "/scratch/work"', 'work = "/a\\nb"', "absolute path without"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_cluster_is_said_in_one_line(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    text = SLURM.replace('cluster = "near"\n', "") if "clusters" in old else SLURM
    assert old in text
    path = write(tmp_path, text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_site(path)
    message = str(caught.value)
    assert says.format(path=path) in message
    assert path in message


def test_a_cluster_that_cannot_see_this_machines_work_is_refused(tmp_path: Path) -> None:
    text = SLURM.replace('work = "/scratch/work"\n', "")
    text = text.replace("[clusters.near]", '[clusters.near]\ntransport = "ssh"\nhost = "login1"')
    with pytest.raises(ConfigError, match=r"'near' does not see the work .* \[clusters.near\]"):
        read_site(write(tmp_path, text))
    read_site(write(tmp_path, text.replace('host = "login1"', 'host = "a"\nwork = "/there"')))


def test_the_default_work_directory_is_fit_for_jobs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, SLURM.replace('work = "/scratch/work"\n', ""))
    monkeypatch.setenv("MUSTER_HOME", "/home/ada/50%")
    with pytest.raises(ConfigError, match="not '/home/ada/50%/work'"):
        read_site(path)
    monkeypatch.setenv("MUSTER_HOME", "/home/ada/.muster")
    assert read_site(path).work_uri == "/home/ada/.muster/work"


def test_airflows_pools_say_what_they_are(tmp_path: Path) -> None:
    pools = render_pools(read_site(write(tmp_path, SLURM)))
    assert pools["slurm"]["description"] == "slurm pool, partition genoa of site mine"
    assert pools["login"]["description"] == "slurm pool, cluster near of site mine"
    assert pools["login"]["slots"] == 2


@pytest.mark.parametrize("name", sorted(path.stem for path in SITES_FOLDER.glob("*.toml")))
def test_every_site_that_comes_with_muster_places_every_step_of_a_workflow(name: str) -> None:
    site = read_site(name)
    for step in STEPS:
        if step.startswith(("traits.", "resampling.", "mocks.")):
            placement, pool = site.placed(step)
            assert placement.memory is not None
            assert placement.time is not None
            if isinstance(pool, SlurmPool):
                assert pool.target(site).partition or pool.target(site).constraint


def test_perlmutter_has_the_job_types_that_campaigns_name() -> None:
    site = read_site("perlmutter")
    assert set(site.job_types) == {"cpu_intensive", "gpu_intensive", "memory_intensive"}
    asked = site.job_types["gpu_intensive"]
    assert (asked.pool, asked.resources.gpus, asked.resources.time_limit_s) == ("gpu", 1, 1800)


@pytest.mark.parametrize("name", ["genoa", "gke", "laptop", "mixed", "perlmutter", "slurm"])
def test_there_is_a_site_to_start_from(name: str) -> None:
    assert read_site(name).name == name


def test_no_such_site() -> None:
    with pytest.raises(MissingInput, match="laptop"):
        read_site("nowhere")


def test_the_default_is_the_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSTER_SITE", raising=False)
    assert read_site().name == "laptop"


def test_what_nobody_needs_is_kept_for_a_month_unless_the_file_says_otherwise(
    tmp_path: Path,
) -> None:
    kept = read_site(write(tmp_path, GOOD)).retention
    assert (kept.runs, kept.bands) == (30 * 86400, 30 * 86400)
    told = GOOD + '[retention]\nruns = "7d"\nbands = "never"\n'
    kept = read_site(write(tmp_path, told)).retention
    assert (kept.runs, kept.bands) == (7 * 86400, None)
    assert kept.model_dump(mode="json") == {"runs": "7d", "bands": "never"}


@pytest.mark.parametrize("text", ["30d", "never", "02:00:00", "1-02:00:00"])
def test_how_long_something_is_kept_is_written_as_it_is_read(text: str) -> None:
    assert render_keep(parse_keep_s(text)) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:00:01", 1), ("02:00:00", 7200), ("1-00:00:00", 86400), ("2d", 172800)],
)
def test_times_are_slurms(text: str, seconds: int) -> None:
    assert parse_time_s(text) == seconds


@pytest.mark.parametrize(("text", "mib"), [("1MiB", 1), ("1.5GiB", 1536), ("1TiB", 2**20)])
def test_sizes_have_units(text: str, mib: int) -> None:
    assert parse_size_mib(text) == mib
