"""What a cluster allows, from what a real one prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.backends.slurm.limits import (
    ASSOCIATION_FORMAT,
    Association,
    Limits,
    parse_associations,
    parse_config,
    parse_limits,
)
from muster.errors import SoftwareError

CONFIG = (Path(__file__).parent / "samples" / "config.txt").read_text(encoding="utf-8")


def test_the_configuration_as_slurm_prints_it() -> None:
    config = parse_config(CONFIG)
    assert config["MaxArraySize"] == "50001"
    assert config["SlurmctldHost[0]"] == "head1(10.0.0.1)"
    assert config["AccountingStorageEnforce"] == "associations,limits,qos"
    assert config["X11Parameters"] == "(null)"


def test_limits_are_what_the_cluster_says() -> None:
    assert parse_limits(CONFIG, "bio|60|40|55\n") == Limits(
        cluster="mini",
        version="22.05.8",
        controller="head1",
        max_array_size=50001,
        max_job_count=200000,
        max_submit_jobs=55,
        accounting=True,
        job_completions="/var/lib/slurm/jobcomp.log",
        min_job_age_s=600,
        kill_wait_s=3,
    )


@pytest.mark.parametrize(
    ("account", "expected"), [("bio", 55), ("maps", 9), ("free", None), ("none", None), (None, 9)]
)
def test_the_account_decides_how_much_may_wait(account: str | None, expected: int | None) -> None:
    text = "bio|60|40|55\nmaps|9|40|\nfree|||\n"
    assert parse_limits(CONFIG, text, account).max_submit_jobs == expected


def test_a_cluster_without_accounting_or_a_file_of_ended_jobs() -> None:
    bare = CONFIG.replace("accounting_storage/slurmdbd", "accounting_storage/none")
    limits = parse_limits(bare.replace("jobcomp/filetxt", "jobcomp/none"), "")
    assert not limits.accounting
    assert limits.job_completions is None
    assert limits.max_submit_jobs is None


def test_associations_have_what_they_are_asked_for() -> None:
    assert parse_associations("bio|60|40|55\nroot|||\n") == [
        Association("bio", 60, 40, 55),
        Association("root"),
    ]
    assert ASSOCIATION_FORMAT.count(",") == "bio|60|40|55".count("|")


@pytest.mark.parametrize("text", ["sacctmgr: error: x\n", "bio|60|40\n", "bio|60|forty|55\n", "\n"])
def test_what_is_no_association_is_an_error(text: str) -> None:
    with pytest.raises(SoftwareError, match="sacctmgr"):
        parse_associations(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a line of "),
        (CONFIG.replace("MaxArraySize", "MaxArrayLength"), "a line of MaxArraySize"),
        (CONFIG.replace("= 50001", "= many"), "MaxArraySize; got: 'many'"),
    ],
)
def test_a_configuration_without_its_limits_is_an_error(text: str, says: str) -> None:
    with pytest.raises(SoftwareError, match=says):
        parse_limits(text, "")
