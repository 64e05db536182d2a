"""The campaign's part of a run's report: what became of its catalogues, and what QA found in them.

Read from the campaign's folder: the summary of the ensemble (``qa/summary.json``) and its plots.
Either may be absent, or from an earlier run.  No compute library is needed, so that the process
that gives a verdict can do it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.config import parse_config
from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.jobs.planning.freeze import safe_name
from muster.jobs.runs.verdict import GOOD, INPUTS
from muster.mocks.params import MockParams
from muster.mocks.qa.summary import read_summary
from muster.report.formats import format_number, format_value
from muster.report.pictures import read_picture
from muster.report.read import read_story
from muster.report.render import render_report
from muster.report.write import Report, work_report_uri

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.mocks.campaign.config import Campaign
    from muster.mocks.campaign.folder import CampaignFolder
    from muster.mocks.qa.summary import EnsembleSummary
    from muster.report.pictures import Picture
    from muster.report.read import ElementStory, RunStory
    from muster.store.database import Database
    from muster.store.records import Run

TEMPLATE = "mocks/report.html.j2"
POPULATE = "mocks.populate"

MOST_PICTURE_BYTES = 30 * 1024**2
"""All plots of a report together."""

MOST_ROWS = 100
"""Outliers, realizations and problems that are listed; the summary has all of them."""


@dataclass(frozen=True)
class FailureClass:
    """Elements of one step that came to the same end.

    Attributes
    ----------
    step, state : str
        Which.
    count : int
        How many.
    example, why : str
        Name of one of them, and what it said.
    """

    step: str
    state: str
    count: int
    example: str
    why: str


@dataclass(frozen=True)
class Plot:
    """A plot of the ensemble: its title and the picture, or why there is none."""

    title: str
    picture: Picture | None
    note: str | None


def make_report(db: Database, run: Run) -> Report:
    """Make the report of a run of mock_campaign."""
    story = read_story(db, run)
    campaign = read_campaign_of(run)
    uri = work_report_uri(run)
    if campaign is not None and run.planned_at is not None and is_seen(campaign.folder):
        uri = storage.join(campaign.folder.uri, "qa", "reports", f"{safe_name(run.id)}.html")
    return Report(render_campaign(story, campaign), uri)


def read_campaign_of(run: Run) -> Campaign | None:
    """Return the campaign of a run, or None where its parameters do not tell."""
    try:
        return parse_config(MockParams, run.params, f"params of {run.id}").campaign
    except ConfigError:
        return None


def is_seen(folder: CampaignFolder) -> bool:
    """Return whether this machine sees a campaign's folder, which may lie on a cluster."""
    path = storage.local_path(folder.uri)
    return path is None or path.is_dir()


def render_campaign(story: RunStory, campaign: Campaign | None) -> str:
    """Render the report of a run.

    Parameters
    ----------
    story : RunStory
        The run.
    campaign : Campaign or None
        Its campaign; without one the report is that of any run.

    Raises
    ------
    Transient
        When storage did not answer.
    """
    summary, note = read_ensemble(campaign.folder) if campaign is not None else (None, None)
    plots = read_plots(campaign.folder, summary) if campaign is not None and summary else []
    made = [e for e in story.elements if e.step == POPULATE]
    # The definition is the campaign file, which lies in the campaign's folder.
    params = {name: value for name, value in story.run.params.items() if name != "definition"}
    return render_report(
        story,
        TEMPLATE,
        campaign=None if campaign is None else campaign.label,
        essentials={} if campaign is None else describe_campaign(campaign),
        folder=None if campaign is None else campaign.folder.uri,
        counts=count_states(made),
        classes=list_classes(story.elements),
        summary=summary,
        note=note,
        plots=plots,
        most_rows=MOST_ROWS,
        params=params,
    )


def describe_campaign(campaign: Campaign) -> dict[str, object]:
    """Describe what catalogues are made from; the rest is in the campaign's configuration."""
    science = campaign.science
    numbers = science.realizations.numbers
    return {
        "campaign": campaign.label,
        "halo source": science.simulation_suite,
        "box": _describe_options(science.box),
        "galaxy model": science.galaxy_model,
        "model parameters": _describe_options(science.parameters),
        "realizations": f"{format_number(len(numbers))}, {numbers[0]} to {numbers[-1]}",
        "redshifts": science.redshifts,
        "seed": str(science.seed),
        "minimum mass": f"{science.min_mass_msunh:g} Msun/h",
        "slabs": science.slabs,
        "layout": campaign.outputs.layout,
        "compression": campaign.outputs.compression.filter,
    }


def _describe_options(options: Mapping[str, Any]) -> str:
    pairs = (f"{name}: {format_value(value)}" for name, value in options.items())
    return "; ".join(pairs) or "all by default"


def read_ensemble(folder: CampaignFolder) -> tuple[EnsembleSummary | None, str | None]:
    """Read what QA found: the summary, or why there is none."""
    uri = storage.join(folder.uri, "qa", "summary.json")
    try:
        return read_summary(uri), None
    except MissingInput:
        return None, f"the ensemble was not judged yet: there is no {uri}"
    except InvalidInput as error:
        return None, str(error)


def read_plots(folder: CampaignFolder, summary: EnsembleSummary) -> list[Plot]:
    """Read the plots that a summary names, as far as a report may hold them."""
    left = MOST_PICTURE_BYTES
    plots = []
    for figure in summary.figures:
        picture, note, size = read_picture(storage.join(folder.plots_uri, figure.name), left)
        left -= size
        plots.append(Plot(figure.title, picture, note))
    return plots


def count_states(elements: Sequence[ElementStory]) -> dict[str, int]:
    """Count elements by state, those that are good first."""
    counts = Counter(element.state for element in elements)
    return dict(sorted(counts.items(), key=lambda item: (item[0] not in GOOD, item[0])))


def list_classes(elements: Sequence[ElementStory]) -> list[FailureClass]:
    """List how elements failed, the most frequent first, with an example of each."""
    found: dict[tuple[str, str], list[ElementStory]] = {}
    for element in elements:
        if element.state not in GOOD and element.group != INPUTS:
            found.setdefault((element.step, element.state), []).append(element)
    classes = [
        FailureClass(step, state, len(members), members[0].name, members[0].why or "")
        for (step, state), members in found.items()
    ]
    return sorted(classes, key=lambda c: (-c.count, c.step, c.state))
