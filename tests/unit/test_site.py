"""The site file: strict, and every error says which key, where, and what is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.config import parse_keep_s, parse_size_mib, parse_time_s, render_keep
from muster.errors import ConfigError, MissingInput
from muster.jobs.model import Caps, Resources
from muster.site import read_site, render_pools

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
[pools]
local = { backend = "local", slots = 3, max_memory = "2GiB", max_time = "1-00:00:00" }
[placement]
"traits.predict" = { pool = "local", cpus = 2, memory = "512MiB", time = "02:00:00" }
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_a_step_gets_what_the_file_says(tmp_path: Path) -> None:
    site = read_site(write(tmp_path, GOOD))
    placement, pool = site.placed("traits.predict")
    assert placement.resources == Resources(cpus=2, memory_mib=512, time_limit_s=7200)
    assert pool.caps == Caps(memory_mib=2048, time_limit_s=86400)
    assert render_pools(site)["local"]["slots"] == 3
    assert render_pools(site)["local"]["include_deferred"] is True


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("slots = 3", "slotz = 3, slots = 3", "unknown key; where: {path}; got: pools.local.slotz; "
         "expected: backend, max_memory, max_time, slots"),
        ("slots = 3", "slots = 0", "at least one slot"),
        ('backend = "local"', 'backend = "slurm"', "pools.local.backend"),
        ('backend = "local", ', "", "expected: pools.local.backend"),
        ('pool = "local"', 'pool = "lokal"', "pool 'lokal'; there are ['local']"),
        ('"traits.predict"', '"traits.predikt"', "unknown step 'traits.predikt'"),
        ('memory = "512MiB"', 'memory = "512"', "'512MiB', '190GiB'"),
        ('memory = "512MiB"', 'memory = "3GiB"', "asks for 3072 memory in MiB"),
        ('time = "02:00:00"', 'time = "2h"', "[days-]hours:minutes:seconds"),
        ("[pools]", "[retention]\nruns = 30\n[pools]", "'02:00:00', '30d'; or 'never', to keep"),
        ("[pools]", '[retention]\nbands = "0d"\n[pools]', "at least one second"),
        ("[pools]", '[retention]\nband = "1d"\n[pools]', "got: retention.band; expected: bands"),
        ("[pools]", "[pools", "not a TOML file"),
        ("[pools]", "[extra]\na = 1\n[pools]", "got: extra; expected: name, placement"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_site(path)
    message = str(caught.value)
    assert says.format(path=path) in message
    assert path in message
    assert "\n" not in message


def test_no_such_site() -> None:
    with pytest.raises(MissingInput, match="laptop"):
        read_site("nowhere")


def test_the_default_is_the_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSTER_SITE", raising=False)
    assert read_site().name == "laptop"


def test_what_nobody_needs_is_kept_for_a_month_unless_the_file_says_otherwise(
    tmp_path: Path,
) -> None:
    kept = read_site(write(tmp_path, GOOD)).retention
    assert (kept.runs, kept.bands) == (30 * 86400, 30 * 86400)
    told = GOOD + '[retention]\nruns = "7d"\nbands = "never"\n'
    kept = read_site(write(tmp_path, told)).retention
    assert (kept.runs, kept.bands) == (7 * 86400, None)
    assert kept.model_dump(mode="json") == {"runs": "7d", "bands": "never"}


@pytest.mark.parametrize("text", ["30d", "never", "02:00:00", "1-02:00:00"])
def test_how_long_something_is_kept_is_written_as_it_is_read(text: str) -> None:
    assert render_keep(parse_keep_s(text)) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:00:01", 1), ("02:00:00", 7200), ("1-00:00:00", 86400), ("2d", 172800)],
)
def test_times_are_slurms(text: str, seconds: int) -> None:
    assert parse_time_s(text) == seconds


@pytest.mark.parametrize(("text", "mib"), [("1MiB", 1), ("1.5GiB", 1536), ("1TiB", 2**20)])
def test_sizes_have_units(text: str, mib: int) -> None:
    assert parse_size_mib(text) == mib
