"""What a person asks afterwards, and of an installation that does not work: clear answers."""

from __future__ import annotations

import psycopg2
import pytest

from muster.laptop.postgres import stop_postgres
from tests.conftest import fresh_database
from tests.system.conftest import HOSTILE
from tests.system.desk import Desk, assert_says_once
from tests.system.test_infer_resources import write_site

pytestmark = pytest.mark.slow

DEAD_STORE = "postgresql://somebody:topsecret@127.0.0.1:1/muster"


def test_status_lists_runs_and_tells_a_run_element_by_element(mapped: Desk) -> None:
    runs = mapped.invoke("status", "--json").json()
    run = runs[-1]
    assert (run["workflow"], run["state"]) == ("trait_inference", "succeeded")
    listed = mapped.invoke("status").stdout.splitlines()
    assert len(listed) == len(runs)
    assert run["id"] in listed[-1]
    assert "succeeded" in listed[-1]

    part = run["id"].rpartition("T")[2]
    shown = mapped.invoke("status", part).stdout.splitlines()
    assert shown[0].startswith(f"{run['id']}: succeeded: 2 of 2 succeeded")
    assert shown.pop(1) == f"report: {run['facts']['report']}"
    assert len(shown) == 1 + 1 + 2 * 4
    (aoa,) = [line for line in shown if line.startswith("leaf_area ") and "traits.aoa" in line]
    for word in ("succeeded", "1 ×", " s ", " MiB"):
        assert word in aoa
    element = next(e for e in mapped.status(part)["elements"] if e["step"] == "traits.aoa")
    assert element["seconds"] > 0
    assert element["max_rss_mib"] > 10


def test_logs_show_each_step_and_attempt_of_an_element(mapped: Desk) -> None:
    run = mapped.first_run()
    told = mapped.invoke("logs", run, "leaf_area").stdout
    for step in ("predict", "cov", "aoa", "build"):
        assert told.count(f"== traits.{step} attempt 1: succeeded") == 1
    assert "100 %" in told
    (only,) = mapped.invoke("logs", run, HOSTILE, "--step", "traits.cov", "--json").json()
    assert (only["step"], only["attempt"], only["outcome"]) == ("traits.cov", 1, "succeeded")
    assert "succeeded in" in only["text"]


def test_questions_about_what_is_not_there_name_what_is(mapped: Desk) -> None:
    run = mapped.newest_run()
    for arguments, parts in (
        (["status", "nothing-like-it"], ("knows no such run", "got: nothing-like-it", "do: ")),
        (["logs", "nothing-like-it", "x"], ("knows no such run", "do: ")),
        (["logs", run, "leaf_aera"], ("no such element", "got: leaf_aera", "leaf_area")),
        (["logs", run, "leaf_area", "--attempt", "9"], ("no attempt fits",)),
    ):
        ran = mapped.invoke(*arguments)
        assert (ran.code, ran.stdout) == (66, "")
        assert_says_once(ran, *parts)


def test_unknown_commands_and_options_are_usage_errors(mapped: Desk) -> None:
    for arguments, part in (
        (["mpa"], "No such command 'mpa'"),
        (["traits", "infre"], "No such command 'infre'"),
        (["traits", "infer"], "Missing option '--params'"),
        (["status", "--jsno"], "No such option '--jsno'"),
        (["traits", "infer", "--params", "p", "--max-parallel", "0"], "--max-parallel"),
        (["traits", "infer", "--params", "p", "--year", "12"], "--year"),
        (["reconcile", "--silent-for", "-1"], "--silent-for"),
        (["logs", "only-a-run"], "ELEMENT"),
    ):
        ran = mapped.invoke(*arguments)
        assert (ran.code, ran.stdout) == (64, "")
        assert_says_once(ran, f"{part}") if part.startswith("No") else None
        assert part in ran.stderr
        assert "Usage: muster" in ran.stderr


