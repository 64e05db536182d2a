"""What a batch is frozen with: the site's words, once and for good."""

from __future__ import annotations

from muster.backends.slurm.place import SlurmPlace
from muster.jobs.freeze import freeze_batch
from muster.jobs.model import Batch, Caps, Element, Resources
from muster.site import Site, SlurmPool, read_site


def freeze(site: Site, step: str) -> Batch:
    elements = [Element(index=0, name="SLA")]
    return freeze_batch(site, "run", f"{site.work_uri}/runs/run", step, "SLA", elements, {})


def test_a_batch_on_slurm_is_frozen_with_its_place() -> None:
    site = read_site("genoa")
    batch = freeze(site, "traits.aoa")
    pool = site.pools["gpu_l40s"]
    assert isinstance(pool, SlurmPool)
    assert batch.backend == "slurm"
    assert batch.slurm == pool.place(site)
    assert isinstance(batch.slurm, SlurmPlace)
    assert (batch.slurm.partition, batch.slurm.gres) == ("l40s", "gpu:l40s")
    assert batch.slurm.cluster.name == "genoa"
    assert batch.resources == Resources(
        cpus=8, memory_mib=128 * 1024, time_limit_s=4 * 3600, gpus=2
    )
    assert batch.caps == Caps(memory_mib=250 * 1024, time_limit_s=86400)
    assert Batch.model_validate_json(batch.to_json()) == batch


def test_a_local_batch_has_no_place_on_slurm() -> None:
    assert freeze(read_site("laptop"), "traits.aoa").slurm is None
