"""``muster campaign`` and ``muster mocks`` as they are typed: what they say, make and refuse."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.batches import add_steps_to_path
from tests.conftest import fresh_database
from tests.mock_campaigns import write_campaign, write_haloes
from tests.system.desk import Desk, Ran, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("h5py", reason="h5py is not installed: make mocks")

REDSHIFTS = (1.1, 0.5)
USAGE, DATA, NO_INPUT, UNAVAILABLE = 64, 65, 66, 75


@pytest.fixture
def desk(
    tmp_path: Path, store_url: str, migrated_template: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    """A desk of the test's own, at which the tests' galaxy model is installed."""
    add_steps_to_path(monkeypatch)
    with fresh_database(store_url, migrated_template) as url:
        yield Desk(tmp_path / "at", url, tmp_path)


def error_of(ran: Ran, code: int) -> str:
    """Expect a refusal: this exit code, nothing on stdout, and one line on stderr."""
    assert ran.code == code, (ran.code, ran.stdout, ran.stderr)
    assert not ran.stdout
    (line,) = ran.complaints
    return line


def write_faulty(folder: Path, **changes: Any) -> Path:
    """Write a campaign of 3 × 2: one without haloes, two that fail while ``fault`` is there."""
    (folder / "ledger").mkdir(exist_ok=True)
    (folder / "fault").touch()
    box = write_haloes(folder / "haloes", 3, REDSHIFTS, missing=(1,))
    said: dict[str, Any] = {
        "realizations": 3,
        "redshifts": REDSHIFTS,
        "suite": "hdf5",
        "box": box,
        "model": "faulty",
        "parameters": {
            "massless": [2],
            "harm_while": str(folder / "fault"),
            "ledger": str(folder / "ledger"),
        },
        "max_retries": 0,
        "quorum": 0.9,
    }
    return write_campaign(folder, **said | changes)


# -- before anything runs ----------------------------------------------------------------------


def test_validate_lists_every_error_with_key_and_line(desk: Desk) -> None:
    file = write_campaign(desk.folder)
    ran = desk.invoke("campaign", "validate", file.name)
    assert (ran.code, ran.stdout) == (0, f"{file.name} is valid: 1_small\n")

    text = file.read_text()
    spoilt = text.replace("seed: 5", "sede: 5").replace("execution: {}", "execution:\n  pack: 0")
    assert spoilt.count("sede") == spoilt.count("pack") == 1
    file.write_text(spoilt)
    ran = desk.invoke("campaign", "validate", file.name)
    assert ran.code == DATA
    lines = ran.stdout.splitlines()
    assert lines[-1] == f"{file.name}: 2 to mend"
    for key in ("sede", "pack"):
        (line,) = [line for line in lines[:-1] if f".{key}" in line]
        number = next(i for i, row in enumerate(spoilt.splitlines(), 1) if f"{key}:" in row)
        assert re.search(rf"\b{number}\b", line), line
    assert "seed" in next(line for line in lines if "sede" in line), "what was meant"
    told = desk.invoke("campaign", "validate", file.name, "--json")
    assert told.code == DATA
    assert (told.json()["valid"], len(told.json()["problems"])) == (False, 2)
    for command in (["init", file.name], ["submit", file.name, "--here"], ["estimate", file.name]):
        refused = desk.invoke("campaign", *command)
        assert refused.code == DATA
        assert all(key in refused.stderr for key in ("sede", "pack")), refused.stderr
    file.write_text(text.replace(str(desk.folder / "campaigns"), f"{file}/campaigns"))
    ran = desk.invoke("campaign", "validate", file.name)
    assert ran.code == DATA
    assert re.search(rf"line \d+: outputs.base_path: {file} is no folder; got", ran.stdout)
    assert desk.invoke("campaign", "list").stdout == "no campaigns yet\n"


def test_explain_tells_each_value_and_its_source(desk: Desk) -> None:
    file = write_campaign(desk.folder, batch_size=7)
    rows = {
        row["key"]: row for row in desk.invoke("campaign", "explain", file.name, "--json").json()
    }
    assert rows["execution.batch_size"]["value"] == 7
    assert file.name in rows["execution.batch_size"]["source"]
    assert rows["execution.max_retries"]["value"] == 3
    assert "default" in rows["execution.max_retries"]["source"]
    memory = [row for key, row in rows.items() if "memory" in key and "laptop" in row["source"]]
    assert memory, "what an element asks for is the site's to say"
    shown = desk.invoke("campaign", "explain", file.name).stdout.splitlines()
    assert len(shown) == len(rows)


def test_estimate_tells_batches_and_arrays_of_a_part(desk: Desk) -> None:
    file = write_campaign(desk.folder, realizations=2000, redshifts=(1.1, 0.8, 0.5), batch_size=10)
    size = desk.invoke("campaign", "estimate", file.name, "--json").json()["size"]
    assert (size["elements"], size["arrays"]) == (6000, 600)
    assert size["batches"] <= 250
    assert size["batches"] * size["elements_per_batch"] >= 6000
    part = desk.invoke(
        "campaign", "estimate", file.name, "--slice", "1", "--redshift", "0.8", "--json"
    )
    assert part.json()["size"]["elements"] == 100
    told = desk.invoke("campaign", "estimate", file.name)
    assert "6,000 catalogues" in told.stdout
    assert "at once; 20 slices" in told.stdout
    assert "array" not in told.stdout, "arrays are Slurm's"
    refused = desk.invoke("campaign", "estimate", file.name, "--redshift", "0.7")
    assert "0.7" in error_of(refused, DATA)
    refused = desk.invoke("campaign", "estimate", file.name, "--slice", "20")
    assert "slice" in error_of(refused, DATA)


def test_init_happens_once_and_a_change_is_a_new_version(desk: Desk) -> None:
    file = write_campaign(desk.folder)
    ran = desk.invoke("campaign", "init", file.name, "--allow-dirty")
    assert ran.code == 0, ran.stderr
    folder = desk.folder / "campaigns" / "1_small"
    assert str(folder) in ran.stdout
    provenance = json.loads((folder / "metadata" / "provenance.json").read_text())
    again = desk.invoke("campaign", "init", file.name, "--allow-dirty")
    assert (again.code, again.stdout) == (0, ran.stdout)
    assert json.loads((folder / "metadata" / "provenance.json").read_text()) == provenance

    changed = file.read_text().replace("seed: 5", "seed: 6")
    file.write_text(changed)
    refused = desk.invoke("campaign", "init", file.name, "--allow-dirty")
    assert "version" in error_of(refused, DATA)
    refused = desk.invoke("campaign", "submit", file.name, "--here", "--allow-dirty")
    assert "version" in error_of(refused, DATA)
    assert " INFO run " not in refused.stderr, "no run was begun"
    file.write_text(changed.replace("version: '1'", "version: '2'"))
    new = desk.invoke(
        "campaign", "init", file.name, "--allow-dirty", "--descends-from", "1_small", "--json"
    )
    assert new.code == 0, new.stderr
    assert new.json()["descends_from"] == "1_small"
    listed = desk.invoke("campaign", "list", "--json").json()
    assert [row["version"] for row in listed] == ["2", "1"]
    assert len(desk.invoke("campaign", "list").stdout.splitlines()) == 2


def test_a_name_that_is_unknown_or_fits_two_is_refused_in_a_line(desk: Desk) -> None:
    for name in ("Small", "small!"):  # both lie in a folder 1_small or 2_small_
        version = "1" if name == "Small" else "2"
        file = write_campaign(desk.folder, name=name, version=version)
        assert desk.invoke("campaign", "init", file.name, "--allow-dirty").code == 0
    assert desk.invoke("campaign", "status", "1_small").code == 0
    commands = (["status"], ["monitor"], ["retry"], ["cancel"], ["advise"], ["report"], ["explain"],
                ["estimate"], ["submit"], ["clean"])  # fmt: skip
    for command in commands:
        refused = desk.invoke("campaign", *command, "nobody_knows_it")
        assert "nobody_knows_it" in error_of(refused, NO_INPUT), command
    for command in ("stage", "archive"):
        refused = desk.invoke("campaign", command, "nobody_knows_it", "elsewhere")
        assert "nobody_knows_it" in error_of(refused, NO_INPUT)
    absent = desk.invoke("campaign", "status", "absent.yaml", "--verbose")
    assert "absent.yaml" in error_of(absent, NO_INPUT)
    for command in ("report", "advise"):
        assert "no run" in error_of(desk.invoke("campaign", command, "1_small"), NO_INPUT)
    assert "no run" in error_of(desk.invoke("campaign", "cancel", "1_small"), DATA)


def test_of_a_name_that_two_campaigns_share_both_are_told(desk: Desk) -> None:
    """A VERSION_NAME may be another campaign's name."""
    for name, version in (("b", "a"), ("a_b", "1")):
        file = write_campaign(desk.folder, name=name, version=version)
        ran = desk.invoke("campaign", "init", file.name, "--allow-dirty")
        assert ran.code == 0, ran.stderr
    line = error_of(desk.invoke("campaign", "status", "a_b"), DATA)
    assert "several campaigns fit" in line
    assert "a of b" in line
    assert "1 of a_b" in line


