"""What a run would submit to Kubernetes and elsewhere, with its cost, and nothing of it done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from muster.cli.dry_run import print_dry_run
from muster.cli.workflow_run import choose_site
from muster.errors import ConfigError
from muster.jobs.planning.workflow import load_workflow
from muster.site import read_site
from muster.store import runs
from tests.batches import add_steps_to_path

if TYPE_CHECKING:
    from pathlib import Path

    from muster.jobs.planning.workflow import Workflow
    from muster.store.database import Database

SITE = """
work = "s3://muster/work"
[kubernetes.gke.defaults]
image = "example.org/compute:1"
env_from = [{ secret = "s3" }]
[pools]
pods = { backend = "kubernetes", slots = 4 }
gpus = { backend = "kubernetes", slots = 2, gpu = "nvidia.com/gpu" }
[placement]
"census.inspect" = { pool = "pods" }
"census.count" = { pool = "pods", cpus = 2, memory = "1GiB", time = "01:00:00" }
"census.check" = { pool = "gpus", gpus = 1, memory = "1GiB", time = "00:30:00" }
"census.total" = { pool = "pods", time = "01:00:00" }
"""
LOCAL = '[pools]\nlocal = { backend = "local", slots = 1 }\n[placement]\n' + "".join(
    f'"census.{step}" = {{ pool = "local" }}\n' for step in ("inspect", "count", "check", "total")
)


@pytest.fixture
def census(monkeypatch: pytest.MonkeyPatch) -> Workflow:
    add_steps_to_path(monkeypatch)
    return load_workflow("census")


@pytest.fixture
def params(tmp_path: Path) -> dict[str, Any]:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("some words")
    texts = [str(tmp_path / f"{name}.txt") for name in ("a", "b")]
    return {"texts": texts, "folder": str(tmp_path / "counts")}


def write(folder: Path, text: str) -> str:
    path = folder / "site.toml"
    path.write_text(text)
    return str(path)


def test_the_manifests_of_a_run_are_printed_with_their_cost(
    db: Database, census: Workflow, params: dict[str, Any], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    site = choose_site(write(tmp_path, SITE), "kubernetes", census)
    print_dry_run(db, site, census, params)
    text = capsys.readouterr().out
    jobs = list(yaml.safe_load_all(text))
    assert len(jobs) == text.count("# == ") == 5
    for job in jobs:
        kubernetes_validate.validate(job, "1.36", strict=True)
        assert job["spec"]["completions"] == 1
    steps = [job["metadata"]["labels"]["muster.dev/step"] for job in jobs]
    assert sorted(steps) == [*["census.check"] * 2, *["census.count"] * 2, "census.total"]
    assert "# 5 elements; at most 6 CPU-hours and 1 GPU-hours, when each is tried once" in text
    assert runs.list_runs(db, 10) == []


def test_a_site_that_computes_elsewhere_is_refused(census: Workflow, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"computes elsewhere.*backend = 'kubernetes'"):
        choose_site(write(tmp_path, LOCAL), "kubernetes", census)
    site = read_site(write(tmp_path, SITE))
    assert choose_site(str(tmp_path / "site.toml"), None, census) == site
