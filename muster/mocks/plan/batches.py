"""Catalogues dealt to batches, and the steps that follow: a batch's statistics, the ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muster import storage
from muster.counts import count_of
from muster.mocks.campaign.estimate_size import MOST_GROUPS
from muster.model.plan import Decision, PlannedElement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from muster.mocks.campaign.config import Campaign

COLLECT = "mocks.collect"
QA = "mocks.qa"
MANIFEST = "mocks.manifest"
MOST_COLLECTED = 2000
ENSEMBLE = "ensemble"
"""Group, and name of the elements, of the steps that take the whole campaign."""


def deal_batches(
    campaign: Campaign, catalogues: Sequence[PlannedElement], first_batch: int
) -> Iterator[PlannedElement]:
    """Deal catalogues to batches of whole arrays, each with the step that collects it."""
    to_make = sum(element.decision is Decision.RUN for element in catalogues)
    array = campaign.execution.batch_size
    arrays = max(1, -(-to_make // array))
    size = array * -(-arrays // MOST_GROUPS)
    members: list[PlannedElement] = []
    made, number = 0, first_batch
    for element in catalogues:
        members.append(element)
        made += element.decision is Decision.RUN
        if made == size:
            yield from _close_batch(campaign, members, number)
            members, made, number = [], 0, number + 1
    if members:
        yield from _close_batch(campaign, members, number)


def _close_batch(
    campaign: Campaign, members: Sequence[PlannedElement], number: int
) -> Iterator[PlannedElement]:
    group = f"batch_{number:04d}"
    for member in members:
        yield member.model_copy(update={"group": group})
    made = [member for member in members if member.decision is Decision.RUN]
    if not made:
        return
    catalogues = [
        {
            "uri": member.outputs["catalogue"],
            **{
                name: member.inputs[name]
                for name in ("realization", "redshift", "redshift_index", "fingerprint")
            },
        }
        for member in made
    ]
    yield _collect(campaign, group, catalogues)


def collect_reused(
    campaign: Campaign, reused: Sequence[dict[str, Any]], first_batch: int
) -> Iterator[PlannedElement]:
    """Plan to collect catalogues that are there, and whose statistics no file holds.

    A run that was killed has left them, or a file of statistics was lost.

    Parameters
    ----------
    reused : sequence of dict
        As ``catalogues`` of :func:`muster.mocks.qa.steps.collect_batch`.
    first_batch : int
        Number of the run's first batch, which no other run has.
    """
    for start in range(0, len(reused), MOST_COLLECTED):
        members = list(reused[start : start + MOST_COLLECTED])
        yield _collect(campaign, f"collect_{first_batch:04d}_{start // MOST_COLLECTED}", members)


def _collect(campaign: Campaign, group: str, catalogues: list[dict[str, Any]]) -> PlannedElement:
    uri = storage.join(campaign.folder.statistics_uri, f"{group}.parquet")
    return PlannedElement(
        step=COLLECT,
        name=group,
        group=group,
        decision=Decision.RUN,
        reason=f"statistics of {count_of(len(catalogues), 'catalogue')}",
        inputs={"catalogues": catalogues},
        outputs={"statistics": uri},
    )


def plan_ensemble(campaign: Campaign) -> list[PlannedElement]:
    """Plan the steps that take the whole campaign."""
    folder = campaign.folder
    said: dict[str, Any] = {"name": ENSEMBLE, "group": ENSEMBLE, "decision": Decision.RUN}
    science = campaign.science
    realizations, redshifts = science.realizations.numbers, science.redshifts
    return [
        PlannedElement(
            step=QA,
            reason="the ensemble of all catalogues that there are",
            inputs={
                "statistics_folder": folder.statistics_uri,
                "expected": {
                    "realizations": list(realizations),
                    "redshifts": list(redshifts),
                },
                "figures": folder.plots_uri,
            },
            outputs={
                "summary": storage.join(folder.uri, "qa", "summary.json"),
                "matrices": storage.join(folder.uri, "qa", "matrices.npz"),
            },
            **said,
        ),
        PlannedElement(
            step=MANIFEST,
            reason="all catalogues that there are",
            inputs={
                "folder": folder.uri,
                "campaign": campaign.config.campaign.model_dump(mode="json"),
                "expected": len(realizations) * len(redshifts),
            },
            needs_store=True,
            **said,
        ),
    ]
