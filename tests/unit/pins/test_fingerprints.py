"""Fingerprints of fixed inputs, as they stand in products, in names of band rasters, in the store.

Another hash of the same inputs means that every map of every user is computed anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from muster.model.step import load_step
from muster.traits.bundle.bundle import Bundle
from muster.traits.bundle.transform import TargetTransform
from muster.traits.plan.fingerprint import fingerprint_band
from tests.unit.pins.golden_files import check_literal

if TYPE_CHECKING:
    from muster.traits.band_names import BandName

USER = "is stored in products and names of band rasters; another one makes all of them anew"

BUNDLE = Bundle(
    uri="/models/SLA",
    trait="SLA",
    unit="m²/kg",
    description="specific leaf area",
    predictors=("bio 1", "bio 12"),
    transform=TargetTransform(kind="yeo-johnson", lambda_=0.25, mean=1.5, scale=2.0),
    model_path=Path("/models/SLA/model.txt"),
    fold_paths=(Path("/models/SLA/fold_0.txt"), Path("/models/SLA/fold_1.txt")),
    model_sha256="01" * 32,
    file_sha256={
        "model.txt": "01" * 32,
        "fold_0.txt": "02" * 32,
        "fold_1.txt": "03" * 32,
        "training.parquet": "04" * 32,
    },
    sha256="05" * 32,
    importance=(0.75, 0.25),
    importance_method="permutation",
    cv={"r2": 0.5},
    training_path=Path("/models/SLA/training.parquet"),
    crs="EPSG:4326",
    seed=7,
    settings={"folds": 2},
)
PREDICTORS = [{"uri": "/data/stack.tif", "bytes": 1234, "version": "1700000000000000000"}]

BANDS: list[tuple[BandName, dict[str, Any], str, str, dict[str, str]]] = [
    (
        "prediction",
        {},
        "quantised",
        "2593894231b4ae2dd0cfc4824432756c692c6a210cd014218f0751cf3e94f0f8",
        {
            "model": "31f871562db9",
            "predictors": "6b563e7a386c",
            "parameters": "44136fa355b3",
            "engine": "b6fb43e673db",
            "method": "a2e3f5282c6c",
        },
    ),
    (
        "cov",
        {},
        "lightgbm",
        "37cde0b7f8e91011eac31b323a5c1e5cfc4aa099604b42a32ec0d1cafe0d3886",
        {
            "model": "985fac7e483a",
            "predictors": "6b563e7a386c",
            "parameters": "44136fa355b3",
            "engine": "738c369e95db",
            "method": "09553a5eb0cb",
        },
    ),
    (
        "aoa",
        {"local_point_density": True},
        "tree",
        "40f16d68ffc16783882d7fa2b6fd72e887c187fd96ecaaa3db21643ae93d6679",
        {
            "model": "555ccd3f502c",
            "predictors": "6b563e7a386c",
            "parameters": "c049a6269bd4",
            "engine": "ec545c4839b4",
            "method": "7291db76e852",
        },
    ),
]


@pytest.mark.parametrize(("band", "parameters", "engine", "sha256", "parts"), BANDS)
def test_a_band_of_the_same_inputs_has_the_same_fingerprint(
    band: BandName,
    parameters: dict[str, Any],
    engine: str,
    sha256: str,
    parts: dict[str, str],
) -> None:
    found = fingerprint_band(band, BUNDLE, PREDICTORS, parameters, engine)
    check_literal(f"parts of {band}", found.parts, parts, USER)
    check_literal(f"fingerprint of {band}", found.sha256, sha256, USER)


SOURCE = """\
<VRTDataset rasterXSize="{n}" rasterYSize="{n}">
 <SRS>EPSG:4326</SRS>
 <GeoTransform>0, {size}, 0, 4, 0, -{size}</GeoTransform>
 <VRTRasterBand dataType="Float32" band="1"><NoDataValue>-9999</NoDataValue></VRTRasterBand>
</VRTDataset>
"""
PARAMS = {
    "target": {"crs": "EPSG:4326", "resolution": 1.0, "extent": [0, 0, 4, 4]},
    "datasets": [
        {"name": "as_it_is", "path": "s4.vrt", "method": "average"},
        {"name": "blocks", "path": "s8.vrt", "method": "sum", "range": [0, 100], "store": ["cog"]},
        {"name": "warped", "path": "s5.vrt", "method": "mode", "categories": [1, 2]},
    ],
    "output": "maps",
    "merge": {"output": "maps/all.parquet"},
}
DATASETS = {
    "as_it_is": ("passthrough", "5d150baa2f4ac9df59a17d1ef82c558320831c12c9d80b2c54e2535cc1461edb"),
    "blocks": ("block", "0113331125597ac128696a2030572ff137790f3cd328df53069f98453a7a4939"),
    "warped": ("warp", "efd5dbf45fe658e72d5001df3dd4d07f9be4c74e27ae4eee67659cda4664a7e8"),
    "merge": ("merge", "7f3d7b501ebb03884f7b764191a0a4900fe12a1976218d577320461088ce0c7a"),
}


def test_a_dataset_of_the_same_source_has_the_same_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of text files, written at one and the same moment, below one and the same relative path."""
    monkeypatch.chdir(tmp_path)
    for n in (4, 5, 8):
        source = Path(f"s{n}.vrt")
        source.write_text(SOURCE.format(n=n, size=4 / n))
        os.utime(source, ns=(1_700_000_000_000_000_000,) * 2)
    load_step("resampling.inspect")(params=PARAMS, plan=Path("plan.json"))
    elements = json.loads(Path("plan.json").read_text())["elements"]
    found = {
        e["name"]: (
            e["inputs"]["layer"]["kind"] if "layer" in e["inputs"] else "merge",
            e["inputs"].get("fingerprint") or e["inputs"]["layer"]["fingerprint"],
        )
        for e in elements
    }
    check_literal("fingerprints of datasets", found, DATASETS, USER)
