"""What a cluster allows and keeps, from what scontrol and sacctmgr print of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.errors import SoftwareError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ASSOCIATION = ("account", "maxsubmitjobs", "maxjobs", "grpsubmitjobs")
ASSOCIATION_FORMAT = ",".join(_ASSOCIATION)
ASSOCIATION_ARGUMENTS = ("-n", "-P", "show", "assoc", f"format={ASSOCIATION_FORMAT}")
"""Of sacctmgr, for :func:`parse_associations`; with ``where user=USER`` behind them."""

_SETTING = re.compile(r"([A-Za-z_]\w*(?:\[\d+\])?)\s*= ?(.*)")


@dataclass(frozen=True)
class Association:
    """What the accounting allows one user in one account; None is no limit of its own."""

    account: str
    max_submit_jobs: int | None = None
    max_jobs: int | None = None
    group_submit_jobs: int | None = None


@dataclass(frozen=True)
class Limits:
    """What a cluster allows and keeps.

    Attributes
    ----------
    cluster, version, controller : str
        Name of the cluster, version of Slurm, host of slurmctld.
    max_array_size : int
        One more than the highest index of an array's task.
    max_job_count : int
        How many jobs, tasks of arrays among them, the controller holds of all users together.
    max_submit_jobs : int or None
        How many the user may have waiting and running; None where no association says. A qos may
        allow less.
    accounting : bool
        Whether sacct knows what the queue has forgotten.
    job_completions : str or None
        File of ended jobs on the controller's host, where it keeps one.
    min_job_age_s : int
        How long the queue shows a job after its end, in seconds.
    kill_wait_s : int
        Seconds between SIGTERM and SIGKILL, at the time limit and when a job is cancelled.
    """

    cluster: str
    version: str
    controller: str
    max_array_size: int
    max_job_count: int
    max_submit_jobs: int | None
    accounting: bool
    job_completions: str | None
    min_job_age_s: int
    kill_wait_s: int


def parse_config(text: str) -> dict[str, str]:
    """Parse what ``scontrol show config`` prints: setting → value, as written."""
    matches = (_SETTING.fullmatch(line.strip()) for line in text.splitlines())
    return {match[1]: match[2].strip() for match in matches if match}


def parse_config_time(text: str) -> int | None:
    """Parse the controller's clock out of ``scontrol show config``, in seconds since 1970.

    None where it was not asked for as a number (SLURM_TIME_FORMAT=%s).
    """
    match = re.match(r"Configuration data as of (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else None


def parse_associations(text: str) -> list[Association]:
    """Parse what ``sacctmgr`` with ASSOCIATION_ARGUMENTS prints.

    Raises
    ------
    SoftwareError
        When a line is not as it should be.
    """
    associations: list[Association] = []
    for line in text.splitlines():
        account, *limits = line.split("|")
        if len(limits) != len(_ASSOCIATION) - 1 or not all(n.isdigit() for n in limits if n):
            raise SoftwareError("cannot understand Slurm", where="sacctmgr", got=repr(line)[:500])
        associations.append(Association(account, *(int(n) if n else None for n in limits)))
    return associations


def parse_limits(config_text: str, associations_text: str, account: str | None = None) -> Limits:
    """Say what a cluster allows a user.

    Parameters
    ----------
    config_text : str
        What ``scontrol show config`` prints.
    associations_text : str
        What ``sacctmgr`` with ASSOCIATION_ARGUMENTS prints; empty where there is no accounting.
    account : str or None
        The account that is charged; where none is named, the least of all that the user has.

    Raises
    ------
    SoftwareError
        When one of them is not as it should be.
    """
    config = parse_config(config_text)
    keeps_file = _setting(config, "JobCompType") == "jobcomp/filetxt"
    associations = parse_associations(associations_text)
    allowed = [
        limit
        for association in associations
        if account in (None, association.account)
        for limit in (association.max_submit_jobs, association.group_submit_jobs)
        if limit is not None
    ]
    return Limits(
        cluster=_setting(config, "ClusterName"),
        version=_setting(config, "SLURM_VERSION"),
        controller=_setting(config, "SlurmctldHost[0]").partition("(")[0],
        max_array_size=_number(config, "MaxArraySize"),
        max_job_count=_number(config, "MaxJobCount"),
        max_submit_jobs=min(allowed, default=None),
        accounting=_setting(config, "AccountingStorageType") == "accounting_storage/slurmdbd",
        job_completions=_setting(config, "JobCompLoc") if keeps_file else None,
        min_job_age_s=_number(config, "MinJobAge"),
        kill_wait_s=_number(config, "KillWait"),
    )


def _setting(config: Mapping[str, str], name: str) -> str:
    if name not in config:
        raise SoftwareError(
            "cannot understand Slurm", where="scontrol show config", expected=f"a line of {name}"
        )
    return config[name]


def _number(config: Mapping[str, str], name: str) -> int:
    match = re.match(r"\d+", _setting(config, name))
    if match is None:
        raise SoftwareError(
            "cannot understand Slurm",
            where=f"scontrol show config, {name}",
            got=repr(config[name]),
            expected="a number",
        )
    return int(match[0])
