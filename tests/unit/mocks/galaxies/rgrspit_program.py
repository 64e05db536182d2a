"""Populate haloes with rgrspit_diffsky, directly or through the adapter; leave arrays and cost.

python rgrspit_program.py direct|adapter HALOS.npz OUT.npz
"""

from __future__ import annotations

import json
import resource
import sys

import numpy as np

NAMES = ("vel", "logsm_t_obs", "logssfr_t_obs", "logmp_t_obs", "upid", "log_mah_table", "sfh_table")
OF_THE_BOX = ("z_obs", "t_obs", "t0", "t_table")
LOG_MIN_MASS = 11.0


def call_directly(halos):
    """Call the original as roman-grs-pit/covariance-mocks does."""
    from dsps.cosmology import DEFAULT_COSMOLOGY
    from jax import numpy as jnp
    from jax import random
    from rgrspit_diffsky import mc_galpop

    arrays = [
        jnp.asarray(values, dtype=jnp.float32)
        for values in (np.log10(halos["masses"]), halos["radii"], halos["pos"], halos["vel"])
    ]
    made = mc_galpop.mc_galpop_synthetic_subs(
        random.key(0), *arrays, float(halos["redshift"]), LOG_MIN_MASS, DEFAULT_COSMOLOGY,
        float(halos["box"]),
    )  # fmt: skip
    return {name: np.asarray(made[name]) for name in ("pos", *NAMES, *OF_THE_BOX)}


def call_adapter(halos):
    from muster.mocks.galaxies.boxes import generate_box
    from muster.mocks.galaxies.model import load_model
    from muster.mocks.halos.catalog import Cosmology, HaloCatalog, HaloMetadata

    cosmology = Cosmology(0.6736, 0.3152, 0.0493, 0.808, 0.9649)
    catalog = HaloCatalog(
        halos["pos"], halos["masses"], np.arange(len(halos["pos"])) * 3, halos["vel"],
        halos["radii"],
        HaloMetadata("test", float(halos["box"]), float(halos["redshift"]), cosmology),
    )  # fmt: skip
    model = load_model("rgrspit")
    params = model.parse({"log_min_subhalo_mass": LOG_MIN_MASS, "baseline": True})
    made = generate_box(
        catalog, model, params, seed=5, realization=1, redshift_index=2, slabs=1, histories=True
    )
    of_the_box = {name: made.attributes[name] for name in OF_THE_BOX}
    return {"pos": made.positions, **made.properties, **of_the_box}


def main() -> None:
    way, source, target = sys.argv[1:]
    halos = dict(np.load(source))
    made = (call_directly if way == "direct" else call_adapter)(halos)
    np.savez(target, **made)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "peak_kib": used.ru_maxrss}))


if __name__ == "__main__":
    main()
