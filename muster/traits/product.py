"""Step traits.build: the one file a trait that people use, and a picture of it.

The product holds what its stage rasters hold, a quarter as large: a cloud-optimised GeoTIFF in
int16 whose bands say what they are, in which unit, and how to read them, and whose tags say what
it was made from.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path  # noqa: TC003
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import muster
from muster import storage
from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.jobs.step import StepContext
from muster.raster.cog import CogFormat, write_cog
from muster.raster.gdal import GDAL_ERRORS, explain_read_error, gdal_environment, open_raster
from muster.raster.grid import Band, Grid, Window, check_same_grid
from muster.raster.packing import (
    CLASS_PACKING,
    COV_PACKING,
    INT16_NODATA,
    Packing,
    plan_packing,
)
from muster.raster.whole import check_output_folder
from muster.raster.windows import MIB, WindowPlan, plan_memory, plan_windows
from muster.traits.bundle import Bundle, read_bundle
from muster.traits.quicklook import draw_quicklook
from muster.traits.stage import AOA_DESCRIPTION, COV_DESCRIPTION, FINGERPRINT_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FINGERPRINTS_TAG = "MUSTER_FINGERPRINTS"
AOA_MEANING = "1 = inside the area of applicability, 0 = outside"

_FORMAT = CogFormat(dtype="int16", nodata=INT16_NODATA)

BandName = Literal["prediction", "cov", "aoa"]
_ORDER: tuple[BandName, ...] = ("prediction", "cov", "aoa")

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class StageBand:
    """One band of the product and where its values come from.

    Attributes
    ----------
    name : {"prediction", "cov", "aoa"}
        Which of the bands.
    uri : str
        The stage raster.
    dataset : rasterio.DatasetReader
        Open.
    number : int
        The band in the stage raster, from 1.
    band : Band
        What the product says of it; scale and offset are those of ``packing``.
    packing : Packing
        How it is stored.
    """

    name: BandName
    uri: str
    dataset: Any
    number: int
    band: Band
    packing: Packing

    def read(self, window: Window) -> FloatArray:
        """Read a window, (row, col), float64, NaN for nodata."""
        try:
            values: FloatArray = self.dataset.read(self.number, window=window.ranges)
        except GDAL_ERRORS as error:
            raise explain_read_error(error, self.uri, "stage raster cannot be read") from error
        return values

    def packed_as(self, packing: Packing) -> StageBand:
        """Return the band with another packing."""
        band = replace(self.band, scale=packing.scale, offset=packing.offset)
        return replace(self, band=band, packing=packing)


def build_final_product_trait(
    *,
    bundle: str,
    bands: dict[str, str],
    product: Path,
    quicklook: Path,
    tags: dict[str, str] | None = None,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Make the product of a trait and its quicklook.

    Parameters
    ----------
    bundle : str
        URI of the model bundle.
    bands : dict of str to str
        "prediction", "cov", "aoa" → URI of the stage raster.  One that is not there is left out of
        the product, but the prediction must be.
    product : Path
        The COG to write: int16, −32768 for nodata, scale and offset a band.
    quicklook : Path
        The PNG to write.
    tags : dict of str to str, optional
        More tags of the product.
    context : StepContext
        Threads, memory, scratch folder, progress.

    Returns
    -------
    dict
        ``bands`` (their descriptions), ``saturated_pixels`` of the coefficient of variation,
        ``bytes`` of the product, and ``inside_fraction`` of the pixels with an area of
        applicability, where there is that band.

    Raises
    ------
    ConfigError
        When ``bands`` or ``tags`` have unknown keys.
    MissingInput
        When bundle or prediction are not there.
    InvalidInput
        When a stage raster is broken or lies on another grid, or the output cannot be written.
    Transient
        When there is no space, or the network failed.
    """
    unknown = sorted(set(bands) - set(_ORDER))
    if unknown:
        raise ConfigError(
            "unknown band of a product", got=", ".join(unknown), expected=", ".join(_ORDER)
        )
    # Found out now, not after the work.
    check_output_folder(product)
    check_output_folder(quicklook)
    model = read_bundle(bundle, context.scratch)
    with (
        gdal_environment(context.threads, plan_memory(context.memory_mib).cache_mib),
        _open_stages(model, bands) as (grid, stages),
    ):
        windows = _plan(grid, stages, context)
        prediction = stages[0].packed_as(_measure_packing(stages[0], windows, context))
        stages = (prediction, *stages[1:])
        facts = _write_product(
            product, grid, stages, windows, _make_tags(model, stages, tags), context
        )
    draw_quicklook(product, quicklook, f"{model.trait}: {model.description}".rstrip(": "))
    context.progress(1.0, "product written")
    return {
        "bands": [stage.band.description for stage in stages],
        "bytes": product.stat().st_size,
        **facts,
    }


