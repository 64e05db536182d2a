"""What each rank runs: populate its share of the pickled haloes, and leave it in a file.

mpirun -n 3 python mpi_program.py FOLDER
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from muster.mocks.galaxies.boxes import generate_box
from muster.mocks.galaxies.model import load_model
from muster.mocks.mpi_setup import initialize_mpi_jax


def main() -> None:
    folder = Path(sys.argv[1])
    context = initialize_mpi_jax(with_jax=False)
    hod = load_model("hod")
    share = generate_box(
        pickle.loads((folder / "halos").read_bytes()),
        hod,
        hod.parse({}),
        seed=5,
        realization=2,
        redshift_index=1,
        slabs=5,
        mpi_context=context,
    )
    if context.size != 3 or context.comm.allgather(context.rank) != [0, 1, 2]:
        sys.exit("not the ranks of this job")
    (folder / str(context.rank)).write_bytes(pickle.dumps(share))


if __name__ == "__main__":
    main()
