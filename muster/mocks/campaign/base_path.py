"""Whether a campaign's folder can lie where its file says.

A folder that is not there is made; what stands in its way on this machine is told before a run.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from muster import storage
from muster.config import ConfigProblem
from muster.mocks.campaign.problems import place_problems

if TYPE_CHECKING:
    from muster.mocks.campaign.config import Campaign
    from muster.mocks.campaign.problems import FileProblem

_IMPOSSIBLE = (errno.ENAMETOOLONG, errno.ELOOP)


def find_base_path_problems(campaign: Campaign) -> list[FileProblem]:
    """List what keeps a campaign's folder from being made, or written, on this machine."""
    base = storage.local_path(campaign.outputs.base_path)
    folder = storage.local_path(campaign.folder_uri)
    if base is None or folder is None:  # refused by the file's own model
        return []
    try:
        nearest = _find_nearest(folder)
    except OSError as error:
        message, nearest = f"no such folder can be made: {error.strerror}", folder
    else:
        message = _why_not(base, nearest)
    if not message:
        return []
    allowed = "a folder that is there and may be written, or can be made"
    problem = ConfigProblem(("outputs", "base_path"), "wrong", message, repr(str(base)), allowed)
    return place_problems([problem], campaign.document)


def describe_absence(campaign: Campaign) -> str | None:
    """Say that a base_path lies on no file system of this machine, as far as it shows."""
    base = storage.local_path(campaign.outputs.base_path)
    if base is None or (nearest := _find_nearest(base)) == base:
        return None
    if nearest == Path(base.anchor) or not os.access(nearest, os.W_OK | os.X_OK):
        return (
            f"outputs.base_path: {base} is not on this machine; where the campaign runs, it is "
            f"made if {nearest} may be written"
        )
    return None


def _why_not(base: Path, nearest: Path) -> str:
    if not nearest.is_dir():
        return f"{nearest} is no folder"
    # Of what is absent here the machine that makes it may write the folder above.
    is_there = nearest == base or base in nearest.parents
    if is_there and not os.access(nearest, os.W_OK | os.X_OK):
        return f"{nearest} may not be written"
    return ""


def _find_nearest(path: Path) -> Path:
    """Return a path, or the nearest above it that is there.

    Raises
    ------
    OSError
        When no file system can hold the path.
    """
    for place in (path, *path.parents):
        try:
            os.lstat(place)
        except OSError as error:
            if error.errno in _IMPOSSIBLE:
                raise
        else:
            return place
    return Path(path.anchor)
