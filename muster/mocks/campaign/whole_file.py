"""What holds between the blocks of a campaign file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.config import ConfigProblem
from muster.mocks.campaign.naming import find_clash

if TYPE_CHECKING:
    from muster.mocks.campaign.execution import CampaignResources
    from muster.mocks.campaign.outputs import Outputs
    from muster.mocks.campaign.science import Science

ABACUS = "AbacusSummit"
FIRST_PHASE = {"AbacusSummit_small": 3000}
"""Phase of realization 0, where the box does not say it."""


def name_fields(
    science: Science, realization: int, redshift: float
) -> dict[str, str | int | float]:
    """Return what fills a naming scheme.

    ``cosmology`` is the box's, c000 of AbacusSummit by default; ``phase`` is ph3000 + the number
    of the realization in AbacusSummit's small boxes, and counts from the box's ``first_phase``.
    A field without a value is left out.
    """
    fields: dict[str, str | int | float] = {"realization": realization, "redshift": redshift}
    is_abacus = science.simulation_suite.startswith(ABACUS)
    cosmology = science.box.get("cosmology", "c000" if is_abacus else None)
    if isinstance(cosmology, str):
        fields["cosmology"] = cosmology
    first = science.box.get("first_phase", FIRST_PHASE.get(science.simulation_suite, 0))
    if isinstance(first, int) and not isinstance(first, bool):
        phase = first + realization
        fields["phase"] = f"ph{phase:03d}" if is_abacus else f"ph{phase:04d}"
    return fields


def find_whole_problems(
    science: Science | None, outputs: Outputs | None, resources: CampaignResources | None
) -> list[ConfigProblem]:
    """List what is wrong between blocks; those that are wrong themselves are None."""
    problems: list[ConfigProblem] = []
    if science is not None and outputs is not None:
        message = _find_scheme_problem(science, outputs.naming_scheme)
        if message is not None:
            problems.append(ConfigProblem(("outputs", "naming_scheme"), "wrong", message))
    if science is not None and resources is not None:
        problems += _find_idle_overrides(science, resources)
    return problems


def _find_scheme_problem(science: Science, scheme: str) -> str | None:
    numbers = science.realizations.numbers
    try:
        for realization in {numbers[0], numbers[-1]}:
            fields = [name_fields(science, realization, z) for z in science.redshifts]
            clash = find_clash(scheme, fields)
            if clash is not None:
                return clash
    except ValueError as error:
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
