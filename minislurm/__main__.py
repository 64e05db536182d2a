"""``python -m minislurm``: what the Makefile's slurm and slurm-stop do."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minislurm.cluster import SlurmCluster
from minislurm.config import PARTITIONS, ClusterOptions
from minislurm.programs import SEARCH_PATH
from muster.errors import MusterError
from muster.laptop.processes import StartFailed
from muster.laptop.services import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence


def open_cluster(folder: Path | None, *, accounting: bool = False) -> SlurmCluster:
    """Return the cluster of a folder, or that in MUSTER_HOME, or in .muster in the repository.

    This is where the environment of the process is read, once.
    """
    home = Path(os.environ.get("MUSTER_HOME") or REPOSITORY / ".muster")
    # Daemons lie in folders that an ordinary user's PATH does not have.
    path = os.pathsep.join([*filter(None, [os.environ.get("PATH")]), SEARCH_PATH])
    return SlurmCluster(
        folder or home / "slurm",
        ClusterOptions(accounting=accounting),
        search_path=path,
        tell=click.echo,
    )


def render_welcome(cluster: SlurmCluster) -> list[str]:
    """Return what somebody wants to know who has just started a cluster."""
    lines = ["", "Slurm runs; in a shell that is to use it:"]
    lines += [f"  export SLURM_CONF={cluster.layout.slurm_conf}", "", "partitions:"]
    for number, partition in enumerate(PARTITIONS):
        gpus = f", {partition.gpus} × gpu:{partition.name}" if partition.gpus else ""
        lines.append(
            f"  {partition.name:8} {', '.join(partition.nodes)}: {partition.cpus} CPUs, "
            f"{partition.memory_mib:,} MiB{gpus} each (pretended)"
            f"{'; the default' if number == 0 else ''}"
        )
    limited = "a job that takes more than it asked for is ended as OUT_OF_MEMORY"
    if cluster.layout.cgroups is None:
        limited = "not limited, as that takes root and cgroup v1"
    return [
        *lines,
        "",
        f"memory: {limited}",
        "a site file's pool can use these partitions, and 'muster doctor SITE' tries it",
        f"logs: {cluster.folder / 'logs'}; 'make slurm-stop' ends all of it, jobs too",
    ]


@click.group()
def slurm() -> None:
    """Run a Slurm cluster of this machine's own."""


_FOLDER = click.option("--folder", type=click.Path(path_type=Path), help="Where it lives.")


@slurm.command()
@_FOLDER
@click.option("--accounting", is_flag=True, help="With slurmdbd, for sacct and sacctmgr.")
def start(folder: Path | None, accounting: bool) -> None:
    """Start what does not run, and say how to use it."""
    cluster = open_cluster(folder, accounting=accounting)
    cluster.start()
    for line in render_welcome(cluster):
        click.echo(line)


@slurm.command()
@_FOLDER
def stop(folder: Path | None) -> None:
    """End all of it, jobs too; what Slurm knows of its jobs stays for the next start."""
    # What does not run need not be ended, so a cluster without accounting is ended as well.
    open_cluster(folder, accounting=True).stop()
    click.echo("stopped")


@slurm.command()
@_FOLDER
def status(folder: Path | None) -> None:
    """Say what runs."""
    cluster = open_cluster(folder, accounting=True)
    running = cluster.running()
    for daemon, pid in running.items():
        click.echo(f"{daemon}: process {pid}, log {cluster.folder / 'logs' / daemon}.out")
    if not running:
        click.echo("nothing runs")


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run a command; what a person can act on is one line, and the end of a log where that helps.

    Returns
    -------
    int
        Exit code, as in :mod:`muster.errors`.
    """
    try:
        return slurm.main(arguments, prog_name="python -m minislurm", standalone_mode=False)
    except MusterError as error:
        if isinstance(error, StartFailed):
            for line in error.tail.splitlines():
                click.echo(f"  | {line}")
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; 'make slurm-stop' ends what runs", err=True)
        return 130


if __name__ == "__main__":
    sys.exit(main())
