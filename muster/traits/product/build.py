"""Step traits.build: the one file a trait that people use, a picture of it, and its STAC item.

The product holds what its band rasters hold, a quarter as large: a cloud-optimised GeoTIFF in
int16 whose bands say what they are, in which unit, and how to read them, and whose tags say what
it was made from.  A band without a band raster is taken over from the product that is there.
"""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003
from typing import TYPE_CHECKING, Any

import numpy as np

import muster
from muster.errors import ConfigError, InvalidInput
from muster.model.step import StepContext
from muster.raster.gdal import gdal_environment
from muster.raster.windows import WindowPlan, plan_memory, plan_windows
from muster.raster.write.cog import CogFormat, write_cog
from muster.raster.write.integrity import check_output_folder
from muster.raster.write.packing import INT16_NODATA, Packing, plan_packing
from muster.traits.band_names import BAND_ORDER
from muster.traits.bundle.bundle import Bundle, read_bundle
from muster.traits.product.existing import (
    FINGERPRINTS_TAG,
    LABEL_TAGS,
    MADE_FROM_TAG,
    OLDER,
    TAGS_SHA256_TAG,
)
from muster.traits.product.product_bands import Former, ProductBand, open_bands
from muster.traits.product.quicklook import draw_quicklook
from muster.traits.product.stac import ProductFacts, make_item, write_item

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.raster.grid import Grid

SATURATED_TAG = "MUSTER_SATURATED_PIXELS"

_FORMAT = CogFormat(dtype="int16", nodata=INT16_NODATA)


