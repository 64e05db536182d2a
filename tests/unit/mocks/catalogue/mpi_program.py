"""What each rank runs in tests of MPI: write a share of a box, in one way after the other.

    mpirun -n 3 python mpi_program.py FOLDER CASE…

Each rank writes what came of a case to FOLDER/CASE/RANK.json.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mpi4py import MPI

from muster.mocks.catalogue.layout import Compression
from muster.mocks.catalogue.parallel import has_parallel_hdf5, write_catalogue_parallel
from muster.mocks.galaxies.catalog import GalaxyCatalog
from muster.mocks.hdf5_writer import write_parallel_hdf5
from tests.unit.mocks.catalogue.boxes import BOX_MPCH, make_box

if TYPE_CHECKING:
    from muster.mocks.halos.catalog import HaloCatalog


@dataclass
class Context:
    comm: Any
    rank: int
    size: int


def share_galaxies(galaxies: GalaxyCatalog, rows: Any) -> GalaxyCatalog:
    columns = {
        name: values[..., rows] if name == "mah_params" else values[rows]
        for name, values in galaxies.properties.items()
        if name != "t_table"
    }
    columns["t_table"] = galaxies.properties["t_table"]
    return GalaxyCatalog(
        galaxies.positions[rows], columns, galaxies.parent_halos[rows], galaxies.attributes
    )


def share_halos(halos: HaloCatalog, which: Any) -> HaloCatalog:
    names = ("positions", "masses", "ids", "velocities", "radii")
    return replace(halos, **{name: getattr(halos, name)[which] for name in names})


def ranks_halos(rank: int, size: int) -> Any:
    """Return the rows of a rank's haloes: the ids of the ranks alternate."""
    return np.arange(rank, 50, size)


def run(folder: Path, case: str, context: Context) -> dict[str, Any]:
    galaxies, halos = make_box(2500, full=True)
    # Not alike, and the second rank has none.
    bounds = [0, 900, 900, 2500]
    mine = share_galaxies(galaxies, slice(bounds[context.rank], bounds[context.rank + 1]))
    if case.startswith("shares"):
        rows = ranks_halos(context.rank, context.size)
        mine = share_galaxies(galaxies, np.isin(galaxies.parent_halos, rows))
        if case == "shares that overlap":
            rows = np.unique([0, *rows])
        mine = replace(mine, parent_halos=np.searchsorted(rows, mine.parent_halos))
        halos = share_halos(halos, rows)
    if case == "other kinds" and context.rank == 1:
        properties = {**mine.properties, "vel": mine.properties["vel"].astype(np.float64)}
        mine = replace(mine, properties=properties)
    if case == "fails on rank 2" and context.rank == 2:
        mine = replace(mine, positions=mine.positions[:, :2])
    path = folder / "made.hdf5"
    if case == "cannot be written":
        (folder / "file").touch()
        path = folder / "file" / "made.hdf5"
    told: dict[str, Any] = {"parallel": has_parallel_hdf5()}
    try:
        if case == "plan":
            told["returned"] = write_parallel_hdf5(mine, halos, path, context, BOX_MPCH)
        else:
            write_catalogue_parallel(
                path, mine, halos,
                mpi_context=context,
                layout="full",
                compression=Compression("gzip" if case == "gzip" else "none", chunk_rows=1024),
                statistics={"counts": np.arange(3)} if context.rank == 0 else None,
                attributes={"seed": 3, "fingerprint": "ab12"},
            )  # fmt: skip
    except Exception as error:
        told["error"] = [type(error).__name__, str(error)]
    return told


def main() -> None:
    comm = MPI.COMM_WORLD
    for case in sys.argv[2:]:
        folder = Path(sys.argv[1]) / case
        folder.mkdir(exist_ok=True)
        told = run(folder, case, Context(comm, comm.rank, comm.size))
        (folder / f"{comm.rank}.json").write_text(json.dumps(told))
        comm.barrier()


if __name__ == "__main__":
    main()
