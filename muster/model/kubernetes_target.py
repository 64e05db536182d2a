"""What a batch on Kubernetes is frozen with: its pool's pods, and the way to the cluster.

It is written to ``batch.json`` with the batch, so that a changed site file touches new runs only.
It names Secrets and holds none.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from muster.config import SizeMib, TimeS
from muster.frozen import Frozen
from muster.model.kubernetes_words import (
    GPU,
    SCRATCH_PATH,
    SHM_PATH,
    Annotations,
    EnvFrom,
    Image,
    KeyFrom,
    Label,
    Labels,
    Line,
    Name,
    PodVariables,
    ResourceName,
    SecretKey,
    Selector,
    Toleration,
    Volume,
    check_variable,
)
from muster.model.launcher import RankWords
from muster.model.pod_template import PodTemplate  # noqa: TC001 - pydantic reads it

DEFAULT_KUBERNETES = "kubernetes"
_AFFINITIES = ("nodeAffinity", "podAffinity", "podAntiAffinity")


def _affinity(affinity: dict[str, Any]) -> dict[str, Any]:
    for kind, value in affinity.items():
        if kind not in _AFFINITIES or not isinstance(value, dict):
            raise ValueError(f"{kind!r} is none of {', '.join(_AFFINITIES)}, each a mapping")
    return affinity


def _single_keys(variables: dict[str, KeyFrom]) -> dict[str, KeyFrom]:
    for name in variables:
        check_variable(name)
    return variables


class KubernetesWords(RankWords):
    """What a pool asks of a cluster, in Kubernetes' own words.

    Attributes
    ----------
    image : str or None
        The image that holds Muster, with a tag or a digest.
    image_pull_policy : {"IfNotPresent", "Always", "Never"}
        When a node pulls it.
    node_selector : dict of str to str
        Labels of the nodes that pods run on.
    tolerations : tuple of Toleration
        Taints that pods tolerate: nodes with GPUs often have one.
    affinity : dict
        As Kubernetes takes it.
    priority_class, runtime_class, service_account : str or None
        Names of each.
    gpu : str
        The resource that a placement's ``gpus`` counts: whole GPUs, or slices.
    pull_secrets : tuple of str
        Secrets that images are pulled with.
    environment : dict of str to str
        Variables of every pod; a step's own settings lie above them.
    env_from : tuple of EnvFrom
        Secrets and ConfigMaps whose keys are all variables.
    environment_from : dict of str to KeyFrom
        Variable → the key of a Secret or ConfigMap that holds it.
    store : SecretKey or None
        The key of a Secret that holds the store's URL, for steps that need the store.
    volumes : tuple of Volume
        Claims, such as that of the work directory, and further empty folders.
    scratch : int
        Size of the pods' ``/tmp``, in MiB: nothing else can be written but claims.
    shm : int or None
        Size of ``/dev/shm``, in MiB, which counts as memory; by default the runtime's 64 MiB.
    labels, annotations : dict of str to str
        Of jobs and pods.
    ttl : int
        How long a Job is kept after its end, in seconds: longer than any outage of Muster.
    start_grace : int
        How long a pod may take beside its elements' time, in seconds: pulling an image is charged.
    termination_grace : int
        How long a pod that is told to stop may take to write its results, in seconds.
    cpu_limit : bool
        Whether pods are throttled to the CPUs that they ask for.
    run_as_user, run_as_group, fs_group : int or None
        Who pods run as, where the image's own user is not meant, and who owns volumes; never root.
    pack : int
        How many elements one pod runs, one after the other, where they are short.
    pod_template : dict
        What else pods have, as YAML has it.
    ntasks, launcher
        As of :class:`muster.model.launcher.RankWords`; all ranks run in one pod.
    """

    image: Image | None = None
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    node_selector: Selector = {}
    tolerations: tuple[Toleration, ...] = ()
    affinity: Annotated[dict[str, Any], AfterValidator(_affinity)] = {}
    priority_class: Name | None = None
    runtime_class: Name | None = None
    service_account: Name | None = None
    gpu: ResourceName = GPU
    pull_secrets: tuple[Name, ...] = ()
    environment: PodVariables = {}
    env_from: tuple[EnvFrom, ...] = ()
    environment_from: Annotated[dict[str, KeyFrom], AfterValidator(_single_keys)] = {}
    store: SecretKey | None = None
    volumes: tuple[Volume, ...] = ()
    scratch: SizeMib = 10 * 1024
    shm: SizeMib | None = None
    labels: Labels = {}
    annotations: Annotations = {}
    ttl: TimeS = 3 * 86400
    start_grace: TimeS = 600
    termination_grace: TimeS = 30
    cpu_limit: bool = False
    run_as_user: Annotated[int, Field(ge=1)] | None = None
    run_as_group: Annotated[int, Field(ge=1)] | None = None
    fs_group: Annotated[int, Field(ge=1)] | None = None
    pack: Annotated[int, Field(ge=1)] = 1
    pod_template: PodTemplate = {}

    @model_validator(mode="after")
    def _check_words(self) -> KubernetesWords:
        if self.launcher is not None and self.launcher[0].rpartition("/")[2] == "srun":
            raise ValueError("launcher: a pod has no srun; ranks start by the image's mpirun")
        paths = [SCRATCH_PATH, *([SHM_PATH] if self.shm else []), *(v.path for v in self.volumes)]
        twice = sorted({path for path in paths if paths.count(path) > 1})
        if twice:
            raise ValueError(
                f"volumes: more than one at {', '.join(twice)}; scratch is the size of "
                f"{SCRATCH_PATH}, shm that of {SHM_PATH}"
            )
        both = sorted(self.environment.keys() & self.environment_from.keys())
        if both:
            raise ValueError(f"both in environment and environment_from: {', '.join(both)}")
        return self

    def claim_of(self, path: str) -> Volume | None:
        """Return the claim that pods see a path in, if any."""
        return next(
            (v for v in self.volumes if v.claim and f"{path}/".startswith(f"{v.path}/")), None
        )


class ApiServer(Frozen):
    """How the API server of a cluster is reached, and where jobs lie there.

    Attributes
    ----------
    context : str or None
        Of the kubeconfig; by default its current one.
    kubeconfig : str or None
        Path of a kubeconfig; by default KUBECONFIG, ``~/.kube/config``, or the pod that this
        process itself runs in.
    in_cluster : bool
        Whether only the latter is meant.
    connection : str or None
        Airflow's connection of that name says it.
    namespace : str
        Where jobs and pods lie.
    """

    context: Line | None = None
    kubeconfig: Line | None = None
    in_cluster: bool = False
    connection: Line | None = None
    namespace: Label = "default"

    @model_validator(mode="after")
    def _check_way(self) -> ApiServer:
        ways = {
            "context or kubeconfig": self.context or self.kubeconfig,
            "in_cluster": self.in_cluster,
            "connection": self.connection,
        }
        said = [name for name, value in ways.items() if value]
        if len(said) > 1:
            raise ValueError(f"{', '.join(said)}: only one of these says how it is reached")
        return self


class KubernetesTable(ApiServer):
    """A cluster, as a site file says it.

    Attributes
    ----------
    context, kubeconfig, in_cluster, connection, namespace
        As of :class:`ApiServer`.
    requests_per_s : float
        The most submissions in a second from all processes together, and the most calls of each.
    result_grace : int
        How long a result may take to be seen on this side after its pod has ended, in seconds.
    stuck_after : int
        How long a pod may wait for what time alone does not bring, such as an image that is not
        there, in seconds.
    python : str
        Python in the images, with Muster installed.
    """

    requests_per_s: Annotated[float, Field(gt=0, le=1000)] = 10.0
    result_grace: TimeS = 60
    stuck_after: TimeS = 300
    python: Line = "python"


class Kubernetes(KubernetesTable):
    """A cluster by name.

    Attributes
    ----------
    name : str
        What all batches of it share: one watch, one rate of requests.
    """

    name: str = DEFAULT_KUBERNETES


class KubernetesTarget(KubernetesWords):
    """A pool on a cluster: what its batches are frozen with.

    Attributes
    ----------
    cluster : Kubernetes
        Where.
    """

    backend: ClassVar[Literal["kubernetes"]] = "kubernetes"

    cluster: Kubernetes = Kubernetes()

    @model_validator(mode="after")
    def _check_image(self) -> KubernetesTarget:
        if self.image is None:
            raise ValueError("no image is said, in which elements would run")
        return self

    @property
    def connection(self) -> str:
        """What batches have in common that one open backend can serve."""
        return f"{self.backend} {self.cluster.model_dump_json(exclude={'python'})}"
