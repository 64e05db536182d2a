"""That the daemons are told exactly what is written here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from minislurm.config import (
    ClusterOptions,
    Layout,
    daemon_names,
    render_cgroup_conf,
    render_commands,
    render_gres_conf,
    render_slurm_conf,
    render_slurmdbd_conf,
)
from minislurm.programs import find_programs
from muster.errors import ConfigError, MissingInput

LAYOUT = Layout(
    folder=Path("/run/c"),
    hostname="box",
    user="ada",
    ports={
        "slurmdbd": 1000,
        "slurmctld": 1001,
        "slurmd.cpu1": 1002,
        "slurmd.cpu2": 1003,
        "slurmd.gpu1": 1004,
        "slurmd.gpu2": 1005,
    },
)

SLURM_CONF = """\
ClusterName=muster
SlurmctldHost=box(127.0.0.1)
SlurmctldPort=1001
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=ada
SlurmdUser=ada
AuthType=auth/munge
AuthInfo=socket=/run/c/munge.socket
CredType=cred/munge
StateSaveLocation=/run/c/state
SlurmdSpoolDir=/run/c/spool/%n
SlurmctldPidFile=/run/c/slurmctld.pid
SlurmdPidFile=/run/c/slurmd.%n.pid
SlurmctldLogFile=/run/c/logs/slurmctld.log
SlurmdLogFile=/run/c/logs/slurmd.%n.log
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
DefMemPerCPU=1000
MaxJobCount=200000
MaxArraySize=50001
MinJobAge=600
ReturnToService=2
JobRequeue=0
SlurmctldTimeout=30
SlurmdTimeout=30
MessageTimeout=10
BatchStartTimeout=10
KillWait=3
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,\
bf_interval=1,bf_continue,max_array_tasks=50001
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=/run/c/jobcomp.log
NodeName=cpu1 NodeHostname=box NodeAddr=127.0.0.1 Port=1002 \
CPUs=48 Sockets=1 CoresPerSocket=48 ThreadsPerCore=1 RealMemory=190000 State=UNKNOWN
NodeName=cpu2 NodeHostname=box NodeAddr=127.0.0.1 Port=1003 \
CPUs=48 Sockets=1 CoresPerSocket=48 ThreadsPerCore=1 RealMemory=190000 State=UNKNOWN
NodeName=gpu1 NodeHostname=box NodeAddr=127.0.0.1 Port=1004 \
CPUs=32 Sockets=1 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=256000 Gres=gpu:l40s:4 State=UNKNOWN
NodeName=gpu2 NodeHostname=box NodeAddr=127.0.0.1 Port=1005 \
CPUs=32 Sockets=1 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=256000 Gres=gpu:l40s:4 State=UNKNOWN
PartitionName=genoa Nodes=cpu1,cpu2 Default=YES MaxTime=1-00:00:00 DefaultTime=00:10:00 State=UP
PartitionName=l40s Nodes=gpu1,gpu2 MaxTime=1-00:00:00 DefaultTime=00:10:00 State=UP
"""


def changed_lines(layout: Layout = LAYOUT, **options: object) -> set[str]:
    """Return the lines of slurm.conf that options add or change."""
    text = render_slurm_conf(layout, ClusterOptions(**options))
    return set(text.splitlines()) - set(SLURM_CONF.splitlines())


def test_slurm_conf():
    assert render_slurm_conf(LAYOUT, ClusterOptions()) == SLURM_CONF


def test_accounting_adds_its_database_and_remembers_less():
    assert changed_lines(accounting=True) == {
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        "AccountingStoragePort=1000",
        "AccountingStoragePass=/run/c/munge.socket",
        "AccountingStoreFlags=job_comment",
        "MinJobAge=60",
    }
    assert daemon_names(accounting=True)[:4] == ("munged", "mariadbd", "slurmdbd", "slurmctld")


def test_memory_limits_take_cgroups():
    layout = replace(LAYOUT, cgroups=Path("/run/c/cgroup"))
    assert changed_lines(layout) == {"ProctrackType=proctrack/cgroup", "TaskPlugin=task/cgroup"}
    assert render_cgroup_conf(layout) == (
        "CgroupPlugin=cgroup/v1\n"
        "CgroupMountpoint=/run/c/cgroup\n"
        "CgroupAutomount=no\n"
        "ConstrainRAMSpace=yes\n"
        "ConstrainSwapSpace=no\n"
    )


def test_settings_replace_lines_add_some_and_take_some_away():
    settings = {"slurmdtimeout": "7", "EnforcePartLimits": "ALL", "ReturnToService": None}
    assert changed_lines(settings=settings) == {"SlurmdTimeout=7", "EnforcePartLimits=ALL"}
    text = render_slurm_conf(LAYOUT, ClusterOptions(settings=settings, completion_log=False))
    assert "ReturnToService" not in text
    assert "JobComp" not in text
    # Nodes and partitions come last, after everything that they are read with.
    assert text.index("EnforcePartLimits") < text.index("NodeName=cpu1")


@pytest.mark.parametrize(
    "setting", [("KillWait", "3\nSlurmUser=root"), ("Kill Wait", "3"), ("A=B", "1")]
)
def test_a_setting_cannot_be_two_lines(setting):
    with pytest.raises(ConfigError, match=r"not a setting of slurm\.conf"):
        render_slurm_conf(LAYOUT, ClusterOptions(settings=dict([setting])))


def test_a_host_name_that_is_not_on_loopback_needs_all_addresses():
    everywhere = replace(LAYOUT, everywhere=True)
    assert "CommunicationParameters" not in render_slurm_conf(everywhere, ClusterOptions())
    assert "CommunicationParameters" not in render_slurmdbd_conf(everywhere)


def test_gres_conf():
    assert render_gres_conf(LAYOUT) == (
        "AutoDetect=off\n"
        "NodeName=gpu1 Name=gpu Type=l40s File=/run/c/dev/nvidia[0-3]\n"
        "NodeName=gpu2 Name=gpu Type=l40s File=/run/c/dev/nvidia[0-3]\n"
    )


def test_slurmdbd_conf():
    assert render_slurmdbd_conf(LAYOUT) == (
        "DbdHost=box\n"
        "DbdAddr=127.0.0.1\n"
        "DbdPort=1000\n"
        "CommunicationParameters=NoInAddrAny\n"
        "SlurmUser=ada\n"
        "AuthType=auth/munge\n"
        "AuthInfo=socket=/run/c/munge.socket\n"
        "LogFile=/run/c/logs/slurmdbd.log\n"
        "PidFile=/run/c/slurmdbd.pid\n"
        "StorageType=accounting_storage/mysql\n"
        "StorageHost=localhost\n"
        "StorageUser=ada\n"
        "StorageLoc=slurm_acct_db\n"
        "CommitDelay=1\n"
    )


def test_every_daemon_has_a_command_in_the_foreground():
    names = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd")
    programs = {name: Path("/usr/sbin") / name for name in names}
    commands = render_commands(LAYOUT, ClusterOptions(accounting=True), programs)
    assert tuple(commands) == daemon_names(accounting=True)
    assert commands["munged"][:3] == ["/usr/sbin/munged", "--foreground", "--force"]
    assert commands["slurmd.gpu2"] == ["/usr/sbin/slurmd", "-D", "-N", "gpu2"]
    assert "--skip-networking" in commands["mariadbd"]
    assert tuple(render_commands(LAYOUT, ClusterOptions(), programs)) == daemon_names(
        accounting=False
    )


def test_what_is_missing_is_told_with_the_packages_that_have_it(tmp_path):
    with pytest.raises(MissingInput, match=r"slurmctld slurmd slurm-client munge$"):
        find_programs(str(tmp_path))
    for name in ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "sinfo"):
        (tmp_path / name).touch(mode=0o700)
    assert find_programs(str(tmp_path))["slurmd"] == tmp_path / "slurmd"
    with pytest.raises(MissingInput, match=r"install --no-install-recommends slurmdbd slurm-wlm-"):
        find_programs(str(tmp_path), accounting=True)
