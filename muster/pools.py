"""The pools of a site: what each kind says, and what a batch of it is frozen with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field, field_validator

from muster.config import SizeMib, TimeS
from muster.frozen import Frozen
from muster.model.kubernetes_target import (
    Kubernetes,
    KubernetesTable,
    KubernetesTarget,
    KubernetesWords,
)
from muster.model.kubernetes_words import Label, Line
from muster.model.launcher import MPIRUN, SRUN, RankWords
from muster.model.resources import Caps
from muster.model.slurm_target import SlurmTarget, SlurmWords, Text, Variables
from muster.model.target import LocalTarget

if TYPE_CHECKING:
    from muster.model.slurm_target import Cluster


class SiteClusters(Protocol):
    """What a pool asks its site for."""

    @property
    def work_uri(self) -> str:
        """Where runs keep their work."""
        ...

    def find_cluster(self, pool: SlurmPool) -> Cluster:
        """Return the Slurm cluster of a pool."""
        ...

    def find_kubernetes(self, pool: KubernetesPool) -> tuple[str, KubernetesSection]:
        """Return name and section of the Kubernetes cluster of a pool."""
        ...


class Slots(Frozen):
    """What pools of all backends say."""

    slots: int
    max_memory: SizeMib | None = None
    max_time: TimeS | None = None

    @field_validator("slots")
    @classmethod
    def _check_slots(cls, slots: int) -> int:
        if slots < 1:
            raise ValueError("a pool needs at least one slot")
        return slots

    @property
    def caps(self) -> Caps:
        """The most that one element may have."""
        return Caps(memory_mib=self.max_memory, time_limit_s=self.max_time)


class LocalPool(Slots, RankWords):
    """A pool on the machine that Muster itself runs on.

    Attributes
    ----------
    backend : {"local"}
        What runs there.
    slots : int
        How many elements run at once.
    max_memory, max_time : int or None
        The most that one element may have, in MiB and seconds; a retry grows up to there.
    ntasks, launcher
        As of :class:`muster.model.launcher.RankWords`; by default mpirun.
    """

    backend: Literal["local"]

    def target(self, site: SiteClusters) -> LocalTarget:
        """Say what a batch of this pool is frozen with."""
        return LocalTarget(ntasks=self.ntasks, launcher=self.launcher_or(MPIRUN))

    def describe(self) -> str:
        """Say in a few words what it is."""
        return "local pool"


class SlurmPool(Slots, SlurmWords):
    """A pool on a Slurm cluster; the words of Slurm's own are those of :class:`SlurmWords`.

    Attributes
    ----------
    backend : {"slurm"}
        What runs there.
    slots : int
        How many elements of a batch run at once.
    max_memory, max_time : int or None
        The most that one element may have, in MiB and seconds; a retry grows up to there.
    cluster : str or None
        One of the site's clusters; by default its only one, or Slurm as it is found here.
    launcher : tuple of str or None
        By default srun, where there are several ranks.
    python, prelude, container, environment
        As those of the cluster, whose place they take.
    """

    backend: Literal["slurm"]
    cluster: str | None = None
    python: Text | None = None
    prelude: tuple[Text, ...] | None = None
    container: tuple[Text, ...] | None = None
    environment: Variables | None = None

    def describe(self) -> str:
        """Say in a few words what it is."""
        words = [f"{n} {getattr(self, n)}" for n in ("cluster", "partition") if getattr(self, n)]
        return ", ".join(["slurm pool", *words])

    def target(self, site: SiteClusters) -> SlurmTarget:
        """Say what a batch of this pool is frozen with."""
        words = {name: getattr(self, name) for name in SlurmWords.model_fields}
        own = {n: getattr(self, n) for n in ("python", "prelude", "container", "environment")}
        cluster = site.find_cluster(self).model_copy(
            update={name: value for name, value in own.items() if value is not None}
        )
        return SlurmTarget(
            **{**words, "launcher": self.launcher_or(SRUN)},
            cluster=cluster,
            work_root=site.work_uri if cluster.work is not None else None,
        )


class KubernetesSection(KubernetesTable):
    """A cluster of a site, and what its pools have in common.

    Attributes
    ----------
    defaults : KubernetesWords
        What its pools say where they do not say it themselves.
    """

    defaults: KubernetesWords = KubernetesWords()


class KubernetesPool(Slots, KubernetesWords):
    """A pool on a Kubernetes cluster; its words are those of :class:`KubernetesWords`.

    Attributes
    ----------
    backend : {"kubernetes"}
        What runs there.
    slots : int
        How many pods of a batch run at once.
    max_memory, max_time : int or None
        The most that one element may have, in MiB and seconds; a retry grows up to there.
    cluster : str or None
        One of the site's ``[kubernetes.…]``; by default its only one, or the one found here.
    launcher : tuple of str or None
        By default mpirun, where there are several ranks.
    context, connection, namespace, python : str or None
        As those of the cluster, whose place they take.
    """

    backend: Literal["kubernetes"]
    cluster: str | None = None
    context: Line | None = None
    connection: Line | None = None
    namespace: Label | None = None
    python: Line | None = None

    def describe(self) -> str:
        """Say in a few words what it is."""
        words = [f"{n} {getattr(self, n)}" for n in ("cluster", "namespace") if getattr(self, n)]
        return ", ".join(["kubernetes pool", *words])

    def target(self, site: SiteClusters) -> KubernetesTarget:
        """Say what a batch of this pool is frozen with.

        Raises
        ------
        ValueError
            When the pool and its cluster together make none.
        """
        name, section = site.find_kubernetes(self)
        words = section.defaults.model_dump(mode="json", exclude_unset=True)
        own = self.model_dump(mode="json", exclude_unset=True)
        words |= {key: own[key] for key in KubernetesWords.model_fields if key in own}
        target = KubernetesTarget.model_validate({**words, "cluster": self._way(name, section)})
        launcher = target.launcher_or(MPIRUN)
        return target.model_copy(update={"launcher": launcher})

    def _way(self, name: str, section: KubernetesSection) -> Kubernetes:
        """Say how the cluster is reached for this pool."""
        way: dict[str, Any] = section.model_dump(mode="json", exclude={"defaults"})
        if self.connection is not None:
            way |= {"context": None, "kubeconfig": None, "in_cluster": False}
        elif self.context is not None:
            way |= {"connection": None, "in_cluster": False}
        for key in ("context", "connection", "namespace", "python"):
            if getattr(self, key) is not None:
                way[key] = getattr(self, key)
        return Kubernetes.model_validate({**way, "name": name})


Pool = Annotated[LocalPool | SlurmPool | KubernetesPool, Field(discriminator="backend")]
"""A named place to run."""
