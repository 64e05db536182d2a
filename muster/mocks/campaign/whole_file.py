"""What holds between the blocks of a campaign file."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from muster.config import ConfigProblem
from muster.errors import ConfigError
from muster.mocks.campaign.file_names import FileNames
from muster.mocks.campaign.naming import find_clash
from muster.mocks.campaign.options import find_option_problems, find_redshift_problems
from muster.mocks.coordinates import Coordinate

if TYPE_CHECKING:
    from muster.mocks.campaign.execution import CampaignResources
    from muster.mocks.campaign.outputs import Outputs
    from muster.mocks.campaign.science import Science

WITHOUT_HISTORIES = frozenset({"hod"})
"""Galaxy models that no full layout can be written of."""


def find_whole_problems(
    science: Science | None, outputs: Outputs | None, resources: CampaignResources | None
) -> list[ConfigProblem]:
    """List what is wrong between blocks; those that are wrong themselves are None."""
    problems: list[ConfigProblem] = []
    if science is not None:
        problems += find_option_problems(science)
        problems += find_redshift_problems(science.simulation_suite, science.redshifts)
    if science is not None and outputs is not None:
        if outputs.layout == "full" and science.galaxy_model in WITHOUT_HISTORIES:
            message = f"the galaxy model {science.galaxy_model} has no formation histories: lean"
            problems.append(ConfigProblem(("outputs", "layout"), "wrong", message, "'full'"))
        clash = _find_scheme_problem(science, outputs.naming_scheme)
        if clash is not None:
            problems.append(ConfigProblem(("outputs", "naming_scheme"), "wrong", clash))
    if science is not None and science.parameters.get("baseline") is True and science.slabs != 1:
        message = "the baseline of the original has no slabs: its arrays are those of 1"
        problems.append(ConfigProblem(("science", "slabs"), "wrong", message, str(science.slabs)))
    if science is not None and resources is not None:
        problems += _find_idle_overrides(science, resources)
    return problems


def _find_scheme_problem(science: Science, scheme: str) -> str | None:
    try:
        make_fields = FileNames.of(science, scheme).fields
    except ConfigError:  # a problem of its own; redshifts are told apart without the suite

        def make_fields(coordinate: Coordinate) -> dict[str, str | int | float]:
            return {"cosmology": "c000", "phase": "ph0000", **asdict(coordinate)}

    numbers = science.realizations.numbers
    try:
        for realization in sorted({numbers[0], numbers[-1]}):
            fields = [make_fields(Coordinate(realization, z)) for z in science.redshifts]
            clash = find_clash(scheme, fields)
            if clash is not None:
                return clash
    except (ValueError, ConfigError) as error:
        return str(error)
    return None


def _find_idle_overrides(science: Science, resources: CampaignResources) -> list[ConfigProblem]:
    """Name overrides that select none of the campaign's elements."""
    problems = []
    numbers = science.realizations.numbers
    for position, override in enumerate(resources.overrides):
        path = ("resources", "overrides", str(position))
        redshifts = override.redshifts
        if redshifts is not None:
            absent = sorted({*(redshifts.values or ())} - {*science.redshifts})
            if absent:
                message = f"{', '.join(map(str, absent))}: none of the campaign's redshifts"
                problems.append(ConfigProblem((*path, "redshifts"), "wrong", message))
            elif not any(redshifts.matches(z) for z in science.redshifts):
                message = "selects none of the campaign's redshifts"
                problems.append(ConfigProblem((*path, "redshifts"), "wrong", message))
        realizations = override.realizations
        if realizations is not None and not any(map(realizations.matches, numbers)):
            message = "selects none of the campaign's realizations"
            problems.append(ConfigProblem((*path, "realizations"), "wrong", message))
    return problems