@contextlib.contextmanager
def _open_stages(
    model: Bundle, bands: Mapping[str, str]
) -> Iterator[tuple[Grid, tuple[StageBand, ...]]]:
    if "prediction" not in bands or not storage.exists(bands["prediction"]):
        raise MissingInput(
            "prediction is not there",
            where=bands.get("prediction", "no location given"),
            expected=f"a stage raster of {model.trait}",
            do="run the step traits.predict first",
        )
    plans = {
        "prediction": (Band(f"{model.trait} prediction", unit=model.unit), Packing()),
        "cov": (Band(COV_DESCRIPTION, unit="1", scale=COV_PACKING.scale), COV_PACKING),
        "aoa": (
            Band(AOA_DESCRIPTION, unit="1", overview="mode", tags={"meaning": AOA_MEANING}),
            CLASS_PACKING,
        ),
    }
    with contextlib.ExitStack() as files:
        stages: list[StageBand] = []
        grid: Grid | None = None
        for name in _ORDER:
            uri = bands.get(name)
            if uri is None or not storage.exists(uri):
                continue
            dataset = files.enter_context(open_raster(uri))
            other = Grid.from_dataset(dataset, uri)
            grid = grid or other
            problems = check_same_grid(grid, other)
            if problems:
                raise InvalidInput(
                    f"stage rasters lie on different grids ({', '.join(problems)})",
                    where=uri,
                    got=other.describe(),
                    expected=f"{grid.describe()}, as {bands['prediction']}",
                    do="run the steps again with the same predictors",
                )
            band, packing = plans[name]
            number = _find_band(uri, dataset, band.description)
            stages.append(StageBand(name, uri, dataset, number, band, packing))
        if grid is None:
            raise MissingInput("prediction is not there", where=bands["prediction"])
        yield grid, tuple(stages)


def _find_band(uri: str, dataset: Any, description: str) -> int:
    descriptions = list(dataset.descriptions)
    if description not in descriptions:
        raise InvalidInput(
            "stage raster lacks a band",
            where=uri,
            got=", ".join(str(text) for text in descriptions),
            expected=description,
            do="run the step again",
        )
    return descriptions.index(description) + 1


def _plan(grid: Grid, stages: Sequence[StageBand], context: StepContext) -> WindowPlan:
    # A value as it is read, as it is packed, and what is between the two.
    pixel_bytes = len(stages) * 48
    max_pixels = plan_memory(context.memory_mib).window_mib * MIB // pixel_bytes
    height, width = stages[0].dataset.block_shapes[0]
    # Strips of a small raster aside, a few megapixels are as fast as more.
    return plan_windows(grid, (int(height), int(width)), min(max_pixels, 1 << 21))


def _measure_packing(stage: StageBand, windows: WindowPlan, context: StepContext) -> Packing:
    least, greatest = math.inf, -math.inf
    for number, window in enumerate(windows, start=1):
        values = stage.read(window)
        values = values[np.isfinite(values)]
        if values.size:
            least = min(least, float(values.min()))
            greatest = max(greatest, float(values.max()))
        context.progress(0.3 * number / len(windows), "range of the prediction")
    return plan_packing(least, greatest)


def _write_product(
    path: Path,
    grid: Grid,
    stages: Sequence[StageBand],
    windows: WindowPlan,
    tags: Mapping[str, str],
    context: StepContext,
) -> dict[str, Any]:
    saturated = dict.fromkeys(_ORDER, 0)
    inside = covered = 0
    with write_cog(
        path,
        grid,
        [stage.band for stage in stages],
        _FORMAT,
        tags=tags,
        scratch=context.scratch,
        threads=context.threads,
        memory_mib=context.memory_mib,
    ) as cog:
        for number, window in enumerate(windows, start=1):
            packed = np.empty((len(stages), window.height, window.width), dtype=np.int16)
            for index, stage in enumerate(stages):
                packed[index], count = stage.packing.pack(stage.read(window))
                saturated[stage.name] += count
                if stage.name == "aoa":
                    covered += int(np.count_nonzero(packed[index] != INT16_NODATA))
                    inside += int(np.count_nonzero(packed[index] == 1))
            if (packed != INT16_NODATA).any():
                cog.write(window, packed)
            context.progress(0.3 + 0.3 * number / len(windows), "packing")
        if any(stage.name == "cov" for stage in stages):
            cog.tags["MUSTER_SATURATED_PIXELS"] = str(saturated["cov"])
    facts: dict[str, Any] = {"saturated_pixels": saturated["cov"]}
    if covered:
        facts["inside_fraction"] = inside / covered
    return facts


def _make_tags(
    model: Bundle, stages: Sequence[StageBand], more: Mapping[str, str] | None
) -> dict[str, str]:
    """List the tags of a product; Muster's own begin with MUSTER_."""
    own = {
        "MUSTER_TRAIT": model.trait,
        "MUSTER_UNIT": model.unit,
        "MUSTER_DESCRIPTION": model.description,
        "MUSTER_MODEL_SHA256": model.model_sha256,
        "MUSTER_BUNDLE_SHA256": model.sha256,
        "MUSTER_CV": json.dumps(dict(model.cv), sort_keys=True),
        "MUSTER_VERSION": muster.__version__,
        FINGERPRINTS_TAG: json.dumps(
            {stage.name: stage.dataset.tags().get(FINGERPRINT_TAG, "") for stage in stages}
        ),
    }
    taken = sorted(set(own) & set(more or {}))
    if taken:
        raise ConfigError(
            "tag is Muster's own", got=", ".join(taken), do="give the tags other names"
        )
    return {**own, **(more or {})}
