"""The site file: which pools there are, and which step runs in which of them with what.

It is the only file that DAG files read when they are parsed, and it reaches a batch only through
the plan, which freezes what it says there.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from muster.config import KeepS, SizeMib, TimeS, find_problems, parse_config, read_yaml
from muster.errors import ConfigError, MissingInput
from muster.frozen import Frozen
from muster.model.kubernetes_target import DEFAULT_KUBERNETES
from muster.model.notifier import Notifier
from muster.model.resources import Resources
from muster.model.slurm_target import DEFAULT_CLUSTER, Cluster, ClusterTable, is_folder
from muster.model.step import STEP_REGISTRY
from muster.pools import KubernetesPool, KubernetesSection, Pool, SlurmPool
from muster.storage import explain_os_error, local_path

SITE_VARIABLE = "MUSTER_SITE"
HOME_VARIABLE = "MUSTER_HOME"
SITES_FOLDER = Path(__file__).resolve().parent.parent / "config" / "sites"
DEFAULT_SITE = "laptop"
KEEP_S = 30 * 86400


class JobType(Frozen):
    """A kind of job that a campaign names: its pool, and what each element asks for.

    Attributes
    ----------
    pool : str
        Name of the pool.
    cpus, gpus : int
        Threads and GPUs an element.
    memory, time : int or None
        Memory in MiB and wall time in seconds an element; None asks for no limit.
    """

    pool: str
    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    memory: SizeMib | None = None
    time: TimeS | None = None

    @property
    def resources(self) -> Resources:
        """What an element asks for at first."""
        return Resources(
            cpus=self.cpus, gpus=self.gpus, memory_mib=self.memory, time_limit_s=self.time
        )


class Placement(JobType):
    """Where a step runs, and what each of its elements asks for.

    Attributes
    ----------
    pool, cpus, gpus, memory, time
        As of :class:`JobType`.
    deadline : int or None
        How long a batch of the step may take with all its retries, in seconds.
    """

    deadline: TimeS | None = None


class Retention(Frozen):
    """How long the work directory keeps what nobody needs any more; None is for good.

    Attributes
    ----------
    runs : int or None
        Seconds after its end that a run's work folder stays: plan, batches, results, logs; and what
        an interrupted load has brought into Postgres, after its last window.
    bands : int or None
        Seconds that a band raster stays after it was made or last used.
    """

    runs: KeepS = KEEP_S
    bands: KeepS = KEEP_S


class Site(Frozen):
    """One installation's pools and placements.

    Attributes
    ----------
    name : str
        The file's name without its suffix.
    work : str or None
        Where runs keep their work, a path or URI; by default ``work`` in MUSTER_HOME.
    pools, placement : dict
        By name, and by step.
    job_types : dict
        By name: pool and resources that a campaign's ``job_type`` picks for its populating step.
    clusters : dict
        By name: how Slurm clusters are reached, and how jobs start there.
    kubernetes : dict
        By name: how Kubernetes clusters are reached, and what their pools have in common.
    retention : Retention
        How long the work directory keeps what nobody needs.
    notify : dict
        By name: who is told when a run fails, cannot succeed any more, or stands still.
    """

    name: str
    work: str | None = None
    pools: dict[str, Pool]
    placement: dict[str, Placement]
    job_types: dict[str, JobType] = {}
    clusters: dict[str, ClusterTable] = {}
    kubernetes: dict[str, KubernetesSection] = {}
    retention: Retention = Retention()
    notify: dict[str, Notifier] = {}

    @model_validator(mode="after")
    def _check(self) -> Site:
        for step, placement in self.placement.items():
            if step not in STEP_REGISTRY:
                known = sorted(STEP_REGISTRY.names())
                raise ValueError(f"unknown step {step!r} in placement; there are {known}")
            self._check_pool(step, placement)
        for name, job_type in self.job_types.items():
            self._check_pool(f"job type {name!r}", job_type)
        named = (
            ("pool", self.pools),
            ("cluster", self.clusters),
            ("kubernetes", self.kubernetes),
            ("job type", self.job_types),
            ("notifier", self.notify),
        )
        for kind, names in named:
            for name in names:
                if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
                    raise ValueError(f"{kind} name {name!r} may hold letters, digits, _ and - only")
        for name, pool in self.pools.items():
            if isinstance(pool, SlurmPool):
                self._check_slurm(name, pool)
            if isinstance(pool, KubernetesPool):
                self._check_kubernetes(name, pool)
        return self

    def _check_pool(self, what: str, asked: JobType) -> None:
        """Refuse a pool that is not there, or gives less than is asked for."""
        pool = self.pools.get(asked.pool)
        if pool is None:
            raise ValueError(
                f"{what} is placed on pool {asked.pool!r}; there are {sorted(self.pools)}"
            )
        _check_within(what, asked, pool)

    def _check_slurm(self, name: str, pool: SlurmPool) -> None:
        """Refuse a pool whose jobs could not find their work."""
        known = sorted(self.clusters)
        if pool.cluster is None and len(known) > 1:
            raise ValueError(f"pool {name!r} does not say which cluster; there are {known}")
        if pool.cluster is not None and pool.cluster not in known:
            raise ValueError(f"pool {name!r} is on cluster {pool.cluster!r}; there are {known}")
        if not is_folder(self.work_uri):
            raise ValueError(
                f"pool {name!r} needs work to be an absolute path without % and \\, in which its "
                f"jobs start, not {self.work_uri!r}"
            )
        cluster = self.find_cluster(pool)
        if cluster.transport == "ssh" and cluster.work is None and self.work is None:
            raise ValueError(
                f"cluster {cluster.name!r} does not see the work directory of this machine: say "
                f"'work = …' of the site where both see it, or in [clusters.{cluster.name}] where "
                "batches and results travel to and from"
            )

    def _check_kubernetes(self, name: str, pool: KubernetesPool) -> None:
        """Refuse a pool whose pods could not start, or could not find their work."""
        known = sorted(self.kubernetes)
        if pool.cluster is None and len(known) > 1:
            raise ValueError(f"pool {name!r} does not say which cluster; there are {known}")
        if pool.cluster is not None and pool.cluster not in known:
            raise ValueError(f"pool {name!r} is on cluster {pool.cluster!r}; there are {known}")
        try:
            target = pool.target(self)
        except ValidationError as error:
            problem = find_problems(type(pool), error)[0]
            raise ValueError(f"pool {name!r}: {problem.key}: {problem.message}") from None
        path = local_path(self.work_uri)
        claim = None if path is None else target.claim_of(str(path))
        if path is not None and (claim is None or claim.read_only):
            raise ValueError(
                f"pods of pool {name!r} do not see the work directory {self.work_uri!r}: say "
                "'work = \"s3://…\"' of the site, or mount a claim at it or above it that can be "
                "written (volumes)"
            )

    @property
    def work_uri(self) -> str:
        """Where runs keep their work."""
        return self.work or str(home_folder() / "work")

    def find_cluster(self, pool: SlurmPool) -> Cluster:
        """Return the cluster of a pool, as the site has it."""
        name = pool.cluster or next(iter(self.clusters), DEFAULT_CLUSTER)
        table = self.clusters.get(name, ClusterTable())
        return Cluster.model_validate({**table.model_dump(mode="json"), "name": name})

    def find_kubernetes(self, pool: KubernetesPool) -> tuple[str, KubernetesSection]:
        """Return name and section of a pool's cluster, as the site has it."""
        name = pool.cluster or next(iter(self.kubernetes), DEFAULT_KUBERNETES)
        return name, self.kubernetes.get(name, KubernetesSection())

    def placed(self, step: str) -> tuple[Placement, Pool]:
        """Say where a step runs.

        Raises
        ------
        ConfigError
            When the site does not place it.
        """
        placement = self.placement.get(step)
        if placement is None:
            raise ConfigError(
                "the site does not place this step",
                where=f"{self.name}.toml [placement]",
                got=step,
                expected=", ".join(sorted(self.placement)),
            )
        return placement, self.pools[placement.pool]


