"""Populating haloes with galaxies, with the signature that scripts and notebooks know."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from muster.errors import ConfigError
from muster.mocks.galaxies.boxes import generate_box
from muster.mocks.galaxies.model import MODEL_REGISTRY, load_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.mocks.galaxies.catalog import GalaxyCatalog
    from muster.mocks.halos.catalog import HaloCatalog


def generate_galaxies(
    halo_catalog: HaloCatalog,
    galaxy_model_params: Mapping[str, Any],
    random_seed: int | None = None,
) -> GalaxyCatalog:
    """Populate the haloes of a box.

    Parameters
    ----------
    halo_catalog : HaloCatalog
        As :func:`muster.mocks.data_loader.load_and_filter_halos` returns it.
    galaxy_model_params : mapping
        ``model``, a name of :data:`muster.mocks.galaxies.model.MODEL_REGISTRY`, and the model's own
        parameters; ``histories`` (default False) asks for formation histories.
    random_seed : int, optional
        In [0, 2⁶²).  None draws one, which the attribute ``seed`` of the result tells.

    Returns
    -------
    GalaxyCatalog
        Positions in Mpc/h in [0, box size), properties by name, and for each galaxy the position
        of its halo in ``halo_catalog``.

    Raises
    ------
    ConfigError
        When the model or a parameter is unknown, or the seed out of its range.
    ModelNotInstalled
        When packages of the model are missing.
    ModelError
        When the model fails.
    """
    parameters = dict(galaxy_model_params)
    name = parameters.pop("model", None)
    histories = parameters.pop("histories", False)
    if not isinstance(name, str):
        raise ConfigError(
            "no galaxy model",
            got=repr(name),
            expected=", ".join(MODEL_REGISTRY.names()),
            do="choose one of these",
        )
    if not isinstance(histories, bool):
        raise ConfigError(
            "histories: no truth value",
            got=repr(histories),
            expected="true, false",
            do="give true or false",
        )
    model = load_model(name)
    seed = secrets.randbits(31) if random_seed is None else random_seed
    galaxies = generate_box(
        halo_catalog,
        model,
        model.parse(parameters),
        seed=seed,
        realization=halo_catalog.metadata.realization or 0,
        redshift_index=0,
        slabs=1,
        histories=histories,
    )
    attributes = {**galaxies.attributes, "seed": seed}
    return type(galaxies)(
        galaxies.positions, galaxies.properties, galaxies.parent_halos, attributes
    )
