"""Campaign files to start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.mocks.campaign.config import Campaign, read_campaign

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
campaign:
  name: Small boxes
  version: "1.0"
science:
  simulation_suite: synthetic
  box: {box_size_mpch: 50}
  realizations: 10
  redshifts: [1.1, 0.5]
  galaxy_model: hod
execution:
  batch_size: 4
resources:
  job_type: cpu
outputs:
  base_path: /campaigns
"""

PLAN = """\
campaign:
  name: "covariance_mocks"
  version: "1.0"
  description: "2,000 realizations at 20 redshifts"
science:
  realizations: 2000
  snapshots: 20
  redshifts: [1.1, 1.05, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65,
              0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15]
  galaxy_model: "rgrspit_diffsky_v1"
  simulation_suite: "AbacusSummit_small"
execution:
  batch_size: 100
  max_retries: 3
  retry_backoff: exponential
  timeout_hours: 2
resources:
  job_type: gpu_intensive
  memory_requirement: high
  account: m4943
outputs:
  base_path: "/pscratch/campaigns"
  naming_scheme: "mock_{cosmology}_{phase}_{redshift}"
  compression: gzip
  metadata_format: json
"""
"""The original plan's file."""


def change(text: str, *changes: tuple[str, str]) -> str:
    """Replace what must be there, once each."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def write_campaign(folder: Path, *changes: tuple[str, str], text: str = GOOD) -> Path:
    """Write a changed campaign file."""
    path = folder / "campaign.yaml"
    path.write_text(change(text, *changes))
    return path


def make_campaign(folder: Path, *changes: tuple[str, str], text: str = GOOD) -> Campaign:
    """Read a changed campaign file."""
    return read_campaign(write_campaign(folder, *changes, text=text))