def home_folder() -> Path:
    """Return the folder of this installation's own state: MUSTER_HOME, or .muster beside you."""
    return Path(os.environ.get(HOME_VARIABLE) or ".muster").absolute()


def read_site(name_or_path: str | None = None) -> Site:
    """Read a site file by name or path; MUSTER_SITE or the laptop where none is given.

    Raises
    ------
    MissingInput
        When there is no such file.
    ConfigError
        When a key is unknown or wrong.
    """
    wanted = name_or_path or os.environ.get(SITE_VARIABLE) or DEFAULT_SITE
    path = Path(wanted) if wanted.endswith(".toml") else SITES_FOLDER / f"{wanted}.toml"
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in SITES_FOLDER.glob("*.toml")))
        raise MissingInput(
            "no such site", where=path, got=wanted, expected=f"{known}, or a path to a .toml file"
        ) from None
    except OSError as error:
        raise explain_os_error(error, path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("not a TOML file", where=path, got=error) from error
    return parse_config(Site, {**_with_pod_templates(data, path), "name": path.stem}, path)


def _with_pod_templates(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """Read the pod templates that a site file names: paths from its own folder.

    Raises
    ------
    MissingInput, ConfigError
        When there is no such file, or it is no YAML.
    """
    tables = data.get("pools"), data.get("kubernetes")
    pools, clusters = (table if isinstance(table, dict) else {} for table in tables)
    sections = [table.get("defaults") for table in clusters.values() if isinstance(table, dict)]
    for words in (*pools.values(), *sections):
        if isinstance(words, dict) and isinstance(words.get("pod_template"), str):
            file = path.parent / words["pod_template"]
            words["pod_template"] = read_yaml(file, ("metadata", "spec"))
    return data


def render_pools(site: Site) -> dict[str, dict[str, Any]]:
    """Render the site's pools as Airflow's ``pools import`` reads them.

    A deferred batch holds its slot: it has a job in the pool.
    """
    return {
        name: {
            "slots": pool.slots,
            "description": f"{pool.describe()} of site {site.name}",
            "include_deferred": True,
        }
        for name, pool in site.pools.items()
    }


def _check_within(what: str, asked: JobType, pool: Pool) -> None:
    for wanted, most, unit in (
        (asked.memory, pool.max_memory, "memory in MiB"),
        (asked.time, pool.max_time, "time in s"),
    ):
        if wanted is not None and most is not None and wanted > most:
            raise ValueError(f"{what} asks for {wanted} {unit}, its pool gives {most} at most")