def test_an_option_that_there_is_not_is_refused(desk: Desk) -> None:
    file = write_campaign(desk.folder)
    assert desk.invoke("campaign", "submit", file.name, "--frist", "1").code == USAGE
    assert desk.invoke("campaign", "submit", file.name, "--order", "sideways").code == USAGE
    refused = desk.invoke("campaign", "submit", file.name, "--here", "--realizations", "1-")
    assert "1-" in error_of(refused, DATA)
    refused = desk.invoke("campaign", "submit", file.name, "--no-wait", "--allow-dirty")
    assert "cannot be left alone; where: mocks.populate; got: pool local" in error_of(refused, DATA)
    assert not (desk.folder / "campaigns").exists()


def test_an_airflow_that_is_named_and_does_not_answer_is_no_reason_to_run_here(desk: Desk) -> None:
    file = write_campaign(desk.folder)
    named = {"MUSTER_AIRFLOW_URL": "http://127.0.0.1:1"}
    refused = desk.invoke("campaign", "submit", file.name, **named)
    assert "MUSTER_AIRFLOW_USER" in error_of(refused, DATA)
    login = {"MUSTER_AIRFLOW_USER": "a", "MUSTER_AIRFLOW_PASSWORD": "b"}
    refused = desk.invoke("campaign", "submit", file.name, **named, **login)
    assert "Airflow does not answer" in error_of(refused, UNAVAILABLE)
    assert not (desk.folder / "campaigns").exists()


