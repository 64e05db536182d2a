"""Further texts that the store keeps, or that processes of several versions share."""

from __future__ import annotations

import zlib
from pathlib import Path

from muster.backends.slurm.backend import submission_folder
from muster.backends.slurm.parse import JobRow
from muster.backends.slurm.queue_snapshot import QueueSnapshot, pack_snapshot, unpack_snapshot
from muster.resampling.config.datasets import Dataset
from muster.resampling.layer import GridSpec, Layer
from tests.unit.pins import frozen
from tests.unit.pins.golden_files import check_golden, check_literal, read_golden


@frozen.pinned
def layer() -> Layer:
    return Layer(
        key="wind@2024-03",
        dataset=Dataset(
            name="wind",
            path="/data/wind-2024-03.tif",
            method="average",
            band=2,
            weights="spherical",
            nodata=-9999.0,
            range=(0.0, 100.0),
            min_valid_fraction=0.5,
            dtype="float64",
            store=("tiles", "rows", "cog"),
            table="winds",
            unit="m/s",
            description="at ten metres",
        ),
        sources=("/data/wind-2024-03.tif",),
        versions=("1234 1700000000000000000", "float32, nodata -9999.0"),
        grid=GridSpec(
            crs="EPSG:4326", transform=(0.5, 0, -180, 0, -0.5, 90), height=360, width=720
        ),
        dtype="float64",
        nodata=-1.0,
        kind="block",
        reason="4 × 4 pixels a cell",
        tolerance_px=0.01,
        fingerprint="01" * 32,
        cog="/maps/2024-03/wind.tif",
        table="winds_2024_03",
        tiles=True,
        registered=True,
    )


def test_a_layer_is_stored_in_the_same_words() -> None:
    user = "is stored in dataset.layer, in elements of batches, and is read back for each merge"
    check_golden("layer.json", layer().model_dump_json(indent=1), user)
    read = frozen.read_stored(Layer, "layer.json")
    check_golden("layer.json", read.model_dump_json(indent=1), user)


def test_the_pinned_layer_says_something_in_every_field() -> None:
    """But ``categories``, which go with other methods."""
    assert list(frozen.left_at_default(layer())) == ["dataset.categories"]


def test_a_look_at_a_cluster_is_shared_in_the_same_words() -> None:
    """By all processes that supervise batches there, the old triggerer and the new worker."""
    row = JobRow(
        name="key",
        job_id=4711,
        task=1,
        state="FAILED",
        reason="NonZeroExitCode",
        exit_code=70,
        signal=9,
        node="gpu1",
        rest=True,
        started_at=frozen.AT.replace(microsecond=0),
        ended_at=frozen.AT.replace(microsecond=0),
    )
    seen = QueueSnapshot(frozen.AT, {"key": {4711: {1: row}}}, frozenset({"lost"}), 3)
    user = "is stored in cluster.seen, which processes of several versions share"
    check_golden("seen.json", zlib.decompress(pack_snapshot(seen, {"key"})).decode(), user)
    kept = zlib.compress(read_golden("seen.json").encode())
    read = unpack_snapshot(frozen.AT, kept)
    check_literal("a stored look", (read.queued, read.unanswered), (3, frozenset({"lost"})), user)
    assert read.row("key", "4711", 1) == row


def test_a_submission_to_slurm_has_its_folder() -> None:
    batch = frozen.read_stored(frozen.Batch, "batch-slurm.json")
    wave = frozen.Wave(batch, "key", {0: 1}, batch.resources)
    check_literal(
        "folder of a submission",
        str(submission_folder(wave)),
        f"{Path(batch.work_uri)}/slurm/key",
        "is where jobs that run have their script, variables and elements",
    )