def build_final_product_trait(
    *,
    bundle: str,
    bands: dict[str, str],
    product: Path,
    quicklook: Path,
    item: Path | None = None,
    former: dict[str, Any] | None = None,
    label: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Make the product of a trait, its quicklook and its STAC item.

    Parameters
    ----------
    bundle : str
        URI of the model bundle.
    bands : dict of str to str
        "prediction", "cov", "aoa" → URI of the band raster.  One that is not there is left out of
        the product, but the prediction must be.
    product : Path
        The COG to write: int16, −32768 for nodata, scale and offset a band.
    quicklook : Path
        The PNG to write.
    item : Path, optional
        The STAC item to write.
    former : dict, optional
        ``product``, the URI of a product that may be there already; ``held``, band → fingerprint:
        bands that are taken over from it as they are where there is no band raster; and
        ``needed``, bands without which nothing is built.
    label : dict, optional
        ``unit``, ``description`` and ``try_id`` of the trait, in the place of the bundle's;
        ``made_from``, band → parts of the fingerprint; ``engines``, band → what computed it,
        where that is known.
    tags : dict of str to str, optional
        More tags of the product.
    context : StepContext
        Threads, memory, scratch folder, progress.

    Returns
    -------
    dict
        ``bands`` (their descriptions), ``taken_over`` (those of the former product),
        ``saturated_pixels`` of the coefficient of variation, ``bytes`` of the product, and
        ``inside_fraction`` of the pixels with an area of applicability, where there is that band.

    Raises
    ------
    ConfigError
        When ``bands``, ``label`` or ``tags`` have unknown keys.
    MissingInput
        When bundle, prediction or a needed band are not there.
    InvalidInput
        When a raster is broken or lies on another grid, or the output cannot be written.
    Transient
        When there is no space, or the network failed.
    """
    _check_keys("band of a product", bands, BAND_ORDER)
    _check_keys("label of a product", label or {}, (*LABEL_TAGS, "made_from", "engines"))
    # Found out now, not after the work.
    check_output_folder(product)
    check_output_folder(quicklook)
    model = read_bundle(bundle, context.scratch)
    said = {"unit": model.unit, "description": model.description, **(label or {})}
    taken = Former(**former) if former else None
    with (
        gdal_environment(context.threads, plan_memory(context.memory_mib).cache_mib),
        open_bands(model.trait, said["unit"], bands, taken) as (grid, sources),
    ):
        windows = _plan(grid, sources, context)
        sources = tuple(
            source.packed_as(_plan_packing(source, windows, context))
            if source.name == "prediction" and not source.copied
            else source
            for source in sources
        )
        facts = _write_product(
            product, grid, sources, windows, _make_tags(model, sources, said, tags), context
        )
    draw_quicklook(product, quicklook, f"{model.trait}: {said['description']}".rstrip(": "))
    if item is not None:
        about = ProductFacts(
            created=datetime.now(UTC),
            try_id=said.get("try_id") or None,
            inside_fraction=facts.get("inside_fraction"),
            engines={
                source.name: said["engines"][source.name]
                for source in sources
                if source.name in said.get("engines", {})
                and not source.fingerprint.startswith(OLDER)
            },
        )
        write_item(make_item(product, quicklook, about), item)
    context.progress(1.0, "product written")
    return {
        "bands": [source.band.description for source in sources],
        "taken_over": [source.name for source in sources if taken and source.uri == taken.product],
        "bytes": product.stat().st_size,
        **facts,
    }


def _check_keys(what: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"unknown {what}", got=", ".join(unknown), expected=", ".join(known))


def _plan(grid: Grid, stages: Sequence[ProductBand], context: StepContext) -> WindowPlan:
    # A value as it is read, as it is packed, and what is between the two.
    # Strips of a small raster aside, a few megapixels are as fast as more.
    most = plan_memory(context.memory_mib).pixels(len(stages) * 48, 1 << 21)
    height, width = stages[0].dataset.block_shapes[0]
    return plan_windows(grid, (int(height), int(width)), most)


def _plan_packing(stage: ProductBand, windows: WindowPlan, context: StepContext) -> Packing:
    """Choose a packing by the range that the step has recorded, or measure it."""
    if stage.range is not None:
        return plan_packing(*stage.range)
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
    stages: Sequence[ProductBand],
    windows: WindowPlan,
    tags: Mapping[str, str],
    context: StepContext,
) -> dict[str, Any]:
    saturated = sum(
        int(stage.dataset.tags().get(SATURATED_TAG, 0))
        for stage in stages
        if stage.name == "cov" and stage.copied
    )
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
                packed[index], count = stage.read_packed(window)
                if stage.name == "cov":
                    saturated += count
                elif count and stage.range is not None:
                    raise InvalidInput(
                        "band raster holds values outside the range that it records",
                        where=stage.uri,
                        got=f"{count} of them in one window",
                        expected=f"{stage.range[0]:g} to {stage.range[1]:g}",
                        do="remove the file, and run the step again",
                    )
                if stage.name == "aoa":
                    covered += int(np.count_nonzero(packed[index] != INT16_NODATA))
                    inside += int(np.count_nonzero(packed[index] == 1))
            if (packed != INT16_NODATA).any():
                cog.write(window, packed)
            context.progress(0.3 + 0.3 * number / len(windows), "packing")
        if any(stage.name == "cov" for stage in stages):
            cog.tags[SATURATED_TAG] = str(saturated)
    facts: dict[str, Any] = {"saturated_pixels": saturated}
    if covered:
        facts["inside_fraction"] = inside / covered
    return facts


def _make_tags(
    model: Bundle,
    sources: Sequence[ProductBand],
    said: Mapping[str, Any],
    more: Mapping[str, str] | None,
) -> dict[str, str]:
    """List the tags of a product; Muster's own begin with MUSTER_."""
    made_from = said.get("made_from") or {}
    # A prediction of the older kind is of another model than the bundle's, and nobody knows which.
    ours = not sources[0].fingerprint.startswith(OLDER)
    own = {
        "MUSTER_TRAIT": model.trait,
        "MUSTER_MODEL_SHA256": model.model_sha256 if ours else "",
        "MUSTER_BUNDLE_SHA256": model.sha256 if ours else "",
        "MUSTER_CV": json.dumps(dict(model.cv) if ours else {}, sort_keys=True),
        "MUSTER_VERSION": muster.__version__,
        FINGERPRINTS_TAG: json.dumps({source.name: source.fingerprint for source in sources}),
        MADE_FROM_TAG: json.dumps(
            {
                source.name: made_from[source.name]
                for source in sources
                if source.name in made_from and not source.fingerprint.startswith(OLDER)
            }
        ),
        **{tag: str(said.get(key) or "") for key, tag in LABEL_TAGS.items()},
    }
    taken = sorted(set(own) & set(more or {}))
    if taken:
        raise ConfigError(
            "tag is Muster's own", got=", ".join(taken), do="give the tags other names"
        )
    tags = {**own, **(more or {})}
    content = json.dumps(tags, sort_keys=True).encode()
    return {**tags, TAGS_SHA256_TAG: hashlib.sha256(content).hexdigest()}
