"""A small campaign's folder on disk, for tests of its manifest, staging and archive."""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from muster.mocks.campaign.facts import CatalogueFact
from muster.mocks.campaign.manifest import MANIFEST, TABLE, publish_manifest, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

REDSHIFTS = (1.1, 1.0, 0.8)


def make_campaign(
    base: Path, *, realizations: int = 4, most_bytes: int = 3000, seed: int = 7
) -> Path:
    """Make a campaign's folder: catalogues of random bytes, metadata, logs, qa, manifest."""
    folder = base / "small_v1"
    draw = random.Random(seed)
    for realization in range(realizations):
        for redshift in REDSHIFTS:
            path = folder / "catalogs" / f"r{realization:04d}" / f"mock_z{redshift:.3f}.hdf5"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw.randbytes(draw.randint(1, most_bytes)))
    for name, text in {
        "metadata/campaign_config.yaml": "campaign: {name: small}\n",
        "metadata/provenance.json": "{}\n",
        "logs/batch_0000.sh": "#!/bin/sh\n",
        "logs/batch_0000_0.out": "done\n",
        "qa/summary_plots/power.png": "not a picture\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    renew_manifest(folder)
    return folder


def renew_manifest(folder: Path, **arguments: Any) -> dict[str, Any]:
    """Write the manifest and the record of a campaign's folder anew."""
    return publish_manifest(str(folder), **arguments)


def catalogue_facts(folder: Path) -> list[dict[str, Any]]:
    """State the catalogues of a campaign's folder as the store's record would."""
    return [
        {
            "realization": int(path.parent.name[1:]),
            "redshift": float(path.stem.rpartition("z")[2]),
            "uri": str(path),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
            "fingerprint": f"f{number}",
        }
        for number, path in enumerate(sorted((folder / "catalogs").rglob("*.hdf5")))
    ]


def write_facts(path: Path, **parts: Any) -> str:
    path.write_text(json.dumps(parts))
    return str(path)


def check_all_are_listed(folder: Path, place: str, first_uri: str) -> None:
    """Check that a manifest after a removal lists what the one before did, and where it lies."""
    before = read_manifest(str(folder / MANIFEST))
    rows = pq.read_table(folder / TABLE).to_pylist()
    assert {row["place"] for row in rows} == {"here"}
    known = [{name: row[name] for name in CatalogueFact.model_fields} for row in rows]
    facts = write_facts(folder.parent / "facts.json", catalogues=known)
    for given in ({}, {"facts": facts}):
        renewed = renew_manifest(folder, **given)
        assert (renewed["places"], renewed["absent"]) == ({place: len(before)}, 0)
        assert read_manifest(str(folder / MANIFEST)) == before
        now = pq.read_table(folder / TABLE).to_pylist()
        assert {row["place"] for row in now} == {place}
        assert now[0]["uri"] == first_uri
        same = ("sha256", "bytes", "realization", "redshift")
        assert [[row[name] for name in same] for row in now] == [
            [row[name] for name in same] for row in rows
        ]


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder that is not hidden, by relative name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    }