# -- one campaign, from its submission to its archive ------------------------------------------


@pytest.mark.slow
def test_a_campaign_from_its_submission_to_its_archive(desk: Desk) -> None:
    folder = desk.folder
    file = write_faulty(folder)
    dry = desk.invoke("campaign", "submit", file.name, "--dry-run")
    assert dry.code == 0, dry.stderr
    assert not (folder / "campaigns").exists()

    ran = desk.invoke("campaign", "submit", file.name, "--here", "--allow-dirty", "--json")
    assert ran.code == 1, ran.stderr
    answer = ran.json()
    assert not answer["good"]
    assert_status_tells_it(desk, answer["run"])

    shown = desk.invoke("campaign", "retry", "Small")
    assert shown.code == 0
    assert shown.stdout.splitlines()[-1] == "2 would be tried again"
    assert len(shown.stdout.splitlines()) == 3
    spent = desk.invoke("campaign", "retry", "Small", "--max-attempts", "1", "--json").json()
    assert (len(spent["elements"]), len(spent["exhausted"])) == (0, 2)
    made = {path: path.stat().st_mtime_ns for path in folder.glob("campaigns/*/catalogs/*/*")}
    assert len(made) == 3

    (folder / "fault").unlink()
    ran = desk.invoke("campaign", "retry", "Small", "--submit", "--here")
    assert ran.code == 0, ran.stderr
    assert {path: path.stat().st_mtime_ns for path in made} == made
    attempts = {p.name: len(p.read_text().split()) for p in (folder / "ledger").iterdir()}
    assert attempts == {"0-0": 1, "0-1": 1, "1-0": 1, "2-0": 2, "2-1": 2}
    again = desk.invoke("campaign", "retry", "Small", "--submit")
    assert (again.code, again.stdout) == (0, "nothing is to be tried again\n")
    counts = desk.invoke("campaign", "status", "Small", "--json").json()["counts"]
    assert {s: n for s, n in counts.items() if n} == {"completed": 5, "missing_input": 1}

    assert_report_is_made_again(desk)
    assert_catalogues_are_looked_at(desk)
    assert_it_is_staged_archived_and_cleaned(desk)


