"""The report of a campaign: its counts and failures, what QA found, and whatever lies there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import matplotlib.image
import numpy as np
import pytest
import yaml

from muster.mocks import report
from muster.mocks.qa.statistics_file import write_statistics
from muster.mocks.qa.steps import check_ensemble
from muster.mocks.report import (
    POPULATE,
    list_classes,
    read_campaign_of,
    render_campaign,
)
from muster.model.outcome import Outcome
from muster.report.read import ElementStory, RunStory
from muster.store.records import RunState
from tests.documents import Document, parse_document
from tests.stories import BEGAN, HOSTILE, make_attempt, make_run
from tests.unit.mocks.campaign.campaign_files import GOOD, change
from tests.unit.mocks.qa.made_statistics import make_row, write_campaign

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SPINE_PX = round(0.65 * 110)
"""Where the y axis of a plot of the ensemble is; its ticks are left of it."""

NAMES = [f"r{n:04d}_z0.500" for n in range(10)]


def populate(name: str, state: str, why: str | None = None) -> ElementStory:
    attempts = (make_attempt(POPULATE, name, 1, Outcome.SUCCEEDED),) if state == "succeeded" else ()
    return ElementStory(POPULATE, "batch_0000", name, state, "it is not there", why, attempts)


def make_story(folder: Path, elements: Sequence[ElementStory]) -> RunStory:
    text = change(GOOD, ("/campaigns", str(folder)))
    run = make_run(
        RunState.FAILED,
        id="mock_campaign.manual__1",
        workflow="mock_campaign",
        params={"definition": yaml.safe_load(text), "slice": 3},
        facts={"campaign": "1.0_small_boxes", "bands": []},
        message="7 of 10 succeeded",
    )
    steps = (POPULATE, "mocks.collect", "mocks.qa", "mocks.manifest")
    return RunStory(run, steps, (), tuple(elements), BEGAN, "0.1.0")


def show(story: RunStory) -> Document:
    document = parse_document(render_campaign(story, read_campaign_of(story.run)))
    for place in document.points_to:
        assert place.startswith(("data:", "#")), place
    anchors = [place[1:] for place in document.points_to if place.startswith("#")]
    assert set(anchors) <= set(document.ids)
    return document


def judge(folder: Path) -> Path:
    """Judge the statistics of 16 boxes, one an outlier, in a campaign's folder; return it."""
    campaign = folder / "1.0_small_boxes"
    (campaign / "metadata").mkdir(parents=True)
    rows = [make_row(n) for n in range(16)]
    power = 3 * rows[4].statistics.power_mpch3
    rows[4] = replace(rows[4], statistics=replace(rows[4].statistics, power_mpch3=power))
    statistics = campaign / "metadata" / "statistics"
    write_campaign(statistics, [])
    write_statistics(statistics / "batch_0000.parquet", rows)
    check_ensemble(
        statistics_folder=str(statistics),
        expected={"realizations": list(range(18)), "redshifts": [0.5]},
        figures=str(campaign / "qa" / "summary_plots"),
        summary=campaign / "qa" / "summary.json",
    )
    return campaign


def check_plot(path: Path) -> None:
    """Check a plot of one panel: its title is whole, and its y axis has ticks enough to read."""
    dark = matplotlib.image.imread(path)[:, :, :3].max(axis=2) < 0.5
    assert not dark[:, :4].any(), path.name
    assert not dark[:, -4:].any(), path.name
    marks = np.diff(dark[:, SPINE_PX - 3].astype(int), prepend=0)
    assert (marks == 1).sum() >= 2, path.name


def test_a_report_tells_counts_failures_and_the_ensemble(tmp_path: Path) -> None:
    elements = [populate(name, "succeeded") for name in NAMES[:7]]
    elements += [populate(name, "missing_input", "no halo_info_002.asdf") for name in NAMES[7:9]]
    elements.append(populate(NAMES[9], "software_error", HOSTILE))
    for path in (judge(tmp_path) / "qa" / "summary_plots").iterdir():
        check_plot(path)
    document = show(make_story(tmp_path, elements))
    for said in (
        "Mock campaign 1.0_small_boxes",
        "7 of 10 succeeded",
        "statistics of 16 catalogues of 18; 2 missing, 1 outlier.",
        "Boxes of 100 Mpc/h.",
        "stellar_mass_function: no inverse covariance",
        "N = 16 boxes, p = 69 bins, rank 15, at z = 0.5",
        "halo sourcesynthetic",
        "boxbox_size_mpch: 50",
        "realizations10, 0 to 9",
        "redshifts1.1, 0.5",
        "minimum mass1e+10 Msun/h",
        "layoutlean",
        HOSTILE,
        "z = 0.5",
    ):
        assert said in document.text, said
    assert document.row(POPULATE, "missing input", "2")[3].startswith(NAMES[7])
    assert document.row(POPULATE, "software error", "1")
    assert document.row("power", "0.5", "16", "16", "15")[5:7] == ["–", "no"]
    assert document.row("r0004_z0.500", "power")
    assert document.tags.count("img") == 10
    assert "script" not in document.tags
    assert "bands" not in document.text[document.text.index("What was found there") :]
    assert "realizations: 10" not in document.text  # the campaign file is not told key by key


@pytest.mark.parametrize("text", ["", "{}", "[" * 50_000, '{"boxes": 1}'])
def test_a_summary_that_cannot_be_read_is_told(tmp_path: Path, text: str) -> None:
    qa = tmp_path / "1.0_small_boxes" / "qa"
    qa.mkdir(parents=True)
    (qa / "summary.json").write_text(text)
    document = show(make_story(tmp_path, [populate(NAMES[0], "succeeded")]))
    assert "not the summary of an ensemble" in document.text
    assert "img" not in document.tags


def test_without_a_summary_the_rest_is_told(tmp_path: Path) -> None:
    document = show(make_story(tmp_path, [populate(NAMES[0], "succeeded")]))
    assert "the ensemble was not judged yet" in document.text
    story = make_story(tmp_path, [])
    without = replace(story, run=replace(story.run, params={"other": 1}))
    document = show(without)
    assert "parameters do not tell of a campaign" in document.text


def test_plots_that_are_gone_or_too_many_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = judge(tmp_path)
    plots = campaign / "qa" / "summary_plots"
    (plots / "power.png").unlink()
    (plots / "sfr_function.png").write_bytes(b"<svg>")
    size = (plots / "power_correlation.png").stat().st_size
    monkeypatch.setattr(report, "MOST_PICTURE_BYTES", size + 1000)
    document = show(make_story(tmp_path, []))
    assert document.tags.count("img") == 1
    for said in ("there is no picture at", "not a PNG", "would be too many bytes"):
        assert said in document.text


def test_failures_are_told_by_class_the_most_frequent_first() -> None:
    elements = [populate(name, "timed_out", "too long") for name in NAMES[:3]]
    elements += [populate(name, "missing_input") for name in NAMES[3:8]]
    elements += [populate(NAMES[8], "reused"), replace(populate("x", "lost"), group="inputs")]
    found = [(c.step, c.state, c.count, c.example, c.why) for c in list_classes(elements)]
    assert found == [
        (POPULATE, "missing_input", 5, NAMES[3], ""),
        (POPULATE, "timed_out", 3, NAMES[0], "too long"),
    ]


def test_a_folder_that_is_not_seen_gets_no_report(tmp_path: Path) -> None:
    campaign = read_campaign_of(make_story(tmp_path, []).run)
    assert campaign is not None
    assert not report.is_seen(campaign.folder)
    (tmp_path / "1.0_small_boxes").mkdir()
    assert report.is_seen(campaign.folder)
