"""Initializing a campaign: once, with all that makes it, in real git trees."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.mocks.campaign.code_version import read_code_version
from muster.mocks.campaign.config import read_campaign
from muster.mocks.campaign.init import (
    check_unchanged,
    describe_changes,
    find_campaign_file,
    initialize_campaign,
    list_versions,
    read_record,
)
from muster.mocks.campaign.provenance import read_provenance
from tests.unit.mocks.campaign.campaign_files import GOOD, change

if TYPE_CHECKING:
    from muster.mocks.campaign.config import Campaign
    from muster.mocks.campaign.provenance import CampaignRecord

REPOSITORY = Path(__file__).parents[4]


def git(folder: Path, *arguments: str) -> str:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
    }
    return subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    ).stdout.strip()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A git tree that tracks a package of our name."""
    folder = tmp_path / "code"
    (folder / "muster").mkdir(parents=True)
    (folder / "muster" / "__init__.py").write_text("")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def make(tmp_path: Path, *changes: tuple[str, str], name: str = "campaign.yaml") -> Campaign:
    path = tmp_path / name
    path.write_text(change(GOOD, ("/campaigns", str(tmp_path / "campaigns")), *changes))
    return read_campaign(path)


def files_below(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_record_says_all_that_makes_the_campaign(
    tmp_path: Path, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSTER_IMAGE", "docker:you/muster:1")
    campaign = make(tmp_path)
    before = datetime.now(UTC)
    record = initialize_campaign(campaign, code_folder=code)
    assert record.code.commit == git(code, "rev-parse", "HEAD")
    assert not record.code.is_dirty
    assert record.config_sha256 == campaign.config.sha256
    assert record.configuration == campaign.config.to_data()
    assert record.environment.container == "docker:you/muster:1"
    assert record.environment.packages["pydantic"]
    assert record.environment.python == ".".join(map(str, sys.version_info[:3]))
    assert before <= record.initialized_at <= datetime.now(UTC)
    assert record.descends_from is None
    folder = tmp_path / "campaigns" / "1.0_small_boxes"
    assert read_provenance(str(folder / "metadata" / "provenance.json")) == record
    assert read_record(campaign.folder) == record
    for name in ("metadata", "catalogs", "logs", "qa/validation_reports", "qa/summary_plots"):
        assert (folder / name).is_dir()


def test_the_frozen_file_is_the_same_campaign_wherever_it_is_read(
    tmp_path: Path, code: Path
) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text(change(GOOD, ("/campaigns", "out")))
    campaign = read_campaign(path)
    initialize_campaign(campaign, code_folder=code)
    folder = tmp_path / "out" / "1.0_small_boxes"
    frozen = read_campaign(find_campaign_file(folder))
    assert frozen.config == campaign.config
    assert frozen.folder_uri == str(folder)
    assert find_campaign_file(path) == path
    with pytest.raises(MissingInput, match="no campaign's"):
        find_campaign_file(tmp_path)
    with pytest.raises(MissingInput, match="no such campaign"):
        find_campaign_file(tmp_path / "nothing")


def test_a_changed_tree_is_refused_and_nothing_is_left(tmp_path: Path, code: Path) -> None:
    campaign = make(tmp_path)
    (code / "muster" / "new.py").write_text("")
    with pytest.raises(ConfigError, match=r"changed since its commit.*muster/new\.py.*commit the"):
        initialize_campaign(campaign, code_folder=code)
    assert not (
        tmp_path / "campaigns" / "1.0_small_boxes" / "metadata" / "provenance.json"
    ).exists()
    (code / "muster" / "new.py").unlink()
    (code / "muster" / "__init__.py").write_text("changed")
    with pytest.raises(ConfigError, match="changed since its commit"):
        initialize_campaign(campaign, code_folder=code)
    record = initialize_campaign(campaign, code_folder=code, allow_dirty=True)
    assert record.code.changed == (" M muster/__init__.py",)


def test_code_that_is_no_git_tree_has_its_version(tmp_path: Path) -> None:
    found = read_code_version(tmp_path)
    assert (found.commit, found.changed) == (None, ())
    assert found.version == "0.1.0"


def test_an_environment_in_a_tree_of_something_else_is_no_commit_of_ours(
    tmp_path: Path, code: Path
) -> None:
    packages = code / "venv"
    (packages / "muster").mkdir(parents=True)
    (packages / "muster" / "__init__.py").write_text("")
    assert read_code_version(packages).commit is None


def test_a_tree_that_git_cannot_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere")
    with pytest.raises(ConfigError, match="git cannot tell the version"):
        read_code_version(tmp_path)


def test_the_same_campaign_again_changes_nothing(tmp_path: Path, code: Path) -> None:
    record = initialize_campaign(make(tmp_path), code_folder=code)
    before = files_below(tmp_path / "campaigns")
    (code / "muster" / "__init__.py").write_text("changed")
    commented = make(tmp_path, ("science:", "# a comment\nscience:"), name="other.yaml")
    assert initialize_campaign(commented, code_folder=code) == record
    assert files_below(tmp_path / "campaigns") == before
    change_said = record.describe_code_change(read_code_version(code))
    assert change_said is not None
    assert change_said.endswith("with changes")


def test_another_configuration_is_refused_with_what_changed(tmp_path: Path, code: Path) -> None:
    initialize_campaign(make(tmp_path), code_folder=code)
    before = files_below(tmp_path / "campaigns")
    for changes, says in (
        ([("[1.1, 0.5]", "[1.1, 0.6]")], r"science\.redshifts: \[1\.1, 0\.5\] → \[1\.1, 0\.6\]"),
        ([("hod", "diffsky")], "science.galaxy_model: 'hod' → 'diffsky'"),
        ([("realizations: 10", "realizations: 9")], "science.realizations.count: 10 → 9"),
        (
            [("realizations: 10", "realizations: 11"), ("batch_size: 4", "batch_size: 5")],
            "realizations.count: 10 → 11; execution.batch_size: 4 → 5",
        ),
    ):
        changed = make(tmp_path, *changes)
        with pytest.raises(ConfigError, match=says):
            initialize_campaign(changed, code_folder=code)
        with pytest.raises(ConfigError, match=f"where: {changed.where}.*{says}"):
            check_unchanged(changed)
    for same in ((), ("realizations: 10", "realizations: 11")):
        check_unchanged(make(tmp_path, *([same] if same else [])))
    assert files_below(tmp_path / "campaigns") == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, code: Path) -> None:
    campaign = make(tmp_path)
    root = Path(campaign.folder_uri)
    (root / "metadata" / ".init.lock").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(InvalidInput, match=r"cannot be made or written.*do: make it") as told:
            initialize_campaign(campaign, code_folder=code)
        assert f"where: {root};" in str(told.value)
        shutil.rmtree(root, ignore_errors=True)
        root.touch()


def test_further_realizations_join(tmp_path: Path, code: Path) -> None:
    first = initialize_campaign(make(tmp_path), code_folder=code)
    (code / "more").write_text("")
    git(code, "add", ".")
    git(code, "commit", "--quiet", "-m", "second")
    more = make(tmp_path, ("realizations: 10", "realizations: {count: 10, include: [40]}"))
    record = initialize_campaign(more, code_folder=code)
    assert record.config_sha256 == first.config_sha256
    assert record.initialized_at == first.initialized_at
    assert [e.realizations["include"] for e in record.extensions] == [[40]]
    assert record.current_sha256 == more.config.sha256
    assert record.extensions[0].code.commit == git(code, "rev-parse", "HEAD")
    assert record.code != record.extensions[0].code
    assert read_record(more.folder) == record
    assert initialize_campaign(more, code_folder=code) == record
    grown = make(tmp_path, ("realizations: 10", "realizations: {count: 50, include: [40]}"))
    assert len(initialize_campaign(grown, code_folder=code).extensions) == 2
    with pytest.raises(ConfigError, match="include"):
        initialize_campaign(make(tmp_path), code_folder=code)


def test_a_new_version_says_what_it_descends_from(tmp_path: Path, code: Path) -> None:
    initialize_campaign(make(tmp_path), code_folder=code)
    newer = make(tmp_path, ('"1.0"', '"1.1"'), ("hod", "diffsky"))
    with pytest.raises(ConfigError, match=r"other versions.*1\.0_small_boxes.*descends from"):
        initialize_campaign(newer, code_folder=code)
    with pytest.raises(ConfigError, match=r"could descend.*got: 0\.9; expected: 1\.0_small_boxes"):
        initialize_campaign(newer, code_folder=code, descends_from="0.9")
    record = initialize_campaign(newer, code_folder=code, descends_from="1.0")
    assert record.descends_from == "1.0_small_boxes"
    base = str(tmp_path / "campaigns")
    assert list_versions(base, "Small boxes") == ["1.0_small_boxes", "1.1_small_boxes"]
    assert list_versions(base, "Small") == []
    other = make(tmp_path, ("Small boxes", "boxes"))
    assert initialize_campaign(other, code_folder=code).descends_from is None


def test_a_tag_is_made_of_the_commit(tmp_path: Path, code: Path) -> None:
    record = initialize_campaign(make(tmp_path), code_folder=code, git_tag="mocks/1.0")
    assert record.git_tag == "mocks/1.0"
    assert git(code, "rev-parse", "mocks/1.0^{commit}") == record.code.commit
    assert git(code, "cat-file", "-t", "mocks/1.0") == "tag"
    other = make(tmp_path, ("Small boxes", "other"))
    initialize_campaign(other, code_folder=code, git_tag="mocks/1.0")  # at the same commit
    git(code, "commit", "--quiet", "--allow-empty", "-m", "second")
    third = make(tmp_path, ("Small boxes", "third"))
    with pytest.raises(ConfigError, match="the tag names another commit"):
        initialize_campaign(third, code_folder=code, git_tag="mocks/1.0")
    for name in ("a b", "-d", "a..b", "a/", "a.lock", "--delete"):
        with pytest.raises(ConfigError, match="no name of a git tag"):
            initialize_campaign(third, code_folder=code, git_tag=name)
    (code / "muster" / "__init__.py").write_text("changed")
    with pytest.raises(ConfigError, match="changed tree"):
        initialize_campaign(third, code_folder=code, git_tag="new", allow_dirty=True)


def test_a_configuration_that_was_changed_by_hand_is_found(tmp_path: Path, code: Path) -> None:
    campaign = make(tmp_path)
    with pytest.raises(MissingInput, match="not initialized"):
        read_record(campaign.folder)
    initialize_campaign(campaign, code_folder=code)
    path = tmp_path / "campaigns" / "1.0_small_boxes" / "metadata" / "campaign_config.yaml"
    path.write_text(change(path.read_text(), ("seed: 0", "seed: 1")))
    with pytest.raises(InvalidInput, match="not that which the campaign was initialized with"):
        read_record(campaign.folder)
    with pytest.raises(InvalidInput, match="not that which the campaign was initialized with"):
        initialize_campaign(campaign, code_folder=code)
    path.unlink()
    initialize_campaign(campaign, code_folder=code)
    read_record(campaign.folder)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "x": 1}', "\xff", "[" * 10_000]
)
def test_a_provenance_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "provenance.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InvalidInput, match=r"provenance\.json"):
        read_provenance(str(path))


