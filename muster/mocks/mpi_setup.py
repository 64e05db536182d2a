"""MPI first, JAX after it: what each rank of a job is, and which devices it computes on.

MPI is used where a launcher started more than one rank.  JAX is imported only where a galaxy model
needs it, after MPI, with the devices of the node dealt to the node's ranks.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.mocks.errors import JAXError, MPIError

LAUNCHER_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "SLURM_STEP_NUM_TASKS")
"""Variables by which mpirun and srun tell a process how many ranks there are."""

_DEVICE = re.compile(r"nvidia\d+")


@dataclass(frozen=True)
class MPIContext:
    """One rank of a job, or the only process.

    Attributes
    ----------
    comm : mpi4py.MPI.Comm or None
        All ranks; None of a single process without MPI.
    rank, size : int
        This rank, and the number of ranks.
    jax_devices : tuple
        The devices that this rank computes on; () where JAX is not used.
    """

    comm: Any
    rank: int
    size: int
    jax_devices: tuple[Any, ...] = ()


def count_launched() -> int:
    """Return how many ranks the launcher of this process started; 1 without a launcher.

    Raises
    ------
    MPIError
        When the launcher's variable is no number.
    """
    for name in LAUNCHER_SIZES:
        stated = os.environ.get(name)
        if stated is not None:
            if not (stated.isascii() and stated.isdigit() and int(stated) > 0):
                raise MPIError(
                    "no number of ranks",
                    where=name,
                    got=repr(stated),
                    do="unset the variable, or start by srun or mpirun",
                )
            return int(stated)
    return 1


def initialize_mpi_jax(*, with_mpi: bool | None = None, with_jax: bool | None = None) -> MPIContext:
    """Initialise MPI, then JAX.

    Parameters
    ----------
    with_mpi : bool, optional
        Whether to use MPI; by default where a launcher started more than one rank.
    with_jax : bool, optional
        Whether to use JAX; by default where it is installed.

    Returns
    -------
    MPIContext
        Rank, size and devices.

    Raises
    ------
    MPIError
        When MPI is needed and mpi4py is missing or belongs to another MPI than the launcher.
    JAXError
        When JAX is needed and missing, was initialised before MPI, or finds no device.
    """
    launched = count_launched()
    use_mpi = launched > 1 if with_mpi is None else with_mpi
    use_jax = importlib.util.find_spec("jax") is not None if with_jax is None else with_jax
    if use_jax and importlib.util.find_spec("jax") is None:
        raise JAXError("JAX is not installed", do="make mocks")
    if use_jax and use_mpi:
        _check_jax_is_new()
    if not use_mpi:
        return MPIContext(None, 0, 1, _start_jax(0, 1) if use_jax else ())
    comm = _start_mpi(launched)
    devices: tuple[Any, ...] = ()
    if use_jax:
        from mpi4py import MPI

        node = comm.Split_type(MPI.COMM_TYPE_SHARED)
        devices = _start_jax(node.rank, node.size)
        node.Free()
    return MPIContext(comm, comm.rank, comm.size, devices)


def _start_mpi(launched: int) -> Any:
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise MPIError(
            "mpi4py is missing, or finds no MPI library",
            got=str(error),
            expected=f"{launched} ranks" if launched > 1 else None,
            do="pip install 'muster[mpi]', and load the MPI of the launcher",
        ) from error
    comm = MPI.COMM_WORLD
    if launched > 1 and comm.size != launched:
        raise MPIError(
            "mpi4py uses another MPI than the launcher",
            where=MPI.Get_library_version().strip().splitlines()[0],
            got=f"{comm.size} ranks",
            expected=f"{launched} ranks",
            do="build mpi4py with the launcher's MPI, or set the pool's launcher",
        )
    return comm


def _check_jax_is_new() -> None:
    """Refuse devices that were taken before the ranks were known."""
    import sys

    if "jax" not in sys.modules:
        return
    from jax._src import xla_bridge

    if xla_bridge.backends_are_initialized():
        raise JAXError("JAX was initialised before MPI", do="call initialize_mpi_jax first")


def deal_devices(count: int, local_rank: int, local_size: int) -> list[int]:
    """Return which of a node's devices a rank computes on.

    Each device has one rank where there are enough; else ranks share devices in turn.
    """
    if count >= local_size:
        return list(range(local_rank, count, local_size))
    return [local_rank % count]


def _start_jax(local_rank: int, local_size: int) -> tuple[Any, ...]:
    import jax

    from muster.mocks.galaxies.jax_runtime import prepare_jax

    count = _count_gpus()
    if local_size > 1 and count:
        dealt = ",".join(str(device) for device in deal_devices(count, local_rank, local_size))
        jax.config.update("jax_cuda_visible_devices", dealt)  # type: ignore[no-untyped-call]
    prepare_jax()
    try:
        return tuple(jax.local_devices())
    except RuntimeError as error:
        raise JAXError("JAX finds no device", got=error, do="look at JAX_PLATFORMS") from error


def _count_gpus() -> int:
    """Return how many NVIDIA GPUs this process may see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return sum(_DEVICE.fullmatch(path.name) is not None for path in Path("/dev").glob("nvidia*"))