def test_a_reader_that_goes_away_is_no_reason_to_complain(mapped: Desk) -> None:
    for arguments in (["status"], ["status", mapped.newest_run(), "--json"], ["--help"]):
        running = mapped.start(*arguments)
        assert running.process.stdout is not None
        running.process.stdout.close()
        running.process.wait()
        assert running.stderr() == ""


def test_a_full_disk_under_the_output_is_told(mapped: Desk) -> None:
    full = ["sh", "-c", 'exec "$@" > /dev/full', "sh"]
    ran = mapped.muster("status", before=full)
    assert ran.code == 75
    assert_says_once(ran, "no space left to write", "muster: ")


@pytest.mark.parametrize(
    ("url", "code", "parts"),
    [
        (DEAD_STORE, 75, ("the store does not answer", "port 1", "Connection refused")),
        ("mysql://somebody:topsecret@host/muster", 65, ("MUSTER_STORE_URL", "got: mysql://…")),
        ("topsecret", 65, ("MUSTER_STORE_URL", "got: no URL", "expected: postgresql://")),
    ],
)
def test_a_store_that_cannot_be_reached_is_told_without_its_password(
    mapped: Desk, url: str, code: int, parts: tuple[str, ...]
) -> None:
    for command in (["status"], ["migrate"], ["traits", "infer", "--params", "params.yaml"]):
        ran = mapped.invoke(*command, MUSTER_STORE_URL=url)
        assert (ran.code, ran.stdout) == (code, "")
        assert_says_once(ran, *parts)
        assert "topsecret" not in ran.stderr


def test_a_store_without_a_schema_is_to_be_migrated(mapped: Desk, store_url: str) -> None:
    with fresh_database(store_url) as url:
        for command in (["status"], ["traits", "infer", "--params", "params.yaml"]):
            ran = mapped.invoke(*command, MUSTER_STORE_URL=url)
            assert (ran.code, ran.stdout) == (65, "")
            assert_says_once(ran, "does not have the schema", "do: run 'muster migrate'")
        ran = mapped.invoke("migrate", MUSTER_STORE_URL=url)
        assert (ran.code, ran.stdout[:17]) == (0, "store at version ")
        assert mapped.invoke("migrate", MUSTER_STORE_URL=url).stdout == ran.stdout
        assert mapped.invoke("status", MUSTER_STORE_URL=url).stdout == "no runs yet\n"


