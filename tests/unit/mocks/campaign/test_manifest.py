"""The manifest says what there is, in a form that sha256sum, SQLite and Parquet readers know."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from muster.errors import InvalidInput, MissingInput, Transient
from muster.mocks.campaign.facts import read_facts
from muster.mocks.campaign.manifest import (
    DATABASE,
    JOBS,
    MANIFEST,
    TABLE,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from muster.mocks.campaign.record_database import explain_sqlite_error
from tests.unit.mocks.campaign.staged_campaign import (
    REDSHIFTS,
    catalogue_facts,
    make_campaign,
    renew_manifest,
    write_facts,
)

if TYPE_CHECKING:
    from pathlib import Path

JOB = {"step": "mocks.populate", "name": "r0000_z1.100", "state": "completed"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_campaign(tmp_path / "campaigns")


def check_with_sha256sum(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sha256sum", "--check", "--strict", MANIFEST],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_sha256sum_verifies_the_campaign_and_finds_what_changed(folder: Path) -> None:
    ended = check_with_sha256sum(folder)
    assert ended.returncode == 0
    assert ended.stdout.count(": OK") == 4 * len(REDSHIFTS)
    victim = folder / "catalogs" / "r0002" / "mock_z1.000.hdf5"
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    ended = check_with_sha256sum(folder)
    assert ended.returncode == 1
    assert ended.stdout.count("FAILED") == 1
    assert "r0002/mock_z1.000.hdf5: FAILED" in ended.stdout


def test_facts_in_any_order_give_the_same_bytes_as_the_folder(folder: Path, tmp_path: Path) -> None:
    from_folder = (folder / MANIFEST).read_bytes()
    facts = catalogue_facts(folder)
    texts = set()
    for seed in range(3):
        random.Random(seed).shuffle(facts)
        renew_manifest(folder, facts=write_facts(tmp_path / "f.json", catalogues=facts, jobs=[JOB]))
        assert (folder / MANIFEST).read_bytes() == from_folder
        texts.add(hashlib.sha256((folder / TABLE).read_bytes()).hexdigest())
    assert len(texts) == 1
    rows = pq.read_table(folder / TABLE).to_pylist()
    assert {(r["realization"], r["redshift"], r["fingerprint"]) for r in rows} == {
        (f["realization"], f["redshift"], f["fingerprint"]) for f in facts
    }


def test_a_parquet_table_of_facts_is_read_like_json(folder: Path, tmp_path: Path) -> None:
    facts = catalogue_facts(folder)
    pq.write_table(pa.Table.from_pylist(facts), tmp_path / "f.parquet")
    found = read_facts(str(tmp_path / "f.parquet"))
    assert found == read_facts(write_facts(tmp_path / "f.json", catalogues=facts))
    assert len(found.catalogues) == 12


def test_the_record_holds_campaign_jobs_and_artifacts(folder: Path, tmp_path: Path) -> None:
    jobs = [
        {**JOB, "realization": 3, "redshift": 1.1, "attempts": 2, "host": "n1", "seconds": 1.5},
        {
            **JOB,
            "name": "x",
            "state": "failed",
            "outcome": "timed_out",
            "message": "a 'mark'",
        },
        {**JOB, "realization": 0, "redshift": 0.8},
    ]
    facts = write_facts(
        tmp_path / "f.json",
        campaign={"name": "small", "version": "v1"},
        catalogues=catalogue_facts(folder),
        jobs=jobs,
    )
    done = renew_manifest(folder, facts=facts, campaign={"seeds": [1, 2]}, expected=12)
    assert done["jobs"] == {"completed": 2, "failed": 1}
    assert (done["catalogues"], done["absent"], done["missing"]) == (12, 0, 0)
    with sqlite3.connect(folder / DATABASE) as connection:
        assert dict(connection.execute("SELECT * FROM campaign")) == {
            "name": "small", "version": "v1", "seeds": "[1, 2]",
        }  # fmt: skip
        stored = connection.execute(
            "SELECT name, realization, redshift, state, outcome, attempts, host, seconds, message"
            " FROM jobs ORDER BY rowid"
        ).fetchall()
        (total,) = connection.execute("SELECT sum(bytes) FROM artifacts").fetchone()
    connection.close()
    assert stored == [
        ("x", None, None, "failed", "timed_out", 0, None, None, "a 'mark'"),
        ("r0000_z1.100", 0, 0.8, "completed", None, 0, None, None, None),
        ("r0000_z1.100", 3, 1.1, "completed", None, 2, "n1", 1.5, None),
    ]
    assert total == done["bytes"] == sum(f["bytes"] for f in catalogue_facts(folder))
    table = pq.read_table(folder / JOBS).to_pylist()
    assert [(r["name"], r["attempts"]) for r in table] == [(s[0], s[5]) for s in stored]


def test_catalogues_that_are_recorded_and_absent_are_named_and_left_out(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = write_facts(tmp_path / "f.json", catalogues=catalogue_facts(folder))
    gone = "catalogs/r0001/mock_z0.800.hdf5"
    (folder / gone).unlink()
    done = renew_manifest(folder, facts=facts, expected=13)
    assert (done["absent"], done["absent_names"]) == (1, [gone])
    assert (done["catalogues"], done["missing"]) == (11, 2)
    there = {str(path.relative_to(folder)) for path in (folder / "catalogs").rglob("*.hdf5")}
    assert set(read_manifest(str(folder / MANIFEST))) == there
    assert {row["name"] for row in pq.read_table(folder / TABLE).to_pylist()} == there
    with sqlite3.connect(folder / DATABASE) as connection:
        assert {name for (name,) in connection.execute("SELECT name FROM artifacts")} == there
    connection.close()
    assert done["bytes"] == sum((folder / name).stat().st_size for name in there)
    assert check_with_sha256sum(folder).returncode == 0
    assert gone in caplog.text


WRITE = """
import resource, sys
from pathlib import Path
from muster.mocks.campaign.manifest import write_manifest
folder, facts, most = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
outputs = {name: folder / name for name in ("manifest", "table", "jobs", "database")}
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
try:
    write_manifest(folder=str(folder), facts=facts, **outputs)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("output", "most_bytes", "jobs"),
    [("manifest", 500, 0), ("table", 1500, 0), ("jobs", 12_000, 2000), ("database", 12_000, 0)],
)
def test_a_file_that_cannot_grow_may_be_written_next_time(
    folder: Path, tmp_path: Path, output: str, most_bytes: int, jobs: int
) -> None:
    facts = write_facts(
        tmp_path / "f.json",
        catalogues=catalogue_facts(folder),
        jobs=[{**JOB, "message": hashlib.sha256(b"%d" % n).hexdigest()} for n in range(jobs)],
    )
    ended = subprocess.run(
        [sys.executable, "-c", WRITE, str(folder), facts, str(most_bytes)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.startswith("Transient "), ended.stdout
    assert f"where: {folder / output};" in ended.stdout


def test_a_full_disk_is_told_from_a_file_that_is_no_database(tmp_path: Path) -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.executescript("CREATE TABLE t (x); PRAGMA max_page_count = 2;")
        with pytest.raises(sqlite3.OperationalError, match="disk is full") as full:
            connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    connection.close()
    assert isinstance(explain_sqlite_error(full.value, "x.db"), Transient)
    (tmp_path / "x.db").write_bytes(b"no database" * 100)
    with (
        sqlite3.connect(tmp_path / "x.db") as connection,
        pytest.raises(sqlite3.DatabaseError) as foreign,
    ):
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert isinstance(explain_sqlite_error(foreign.value, "x.db"), InvalidInput)


def test_what_is_hidden_or_no_catalogue_is_not_listed(folder: Path) -> None:
    before = read_manifest(str(folder / MANIFEST))
    for name in ("r0000/.mock.hdf5", "r0000/notes.txt", "r0000/deep/x.hdf5", "stray.hdf5"):
        path = folder / "catalogs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (folder / "catalogs" / "r0000" / "link.hdf5").symlink_to("/etc/hostname")
    renew_manifest(folder)
    assert read_manifest(str(folder / MANIFEST)) == before


def test_a_campaign_without_results_has_an_empty_manifest(tmp_path: Path) -> None:
    (tmp_path / "catalogs").mkdir()
    done = renew_manifest(tmp_path, expected=3)
    assert (done["catalogues"], done["missing"], done["jobs"]) == (0, 3, {})
    assert read_manifest(str(tmp_path / MANIFEST)) == {}
    assert pq.read_table(tmp_path / JOBS).num_rows == 0


def test_a_folder_that_is_no_campaign_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="no catalogues"):
        renew_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"uri": "/elsewhere/x.hdf5"}, "lies outside the campaign's folder"),
        ({"uri": "{folder}/../x.hdf5"}, "not a name of a file below a folder"),
        ({"uri": "{folder}/catalogs/a\nb.hdf5"}, "not a name of a file below a folder"),
        ({"sha256": "A" * 64}, "catalogues.0.sha256"),
        ({"bytes": -1}, "catalogues.0.bytes"),
        ({"bytes": 2**63}, "catalogues.0.bytes"),
        ({"realization": 100_000}, "catalogues.0.realization"),
        ({"redshift": "NaN"}, "catalogues.0.redshift"),
        ({"extra": 1}, "catalogues.0.extra"),
    ],
)
def test_facts_that_cannot_be_are_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    change = {k: v.format(folder=folder) if k == "uri" else v for k, v in change.items()}
    rows = [{**catalogue_facts(folder)[0], **change}]
    with pytest.raises(InvalidInput, match=says):
        renew_manifest(folder, facts=write_facts(tmp_path / "f.json", catalogues=rows))


