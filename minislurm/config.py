"""What the daemons of the cluster on one machine are told: all configuration text, and no I/O.

The values make a small machine pretend two kinds of nodes, schedule within a fraction of a second,
and keep everything on loopback and in one folder.  Whoever starts a cluster may replace any of
them.  How long Slurm remembers ended jobs, how many it takes, and what it does with a node that
does not answer are what a test of somebody else's patience wants to change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from muster.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LOOPBACK = "127.0.0.1"
CLUSTER_NAME = "muster"
DATABASE_NAME = "slurm_acct_db"
_ONE_ADDRESS = "NoInAddrAny,NoCtldInAddrAny"


@dataclass(frozen=True)
class Partition:
    """A partition and its nodes, which are all alike.

    Attributes
    ----------
    name : str
        As in ``sbatch --partition``.
    nodes : tuple of str
        Names of its nodes.
    cpus, memory_mib, gpus : int
        What each node pretends to have; ``gpus`` as ``--gres=gpu:NAME:N``.
    """

    name: str
    nodes: tuple[str, ...]
    cpus: int
    memory_mib: int
    gpus: int = 0


PARTITIONS = (
    Partition("genoa", ("cpu1", "cpu2"), cpus=48, memory_mib=190_000),
    Partition("l40s", ("gpu1", "gpu2"), cpus=32, memory_mib=256_000, gpus=4),
)
"""The partitions of the cluster; the first one is the default."""

NODES = tuple(node for partition in PARTITIONS for node in partition.nodes)


@dataclass(frozen=True)
class ClusterOptions:
    """What the one who starts a cluster may choose.

    Attributes
    ----------
    accounting : bool
        Start slurmdbd and a MariaDB of its own, so that ``sacct`` and ``sacctmgr`` work.
    completion_log : bool
        Have slurmctld write a line for each job that ends to ``jobcomp.log``.
    memory_limits : bool
        End jobs that take more memory than they asked for as OUT_OF_MEMORY, where this machine
        lets us: root, and cgroup v1.  Elsewhere their memory is not limited.
    settings : mapping
        Lines of slurm.conf that replace the cluster's own or are added to them; None removes one.
    """

    accounting: bool = False
    completion_log: bool = True
    memory_limits: bool = True
    settings: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Where the parts of one cluster are.

    Attributes
    ----------
    folder : Path
        The cluster's folder; absolute, without blanks.
    hostname : str
        This machine, as ``hostname -s`` says.
    user : str
        Who runs all daemons.
    ports : mapping
        The TCP port of slurmctld, slurmdbd, and slurmd.NODE for each node.
    cgroups : Path or None
        Folder with a link for each cgroup v1 hierarchy of the cluster's own; None for no limits.
    address : str
        Where the daemons reach one another.
    everywhere : bool
        Listen on all addresses.  Slurm can listen on one only if it is the host name's.
    """

    folder: Path
    hostname: str
    user: str
    ports: Mapping[str, int]
    cgroups: Path | None = None
    address: str = LOOPBACK
    everywhere: bool = False

    @property
    def slurm_conf(self) -> Path:
        """The file that SLURM_CONF names; Slurm looks for the others beside it."""
        return self.folder / "slurm.conf"

    @property
    def munge_key(self) -> Path:
        """The secret that the daemons and commands of this cluster share."""
        return self.folder / "munge.key"

    @property
    def munge_socket(self) -> Path:
        """Socket at which munged answers."""
        return self.folder / "munge.socket"

    @property
    def database_socket(self) -> Path:
        """Socket at which MariaDB answers."""
        return self.folder / "mariadb.socket"

    @property
    def completion_log(self) -> Path:
        """The lines that slurmctld writes about ended jobs."""
        return self.folder / "jobcomp.log"

    def log(self, daemon: str) -> Path:
        """Log file of a daemon, with times."""
        return self.folder / "logs" / f"{daemon}.log"

    def gpu_device(self, number: int | str) -> Path:
        """Stand-in for a GPU's device file."""
        return self.folder / "dev" / f"nvidia{number}"


def daemon_names(*, accounting: bool) -> tuple[str, ...]:
    """Name the daemons of a cluster in the order in which they are started."""
    database = ("mariadbd", "slurmdbd") if accounting else ()
    return ("munged", *database, "slurmctld", *(f"slurmd.{node}" for node in NODES))