def assert_status_tells_it(desk: Desk, run: str) -> None:
    """Status, plain and verbose, as JSON, by name, label, folder and file."""
    names = ("Small", "1_small", str(desk.folder / "campaigns" / "1_small"), "small-1.yaml")
    reports = [desk.invoke("campaign", "status", name, "--json").json() for name in names]
    assert all(report == reports[0] for report in reports)
    (report, *_) = reports
    counts = {state: n for state, n in report["counts"].items() if n}
    assert counts == {"completed": 3, "failed": 2, "missing_input": 1}
    assert report["success_rate"] == pytest.approx(0.6)
    assert report["total"] == 6
    assert not report["going"]
    assert [r["id"] for r in report["runs"]] == [run]
    plain = desk.invoke("campaign", "status", "Small").stdout
    assert "success rate 60.00%" in plain
    assert "2 software_error InvalidCatalogue" in plain
    verbose = desk.invoke("campaign", "status", "Small", "--verbose").stdout
    for redshift in REDSHIFTS:
        assert f"z {redshift:.3f}: " in verbose
        assert f"z{redshift:.3f}" in verbose.partition("  run ")[2], "each that failed"
    assert desk.invoke("campaign", "monitor", "Small").stdout == f"{plain.splitlines()[0]}\n"
    monitored = desk.invoke("campaign", "monitor", "Small", "--json")
    assert monitored.stdout.count("\n") == 1, "a line a document"
    assert monitored.json() == report
    assert "mocks.populate" in desk.invoke("campaign", "advise", "Small").stdout


def assert_report_is_made_again(desk: Desk) -> None:
    copy = desk.folder / "copy.html"
    ran = desk.invoke("campaign", "report", "Small", "--output", str(copy))
    assert ran.code == 0, ran.stderr
    assert "1_small" in copy.read_text(encoding="utf-8")