def test_without_a_store_an_embedded_one_is_started_and_migrated(
    desk: Desk, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The server's socket lies in it, and a socket's path is at most 107 bytes long.
    home = tmp_path_factory.mktemp("home")
    del desk.environment["MUSTER_STORE_URL"]
    desk.environment["MUSTER_HOME"] = str(home)
    try:
        ran = desk.muster("status")
        assert (ran.code, ran.stdout) == (0, "no runs yet\n")
        assert (home / "postgres").is_dir()
    finally:
        stop_postgres(home / "postgres")


def test_the_doctor_finds_a_good_site_good(mapped: Desk) -> None:
    ran = mapped.invoke("doctor")
    assert ran.code == 0
    lines = ran.stdout.splitlines()
    assert [line[:3] for line in lines] == ["ok "] * 4
    for line, part in zip(
        lines, ("store: at version", "can be written", "pool local", "pool look"), strict=True
    ):
        assert part in line


def test_the_doctor_says_what_is_bad_and_goes_on(mapped: Desk) -> None:
    site = write_site(mapped.folder / "bad.toml", aoa=', cpus = 4096, memory = "900TiB"')
    site.write_text(f'work = "{mapped.region / "stack.tif" / "work"}"\n' + site.read_text())
    ran = mapped.invoke("doctor", str(site), "--json", MUSTER_STORE_URL=DEAD_STORE)
    assert ran.code == 1
    assert "topsecret" not in ran.stdout
    report = ran.json()
    assert report["good"] is False
    checks = {check["name"]: check for check in report["checks"]}
    assert list(checks) == ["store", "work directory", "pool local"]
    assert not any(check["good"] for check in checks.values())
    assert "the store does not answer" in checks["store"]["finding"]
    assert "Not a directory" in checks["work directory"]["finding"]

    site = write_site(mapped.folder / "big.toml", aoa=', cpus = 4096, memory = "900TiB"')
    ran = mapped.invoke("doctor", str(site))
    assert ran.code == 1
    assert "BAD  pool local: traits.aoa asks for 4096 CPUs, the node has" in ran.stdout
    assert "BAD  pool local: traits.aoa asks for 943718400 MiB of memory" in ran.stdout


def test_the_doctor_finds_an_old_schema(mapped: Desk, store_url: str) -> None:
    with fresh_database(store_url) as url:
        ran = mapped.invoke("doctor", MUSTER_STORE_URL=url)
    assert ran.code == 1
    assert ran.stdout.startswith("BAD  store: at version None, not ")
    assert "run 'muster migrate'" in ran.stdout


def test_a_work_directory_that_cannot_be_written_fails_the_run_in_one_line(desk: Desk) -> None:
    desk.write_params(["leaf_area"])
    site = write_site(desk.folder / "bad.toml")
    site.write_text(f'work = "{desk.region / "stack.tif" / "work"}"\n' + site.read_text())
    ran = desk.invoke_infer("--site", str(site))
    assert ran.code == 1
    assert_says_once(ran, "refused: cannot be read or written", "stack.tif/work", "Not a directory")
    assert "no completed plan: cannot be read or written" in ran.stdout
    run = desk.newest_run()
    assert desk.status(run)["run"]["state"] == "failed"
    assert desk.states(run) == {"inputs": {"inspect": "invalid_input"}}


def test_what_went_wrong_in_the_store_is_no_traceback(mapped: Desk, store_url: str) -> None:
    """A database that is not ours: its tables have our names and nothing else."""
    with fresh_database(store_url) as url:
        connection = psycopg2.connect(url)
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE run (id int)")
        connection.close()
        ran = mapped.invoke("status", MUSTER_STORE_URL=url)
    assert (ran.code, ran.stdout) == (65, "")
    assert_says_once(ran, "does not have the schema")


def test_training_that_cannot_be_done_is_told_trait_by_trait(desk: Desk) -> None:
    plots, stack = desk.region / "plots.csv", desk.region / "stack.tif"
    few = plots.read_text(encoding="utf-8").splitlines()[:3]
    (desk.folder / "few.csv").write_text("\n".join(few), encoding="utf-8")
    (desk.folder / "far.csv").write_text("lon,lat,leaf_area\n114.5,-8.1,3\n")
    (desk.folder / "blank.csv").write_text("")
    base = ["--predictors", str(stack), "--output", "models"]
    for arguments, code, parts in (
        (["--plots", "absent.csv", "--traits", "leaf_area", *base], 66, ("absent.csv",)),
        (["--plots", "blank.csv", "--traits", "leaf_area", *base], 65, ("blank.csv",)),
        (["--plots", "few.csv", "--traits", "leaf_area", *base], 65, ("few.csv", "leaf_area")),
        (["--plots", "far.csv", "--traits", "leaf_area", *base], 65, ("no plot lies on", "EPSG")),
        (["--plots", str(plots), "--traits", "leaf_aera", *base], 65, ("leaf_aera", "leaf_area")),
        (["--plots", str(plots), "--traits", "a/b", *base], 65, ("a/b",)),
        (
            ["--plots", str(plots), "--traits", "leaf_area", "--predictors", "absent.tif",
             "--output", "models"], 66, ("absent.tif",),
        ),
    ):  # fmt: skip
        ran = desk.invoke("traits", "train", *arguments)
        assert (ran.code, ran.stdout) == (code, ""), ran.stderr
        assert len(ran.complaints) == 1, ran.stderr
        assert_says_once(ran, *parts)
    assert not (desk.folder / "models").exists() or not list((desk.folder / "models").iterdir())