def render_slurm_conf(layout: Layout, options: ClusterOptions) -> str:
    """Return the text of slurm.conf.

    Raises
    ------
    ConfigError
        Where a setting cannot be one line of the file.
    """
    lines = {
        "ClusterName": CLUSTER_NAME,
        "SlurmctldHost": f"{layout.hostname}({layout.address})",
        "SlurmctldPort": str(layout.ports["slurmctld"]),
        **({} if layout.everywhere else {"CommunicationParameters": _ONE_ADDRESS}),
        "SlurmUser": layout.user,
        "SlurmdUser": layout.user,
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={layout.munge_socket}",
        "CredType": "cred/munge",
        "StateSaveLocation": str(layout.folder / "state"),
        "SlurmdSpoolDir": str(layout.folder / "spool" / "%n"),
        "SlurmctldPidFile": str(layout.folder / "slurmctld.pid"),
        "SlurmdPidFile": str(layout.folder / "slurmd.%n.pid"),
        "SlurmctldLogFile": str(layout.log("slurmctld")),
        "SlurmdLogFile": str(layout.log("slurmd.%n")),
        "MpiDefault": "none",
        "SwitchType": "switch/none",
        "JobAcctGatherType": "jobacct_gather/none",
        **_render_limits(layout),
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "GresTypes": "gpu",
        # A small machine may pretend to have many CPUs.
        "SlurmdParameters": "config_overrides",
        "DefMemPerCPU": "1000",
        "MaxJobCount": "200000",
        "MaxArraySize": "50001",
        # Without a database a job that squeue has forgotten is forgotten altogether.
        "MinJobAge": "60" if options.accounting else "600",
        "ReturnToService": "2",
        "JobRequeue": "0",
        "SlurmctldTimeout": "30",
        "SlurmdTimeout": "30",
        "MessageTimeout": "10",
        "BatchStartTimeout": "10",
        "KillWait": "3",
        "SchedulerParameters": (
            "batch_sched_delay=0,sched_interval=1,sched_min_interval=0,"
            "bf_interval=1,bf_continue,max_array_tasks=50001"
        ),
        **_render_accounting(layout, options),
    }
    _replace(lines, options.settings)
    text = [f"{name}={value}" for name, value in lines.items()]
    return "\n".join([*text, *_render_nodes(layout), ""])


def render_gres_conf(layout: Layout) -> str:
    """Return the text of gres.conf: GPUs that are links to /dev/null.

    A count without files reports no GPU at all.
    """
    lines = ["AutoDetect=off"]
    for partition in PARTITIONS:
        if partition.gpus:
            device = layout.gpu_device(f"[0-{partition.gpus - 1}]")
            lines += [
                f"NodeName={node} Name=gpu Type={partition.name} File={device}"
                for node in partition.nodes
            ]
    return "\n".join([*lines, ""])


def render_mpi_conf(layout: Layout) -> str:
    """Return the text of mpi.conf: what PMIx leaves of steps that are killed stays in the folder.

    In /tmp it would keep the steps of another cluster, whose jobs have the same numbers, from
    starting.
    """
    return f"PMIxCliTmpDirBase={layout.folder / 'spool'}\n"


def render_cgroup_conf(layout: Layout) -> str:
    """Return the text of cgroup.conf for memory limits within the cluster's own hierarchies."""
    return (
        "CgroupPlugin=cgroup/v1\n"
        f"CgroupMountpoint={layout.cgroups}\n"
        "CgroupAutomount=no\n"
        "ConstrainRAMSpace=yes\n"
        "ConstrainSwapSpace=no\n"
    )


def render_slurmdbd_conf(layout: Layout) -> str:
    """Return the text of slurmdbd.conf; MariaDB's socket comes with MYSQL_UNIX_PORT."""
    # Not among the parameters that its manual knows, and heeded.
    one_address = "" if layout.everywhere else "CommunicationParameters=NoInAddrAny\n"
    return (
        f"DbdHost={layout.hostname}\n"
        f"DbdAddr={layout.address}\n"
        f"DbdPort={layout.ports['slurmdbd']}\n"
        f"{one_address}"
        f"SlurmUser={layout.user}\n"
        "AuthType=auth/munge\n"
        f"AuthInfo=socket={layout.munge_socket}\n"
        f"LogFile={layout.log('slurmdbd')}\n"
        f"PidFile={layout.folder / 'slurmdbd.pid'}\n"
        "StorageType=accounting_storage/mysql\n"
        "StorageHost=localhost\n"
        f"StorageUser={layout.user}\n"
        f"StorageLoc={DATABASE_NAME}\n"
        "CommitDelay=1\n"
    )