def assert_catalogues_are_looked_at(desk: Desk) -> None:
    """The commands of single catalogues: compare, validate, plot; and generate makes the same."""
    catalogs = desk.folder / "campaigns" / "1_small" / "catalogs"
    one, other = (str(catalogs / f"r{r:04d}" / "mock_z1.100.hdf5") for r in (0, 1))
    assert desk.invoke("mocks", "compare", one, one).code == 0
    differ = desk.invoke("mocks", "compare", one, other)
    assert differ.code == 1
    assert "galaxies/pos" in differ.stdout
    whole = desk.invoke("mocks", "validate", one)
    assert (whole.code, whole.stdout) == (0, f"{one}: whole\n")
    plot = desk.invoke("mocks", "plot", one, "--output", "plot.png")
    assert plot.code == 0, plot.stderr
    assert (desk.folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    made = desk.invoke(
        "mocks", "generate", "small-1.yaml", "--realization", "0", "--redshift", "1.1",
        "--output", "one.hdf5",
    )  # fmt: skip
    assert made.code == 0, made.stderr
    assert sha256(desk.folder / "one.hdf5") == sha256(catalogs / "r0000" / "mock_z1.100.hdf5")


def assert_it_is_staged_archived_and_cleaned(desk: Desk) -> None:
    folder = desk.folder / "campaigns" / "1_small"
    staged = desk.invoke("campaign", "stage", "Small", "permanent", "--json")
    assert staged.code == 0, staged.stderr
    (manifest,) = (desk.folder / "permanent").rglob("manifest.sha256")
    there = manifest.parent.parent
    copies = {p.relative_to(there): sha256(p) for p in there.glob("catalogs/*/*")}
    assert copies == {p.relative_to(folder): sha256(p) for p in folder.glob("catalogs/*/*")}
    assert len(copies) == 5
    checked = subprocess.run(
        ["sha256sum", "--check", "--quiet", "metadata/manifest.sha256"],
        cwd=there,
        check=False,
    )
    assert checked.returncode == 0
    again = desk.invoke("campaign", "stage", "Small", "permanent")
    assert again.code == 0, again.stderr

    archived = desk.invoke("campaign", "archive", "Small", "tape")
    assert archived.code == 0, archived.stderr
    tars = list((desk.folder / "tape").rglob("*.tar"))
    assert tars
    listed = subprocess.run(["tar", "-tf", tars[0]], capture_output=True, text=True, check=True)
    assert "mock_z1.100.hdf5" in listed.stdout

    kept = desk.invoke("campaign", "clean", "Small", "--dry-run")
    assert kept.code == 0, kept.stderr
    assert len(list(folder.glob("catalogs/*/*"))) == 5
    with sqlite3.connect(folder / "metadata" / "campaign.db") as database:
        (jobs,) = database.execute(
            "SELECT count(*) FROM jobs WHERE step = 'mocks.populate' AND state = 'completed'"
        ).fetchone()
    assert jobs == 5


# -- one catalogue -----------------------------------------------------------------------------


def test_generate_compare_validate_and_plot_refuse_in_a_line(desk: Desk) -> None:
    file = write_campaign(desk.folder)
    made = desk.invoke(
        "mocks", "generate", file.name, "--realization", "1", "--redshift", "0.5",
        "--output", "deep/one.hdf5", "--json",
    )  # fmt: skip
    assert made.code == 0, made.stderr
    facts = made.json()
    assert facts["galaxies"] > 0
    few = desk.invoke("mocks", "generate", file.name, "--n-gen", "10", "--output", "few.hdf5",
                      "--json")  # fmt: skip
    assert few.json()["halos"] == 10
    for wrong, part in ((["--realization", "7"], "7"), (["--redshift", "0.7"], "0.7")):
        refused = desk.invoke("mocks", "generate", file.name, *wrong, "--output", "no.hdf5")
        assert part in error_of(refused, DATA)
    assert not (desk.folder / "no.hdf5").exists()

    damaged = desk.folder / "damaged.hdf5"
    shutil.copy(desk.folder / "few.hdf5", damaged)
    damaged.write_bytes(damaged.read_bytes()[:3000])
    ran = desk.invoke("mocks", "validate", "damaged.hdf5")
    assert ran.code == 1
    assert "damaged.hdf5: 1 problem\n" in ran.stdout
    assert "damaged.hdf5" in error_of(desk.invoke("mocks", "compare", "damaged.hdf5", "few.hdf5"),
                                      DATA)  # fmt: skip
    for command in (["compare", "absent.hdf5", "few.hdf5"],
                    ["plot", "absent.hdf5", "--output", "a.png"]):  # fmt: skip
        ran = desk.invoke("mocks", *command)
        assert "absent.hdf5" in error_of(ran, NO_INPUT), command
    refused = desk.invoke("mocks", "plot", "few.hdf5", "--output", "few.svg")
    assert ".png" in error_of(refused, DATA)
    assert not list(desk.folder.glob("**/*.part"))
