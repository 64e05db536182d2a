"""The backends that there are: what each is made of, and what it can do.

The only place where a backend is chosen by its name; what differs between backends elsewhere is a
capability here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BackendType:
    """One kind of backend; functions and classes as "module:name", imported when they are needed.

    Attributes
    ----------
    opener : str
        ``opener(db, target) -> Backend``.
    render : str
        ``render(batch) -> str``: what would be submitted first, for a person to read.
    operator : str
        Airflow's operator class.
    examiner : str or None
        ``examiner(db, site, pools, patience_s)``, whose ``examine`` tries a cluster and its pools
        for ``muster doctor``; None where there is no cluster: each pool is tried by a job alone.
    colour : str
        Of its tasks in Airflow's Grid.
    outlives_supervisor : bool
        Whether what was submitted goes on without the process that submitted it: then Airflow
        defers its batches.
    keeps_order : bool
        Whether the scheduler itself starts a job when others have ended: then a whole run may be
        submitted at once, and left alone.
    names_jobs : bool
        Whether a submission's reference is a job that a person can ask the scheduler for.
    """

    opener: str
    render: str
    operator: str
    examiner: str | None
    colour: str
    outlives_supervisor: bool
    keeps_order: bool
    names_jobs: bool


BACKENDS: dict[str, BackendType] = {
    "local": BackendType(
        opener="muster.backends.local:open_local",
        render="muster.backends.local:render_batch",
        operator="operators.batch:LocalBatchOperator",
        examiner=None,
        colour="#dfe9f5",
        outlives_supervisor=False,
        keeps_order=False,
        names_jobs=False,
    ),
    "slurm": BackendType(
        opener="muster.backends.slurm.backend:open_slurm",
        render="muster.backends.slurm.render:render_batch",
        operator="operators.batch:SlurmBatchOperator",
        examiner="muster.doctor.slurm:ClusterExaminer",
        colour="#f5e9df",
        outlives_supervisor=True,
        keeps_order=True,
        names_jobs=True,
    ),
    "kubernetes": BackendType(
        opener="muster.backends.kubernetes.backend:open_kubernetes",
        render="muster.backends.kubernetes.render:render_batch",
        operator="operators.kubernetes:KubernetesBatchOperator",
        examiner="muster.doctor.kubernetes:ClusterExaminer",
        colour="#e0ecff",
        outlives_supervisor=True,
        keeps_order=False,
        names_jobs=True,
    ),
}
"""Name of a backend, as its target says it → what it is."""