def test_two_facts_of_one_catalogue_must_agree(folder: Path, tmp_path: Path) -> None:
    first, *_ = catalogue_facts(folder)
    twice = write_facts(tmp_path / "f.json", catalogues=[first, first])
    assert renew_manifest(folder, facts=twice)["catalogues"] == 1
    other = write_facts(tmp_path / "g.json", catalogues=[first, {**first, "sha256": "0" * 64}])
    with pytest.raises(InvalidInput, match="two facts of one catalogue differ"):
        renew_manifest(folder, facts=other)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"catalogues": 3}'])
@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_a_spoilt_file_of_facts_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"f.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InvalidInput):
        read_facts(str(path))


@pytest.mark.parametrize(
    "text",
    ["x", "0" * 64 + " x", "0" * 64 + "  ../x", "0" * 64 + "  /x", "0" * 64 + "  a\\b", "\n",
     f"{'0' * 64}  x\n{'1' * 64}  x\n"],
)  # fmt: skip
def test_a_spoilt_manifest_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="m, line"):
        parse_manifest(text, "m")


def test_forty_thousand_catalogues_take_seconds(tmp_path: Path) -> None:
    names = [f"catalogs/r{r:04d}/mock_z{z / 10:.3f}.hdf5" for r in range(2000) for z in range(20)]
    for realization in range(2000):
        (tmp_path / "catalogs" / f"r{realization:04d}").mkdir(parents=True)
    for name in names[:-1]:
        (tmp_path / name).touch()
    rows = [
        {
            "realization": int(name[10:14]), "redshift": float(name[21:26]), "bytes": number,
            "uri": str(tmp_path / name), "sha256": f"{number:064x}",
        }
        for number, name in enumerate(names)
    ]  # fmt: skip
    jobs = [{**JOB, "name": n, "realization": n % 2000} | {"name": str(n)} for n in range(40_000)]
    facts = write_facts(tmp_path / "f.json", catalogues=rows, jobs=jobs)
    began = time.process_time()
    outputs = {n: tmp_path / n for n in ("manifest", "table", "jobs", "database")}
    done = write_manifest(folder=str(tmp_path), facts=facts, **outputs)
    assert time.process_time() - began < 5
    assert (done["catalogues"], done["absent"]) == (39_999, 1)
    assert list(read_manifest(str(outputs["manifest"]))) == sorted(names)[:-1]
