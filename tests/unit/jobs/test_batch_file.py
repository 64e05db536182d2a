"""The file of a batch: what is none is refused in one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from muster.errors import InvalidInput
from muster.model.fence import read_batch_file
from muster.model.slurm_target import SlurmTarget
from tests.batches import make_batch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "said",
    [
        {"backend": None},
        {"backend": []},
        {"backend": {}},
        {"backend": "nomad"},
        {"slurm": None},
        {"slurm": []},
        {"slurm": False},
        {"slurm": {"partitions": "x"}},
        {"backend": "local"},
        {"target": {}},
    ],
    ids=str,
)
def test_a_batch_of_no_backend_is_refused(tmp_path: Path, said: dict[str, Any]) -> None:
    batch = make_batch(tmp_path, [{}], slurm=SlurmTarget(partition="normal"))
    path = tmp_path / "batch.json"
    path.write_text(batch.to_json())
    assert read_batch_file(str(path)) == batch
    path.write_text(json.dumps({**json.loads(batch.to_json()), **said}))
    with pytest.raises(InvalidInput, match=f"not a batch file; where: {path}; got: "):
        read_batch_file(str(path))
