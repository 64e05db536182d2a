"""Whether a campaign file is right: by its schema, suite and model, a site, and this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from muster.mocks.campaign.base_path import describe_absence, find_base_path_problems
from muster.mocks.campaign.config import read_campaign
from muster.mocks.campaign.placement import describe_idle_ranks, place_campaign
from muster.mocks.campaign.problems import CampaignFileError
from muster.mocks.galaxies.model import load_model
from muster.mocks.halos.source import load_source

if TYPE_CHECKING:
    from pathlib import Path

    from muster.mocks.campaign.config import Campaign
    from muster.site import Site


@dataclass(frozen=True)
class ValidationReport:
    """What is wrong with a campaign file, what is not installed here, and which ranks would idle.

    Attributes
    ----------
    where : str
        The file.
    campaign : str or None
        VERSION_NAME, where the file is right.
    problems : tuple of str
        Everything that is wrong, a line each; none where the campaign is valid.
    notes : tuple of str
        Packages that are not installed here (the nodes may have them), numbers that include or
        exclude nothing, a minimum mass below the lowest of the box, a base_path that is on no file
        system of this machine, ranks without work.
    """

    where: str
    campaign: str | None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {**asdict(self), "valid": self.valid}


def validate_campaign(path: Path, site: Site) -> ValidationReport:
    """Check a campaign file against the schema, its suite, its model and a site.

    Raises
    ------
    MissingInput
        When there is no such file.
    InvalidInput
        When it cannot be read.
    """
    try:
        campaign = read_campaign(path)
    except CampaignFileError as error:
        return ValidationReport(str(path), None, tuple(error.lines))
    problems = [f"{path}: {problem.text}" for problem in find_base_path_problems(campaign)]
    try:
        placed = place_campaign(campaign, site)
    except CampaignFileError as error:
        problems += error.lines
    if problems:
        return ValidationReport(str(path), None, tuple(problems))
    science = campaign.science
    parts = (load_source(science.simulation_suite), load_model(science.galaxy_model))
    notes = [
        *(part.check_installed() for part in parts),
        *(f"science.realizations.{note}" for note in science.realizations.notes),
        _describe_idle_mass(campaign),
        describe_absence(campaign),
        describe_idle_ranks(campaign, placed),
    ]
    said = tuple(note for note in notes if note is not None)
    return ValidationReport(str(path), campaign.label, (), said)


def _describe_idle_mass(campaign: Campaign) -> str | None:
    """Say that a stated minimum mass cuts nothing: the haloes of the suite begin above it."""
    stated = campaign.science.min_mass_msunh
    lowest = getattr(campaign.file_names.options, "lowest_mass_msunh", stated)
    if "min_mass_msunh" not in campaign.science.model_fields_set or stated >= lowest:
        return None
    return (
        f"science.min_mass_msunh: {stated:g} cuts nothing: the box has no halo below its "
        f"lowest_mass_msunh, {lowest:g} Msun/h"
    )
