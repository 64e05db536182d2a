"""Names of products, and what they say of themselves: users' files, made by any version."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muster.jobs.planning.workflow import load_workflow
from muster.traits.band_names import recognise_bands
from muster.traits.product.existing import held_bands
from tests.unit.pins.golden_files import check_literal

USER = "is the name of users' files and tables, which a later run looks for"
MONTH = {
    "interval_start": "2024-03-01T00:00:00+00:00",
    "interval_end": "2024-04-01T00:00:00+00:00",
}
TRAITS = {
    "traits": ["SLA"],
    "trait_set": "splot",
    "predictors": ["/data/stack.tif"],
    "models": "/models",
    "output": "/maps",
}
RASTERS = {
    "target": {"crs": "EPSG:4326", "resolution": 1.0, "extent": [0, 0, 4, 4]},
    "datasets": [{"name": "Wind speed", "path": "/w.tif", "method": "average", "store": ["rows"]}],
    "output": "/maps",
    "merge": {"output": "/maps/all.parquet", "table": "everything"},
}


@pytest.mark.parametrize(
    ("more", "folder", "label", "table_label"),
    [({}, "/maps", "", ""), (MONTH, "/maps/2024-03", "2024-03", "_2024_03")],
)
def test_products_lie_where_they_lay(
    more: dict[str, str], folder: str, label: str, table_label: str
) -> None:
    traits: Any = load_workflow("trait_inference").parse_params({**TRAITS, **more})
    rasters: Any = load_workflow("resampling").parse_params({**RASTERS, **more})
    (dataset,) = rasters.datasets
    at, dash = (f"@{label}", f"-{label}") if label else ("", "")
    check_literal(
        "names of products",
        {
            "bundle": traits.bundle_uri("SLA"),
            "product": traits.product_uri("SLA"),
            "quicklook": traits.quicklook_uri("SLA"),
            "item": traits.item_uri("SLA"),
            "dataset": rasters.dataset_key(dataset),
            "cog": rasters.cog_uri(dataset),
            "picture": rasters.quicklook_uri(dataset),
            "rows": rasters.table_name(dataset),
            "merged file": rasters.merge_uri(),
            "merged table": rasters.merge_table(),
            "merge": rasters.merge_key(),
        },
        {
            "bundle": "/models/SLA",
            "product": f"{folder}/SLA.tif",
            "quicklook": f"{folder}/SLA.png",
            "item": f"{folder}/SLA.json",
            "dataset": f"Wind speed{at}",
            "cog": f"{folder}/Wind speed.tif",
            "picture": f"{folder}/Wind speed.png",
            "rows": f"wind_speed{table_label}",
            "merged file": f"/maps/all{dash}.parquet",
            "merged table": f"everything{table_label}",
            "merge": f"merge:everything{table_label}",
        },
        USER,
    )


def test_a_stored_product_of_ours_is_known_by_its_bands_and_tags() -> None:
    bands = recognise_bands(
        ["SLA prediction", "coefficient of variation", "area of applicability"], "SLA"
    )
    assert bands is not None
    fingerprints = {"prediction": "01" * 32, "cov": "02" * 32, "aoa": "03" * 32}
    tags = {"MUSTER_FINGERPRINTS": json.dumps(fingerprints)}
    check_literal(
        "bands of a product",
        {"kind": bands.kind, "bands": bands.bands, "held": held_bands("/SLA.tif", bands, tags)},
        {
            "kind": "muster",
            "bands": {"prediction": 1, "cov": 2, "aoa": 3},
            "held": fingerprints,
        },
        "is written in users' products, which are else taken for somebody else's rasters",
    )
