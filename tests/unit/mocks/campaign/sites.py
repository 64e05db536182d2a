"""A site with Slurm pools and job types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.site import Site, read_site
from tests.unit.mocks.campaign.campaign_files import change

if TYPE_CHECKING:
    from pathlib import Path

SITE = """\
work = "/shared/work"
[pools]
here = { backend = "local", slots = 2 }
[pools.cpu]
backend = "slurm"
slots = 8
account = "m1"
max_memory = "100GiB"
max_time = "1-00:00:00"
[placement]
"mocks.populate" = { pool = "here", memory = "4GiB", time = "01:00:00" }
[job_types]
cpu = { pool = "cpu", cpus = 16, memory = "60GiB", time = "03:00:00" }
local = { pool = "here" }
"""


def make_site(folder: Path, *changes: tuple[str, str]) -> Site:
    """Read the site, with changes of its text."""
    path = folder / "centre.toml"
    path.write_text(change(SITE, *changes))
    return read_site(str(path))
