"""Small campaigns of mock catalogues, and the files of haloes that they are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

BOX_MPCH = 100.0


def write_campaign(
    folder: Path,
    *,
    realizations: Any = 2,
    redshifts: Sequence[float] = (1.1, 0.5),
    box: Mapping[str, Any] | None = None,
    suite: str = "synthetic",
    model: str = "hod",
    parameters: Mapping[str, Any] | None = None,
    name: str = "Small",
    version: str = "1",
    min_mass_msunh: float = 1e12,
    resources: Mapping[str, Any] | None = None,
    layout: str = "lean",
    slabs: int = 1,
    **execution: Any,
) -> Path:
    """Write the file of a campaign whose boxes take a tenth of a second; return its path."""
    data = {
        "campaign": {"name": name, "version": version},
        "science": {
            "simulation_suite": suite,
            "box": dict(box or {"box_size_mpch": 25, "lowest_mass_msunh": 1e12}),
            "realizations": realizations,
            "redshifts": list(redshifts),
            "galaxy_model": model,
            "parameters": dict(parameters or {}),
            "seed": 5,
            "min_mass_msunh": min_mass_msunh,
            **({"slabs": slabs} if slabs != 1 else {}),
        },
        "execution": execution,
        "resources": dict(resources or {}),
        "outputs": {
            "base_path": str(folder / "campaigns"),
            **({"layout": layout} if layout != "lean" else {}),
        },
    }
    path = folder / f"{name.lower()}-{version}.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def write_haloes(
    folder: Path,
    realizations: int,
    redshifts: Sequence[float],
    *,
    missing: Collection[int] = (),
    corrupt: Collection[int] = (),
) -> dict[str, Any]:
    """Write a small file of haloes a box; return what a campaign says of them under ``box``.

    Parameters
    ----------
    missing, corrupt : collection of int
        Realizations that have no file at the last redshift, or one that was cut short.
    """
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    last = redshifts[-1]
    for realization in range(realizations):
        for redshift in redshifts:
            if redshift == last and realization in missing:
                continue
            path = folder / f"halos_{realization:04d}_z{redshift:.3f}.hdf5"
            random = np.random.default_rng([realization, int(1000 * redshift)])
            count = 40
            with h5py.File(path, "w") as file:
                file["halos/logmhost"] = random.uniform(12, 14, count)
                file["halos/pos"] = random.uniform(0, BOX_MPCH, (count, 3)).astype("f4")
                file["halos/vel"] = random.normal(0, 300, (count, 3)).astype("f4")
                file["halos/radius"] = random.uniform(0.3, 1, count).astype("f4")
                file.attrs.update({"Lbox": BOX_MPCH, "z_obs": redshift})
            if redshift == last and realization in corrupt:
                content = path.read_bytes()
                path.write_bytes(content[: len(content) // 2])
    return {"path": str(folder / "halos_{realization}_z{redshift}.hdf5")}