def render_commands(
    layout: Layout, options: ClusterOptions, programs: Mapping[str, Path]
) -> dict[str, list[str]]:
    """Return the command of each daemon, all of them in the foreground, in order of start."""
    folder = layout.folder
    commands = {
        "munged": [
            str(programs["munged"]),
            "--foreground",
            # The folder may be below one that others write to, as /tmp is.
            "--force",
            f"--key-file={layout.munge_key}",
            f"--socket={layout.munge_socket}",
            f"--pid-file={folder / 'munged.pid'}",
            f"--log-file={layout.log('munged')}",
            f"--seed-file={folder / 'munge.seed'}",
        ]
    }
    if options.accounting:
        commands["mariadbd"] = [
            str(programs["mariadbd"]),
            "--no-defaults",
            f"--user={layout.user}",
            f"--datadir={folder / 'mariadb'}",
            f"--socket={layout.database_socket}",
            f"--pid-file={folder / 'mariadbd.pid'}",
            # Whoever can reach the socket, in a folder that is closed to others, may do anything.
            "--skip-grant-tables",
            "--skip-networking",
            "--skip-log-bin",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=64M",
            "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0",
            "--performance-schema=OFF",
        ]
        commands["slurmdbd"] = [str(programs["slurmdbd"]), "-D"]
    commands["slurmctld"] = [str(programs["slurmctld"]), "-D"]
    for node in NODES:
        commands[f"slurmd.{node}"] = [str(programs["slurmd"]), "-D", "-N", node]
    return commands


def _render_limits(layout: Layout) -> dict[str, str]:
    plugin = "linuxproc" if layout.cgroups is None else "cgroup"
    return {
        "ProctrackType": f"proctrack/{plugin}",
        "TaskPlugin": "task/none" if layout.cgroups is None else "task/cgroup",
    }


def _render_accounting(layout: Layout, options: ClusterOptions) -> dict[str, str]:
    lines = {"AccountingStorageType": "accounting_storage/none"}
    if options.accounting:
        lines = {
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": layout.address,
            "AccountingStoragePort": str(layout.ports["slurmdbd"]),
            "AccountingStoragePass": str(layout.munge_socket),
            "AccountingStoreFlags": "job_comment",
        }
    if options.completion_log:
        lines |= {"JobCompType": "jobcomp/filetxt", "JobCompLoc": str(layout.completion_log)}
    return lines


def _render_nodes(layout: Layout) -> list[str]:
    lines = []
    for partition in PARTITIONS:
        shape = (
            f"CPUs={partition.cpus} Sockets=1 CoresPerSocket={partition.cpus} ThreadsPerCore=1 "
            f"RealMemory={partition.memory_mib}"
        )
        if partition.gpus:
            shape += f" Gres=gpu:{partition.name}:{partition.gpus}"
        lines += [
            f"NodeName={node} NodeHostname={layout.hostname} NodeAddr={layout.address} "
            f"Port={layout.ports[f'slurmd.{node}']} {shape} State=UNKNOWN"
            for node in partition.nodes
        ]
    for partition in PARTITIONS:
        default = " Default=YES" if partition is PARTITIONS[0] else ""
        lines.append(
            f"PartitionName={partition.name} Nodes={','.join(partition.nodes)}{default} "
            "MaxTime=1-00:00:00 DefaultTime=00:10:00 State=UP"
        )
    return lines


def _replace(lines: dict[str, str], settings: Mapping[str, str | None]) -> None:
    """Put settings in place of lines; Slurm does not tell upper from lower case in their names."""
    known = {name.casefold(): name for name in lines}
    for name, value in settings.items():
        if not name.isalnum() or (value is not None and not value.isprintable()):
            raise ConfigError(
                "not a setting of slurm.conf",
                where=name,
                got=repr(value),
                expected="a name, and a value of one line",
            )
        name = known.get(name.casefold(), name)
        if value is None:
            lines.pop(name, None)
        else:
            lines[name] = value