def test_catalogues_without_a_record_are_not_taken_over(tmp_path: Path, code: Path) -> None:
    campaign = make(tmp_path)
    (tmp_path / "campaigns" / "1.0_small_boxes" / "catalogs" / "r0000").mkdir(parents=True)
    with pytest.raises(ConfigError, match="catalogues, and no record"):
        initialize_campaign(campaign, code_folder=code)


def test_changes_are_listed_by_key() -> None:
    old = {"a": 1, "b": {"c": [1, 2], "d": None}}
    new = {"a": 1, "b": {"c": [1, 3], "e": "x"}}
    assert describe_changes(old, new) == ["b.c: [1, 2] → [1, 3]", "b.e: null → 'x'"]


CHILD = """
import os, signal, sys
from pathlib import Path
import muster.mocks.campaign.init as init
from muster.mocks.campaign.config import read_campaign

def die(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)

campaign, code, victim, tag = sys.argv[1:]
if victim:
    setattr(init, victim, die)
init.initialize_campaign(
    read_campaign(Path(campaign)), code_folder=Path(code), git_tag=tag or None
)
"""


def start(campaign: Campaign, code: Path, victim: str = "", tag: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, campaign.where, str(code), victim, tag],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["make_tag", "make_record", "_publish_once", "_write_config"])
def test_an_initialization_that_was_killed_is_completed_by_the_next(
    tmp_path: Path, code: Path, victim: str
) -> None:
    campaign = make(tmp_path)
    killed = start(campaign, code, victim, "mocks/1.0")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    record = initialize_campaign(campaign, code_folder=code, git_tag="mocks/1.0")
    assert read_record(campaign.folder) == record
    assert git(code, "tag") == "mocks/1.0"
    names = set(files_below(tmp_path / "campaigns" / "1.0_small_boxes"))
    assert names == {
        "metadata/campaign_config.yaml",
        "metadata/provenance.json",
        "metadata/.init.lock",
    }


@pytest.mark.slow
def test_of_several_initializations_at_a_time_one_wins(tmp_path: Path, code: Path) -> None:
    campaigns = [
        make(tmp_path, ("batch_size: 4", f"batch_size: {n}"), name=f"{n}.yaml") for n in (5, 6, 7)
    ]
    running = [start(campaign, code) for campaign in campaigns]
    told = [child.communicate()[1] for child in running]
    ends = [child.returncode for child in running]
    assert ends.count(0) == 1, told
    winner: CampaignRecord = read_record(campaigns[0].folder)
    assert winner.configuration["execution"]["batch_size"] == (5, 6, 7)[ends.index(0)]
    for text, end in zip(told, ends, strict=True):
        assert end == 0 or "was initialized with another configuration" in text
    assert json.loads(winner.to_json())["format"] == 1
