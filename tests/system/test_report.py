"""A person opens the report of a run, from where the command says that it is, in a real browser."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import Browser, start_browser
from tests.documents import parse_document
from tests.system.conftest import HOSTILE, TRAITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.desk import Desk

pytestmark = pytest.mark.slow

ITEM = {
    "type": "Feature",
    "properties": {
        "muster:trait": "leaf_area", "muster:unit": "mm²", "muster:try_id": 3117,
        "muster:description": "Area of a leaf <b>without</b> its petiole",
        "muster:cv": {"r2": 0.8123, "rmse": 0.2511, "nrmse": 0.05, "mae": 0.2, "n": 150},
        "muster:inside_fraction": 0.953, "muster:engines": {"aoa": "tree"},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with start_browser(tmp_path_factory.mktemp("chromium")) as started:
        yield started


def report_of(desk: Desk) -> Path:
    return desk.report(desk.first_run())


def test_a_run_ends_with_a_report_beside_its_maps_and_says_where(mapped: Desk) -> None:
    ran = mapped.invoke_infer()
    assert ran.complaints == []
    report = mapped.report(ran.run_id)
    assert report.parent == mapped.maps / "reports"
    assert f"\nreport {report}\n" in ran.stdout
    assert f"\nreport: {report}\n" in mapped.invoke("status", ran.run_id).stdout
    document = parse_document(report.read_text(encoding="utf-8"))
    assert ran.run_id in document.text
    assert "2 of 2 succeeded" in document.text
    for trait in TRAITS:
        assert document.row(trait, "succeeded")
        reasons = [row for row in document.rows if row[:1] == [trait] and "reused" in row]
        assert len(reasons) == 4
        assert all("from the same model" in r[3] or "up to date" in r[3] for r in reasons)


def test_what_was_computed_says_why_and_what_it_took(mapped: Desk) -> None:
    document = parse_document(report_of(mapped).read_text(encoding="utf-8"))
    assert document.row(HOSTILE, "cov", "computed")[3].startswith("not there yet")
    step = document.row("traits.aoa pool local (local)")
    assert step[1] == "2"
    assert step[4].endswith("/ 12 h")
    assert step[5].endswith("/ 4 GiB")
    assert document.row("all")[1] == "9"


@pytest.mark.parametrize("width_px", [1280, 400])
def test_a_browser_shows_all_of_it_and_fetches_nothing(
    mapped: Desk, browser: Browser, width_px: int
) -> None:
    report = report_of(mapped)
    page = browser.open(report, width_px)
    assert page.requests() == [report.as_uri()]
    assert page.complaints() == []
    decoded = (
        "Promise.all([...document.images].map(image => image.decode()))"
        ".then(() => [...document.images].map(image => image.naturalWidth))"
    )
    widths = page.ask(decoded)
    assert len(widths) == len(TRAITS)
    assert min(widths) > 500
    assert page.ask("document.documentElement.scrollWidth") <= width_px
    assert page.ask("document.querySelectorAll('script').length") == 0
    links = page.ask("[...document.querySelectorAll('td a')].map(link => link.href)")
    assert sorted(links) == sorted((mapped.maps / f"{trait}.tif").as_uri() for trait in TRAITS)


def test_the_browser_would_tell(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<img src='http://127.0.0.1:9/x.png'><script>nothing()</script>")
    opened = browser.open(page)
    assert "http://127.0.0.1:9/x.png" in opened.requests()
    assert any("nothing is not defined" in said for said in opened.complaints())


def test_a_report_is_made_again_from_what_lies_beside_the_maps_now(
    mapped: Desk, tmp_path: Path, browser: Browser
) -> None:
    run = mapped.newest_run()
    item = mapped.maps / "leaf_area.json"
    kept = item.rename(tmp_path / item.name)
    item.write_text(json.dumps(ITEM), encoding="utf-8")
    try:
        made = mapped.invoke("report", run, "--output", "copy.html", "--json")
    finally:
        kept.replace(item)
    assert made.code == 0, made.stderr
    copy = mapped.folder / "copy.html"
    assert made.json() == {"run": run, "state": "succeeded", "going": False, "report": str(copy)}
    document = parse_document(copy.read_text(encoding="utf-8"))
    row = document.row("leaf_area Area of a leaf <b>without</b> its petiole", "succeeded")
    assert row[2:10] == ["mm²", "3117", "0.812", "0.251", "0.0500", "0.200", "150", "95.3 %"]
    assert browser.open(copy).complaints() == []
    copy.unlink()
    assert mapped.report(run).parent == mapped.maps / "reports"

    again = mapped.invoke("report", run)
    assert again.stdout == f"{mapped.report(run)}\n"
    assert mapped.invoke("report", "no such run").code == 66


def test_failures_are_told_with_what_to_do(desk: Desk) -> None:
    models = desk.folder / "models"
    shutil.copytree(desk.region / "models" / "leaf_area", models / "leaf_area")
    (models / "leaf_area" / "model.txt").write_text("broken")
    desk.write_params([HOSTILE, "leaf_area"], models=str(models))
    ran = desk.invoke_infer("--json")
    assert ran.code == 1
    report = Path(ran.json()["report"])
    assert report.parent == desk.maps / "reports"
    assert desk.products() == []
    text = parse_document(report.read_text(encoding="utf-8")).text
    assert text.index("leaf_area: predict, cov, aoa, build invalid input") < text.index(
        f"{HOSTILE}: predict, cov, aoa, build missing input"
    )
    assert "mend what the message names" in text


def test_a_run_that_never_had_a_plan_has_a_report_too(desk: Desk) -> None:
    desk.write_params(["leaf_area"], predictors="absent.tif")
    ran = desk.invoke_infer()
    assert ran.code == 1
    report = desk.report(ran.run_id)
    assert report.parent == Path(desk.status(ran.run_id)["run"]["work_uri"])
    assert f"report {report}" in ran.stdout
    text = parse_document(report.read_text(encoding="utf-8")).text
    assert "inputs: inspect missing input" in text
    assert not desk.maps.exists()


def test_the_report_of_a_run_that_is_going_says_so(desk: Desk) -> None:
    desk.write_params(["leaf_area"])
    running = desk.start_infer()
    running.wait_for("submitted inputs")
    made = desk.invoke("report", desk.newest_run(), "--output", "copy.html")
    running.kill(signal.SIGTERM)
    running.wait()
    assert made.code == 0, made.stderr
    text = parse_document((desk.folder / "copy.html").read_text(encoding="utf-8")).text
    assert "still going" in made.stderr
    assert "The run is not over." in text
    assert "What failed" not in text


def test_a_report_that_cannot_be_written_is_one_line_and_no_failure(
    desk: Desk, mapped: Desk
) -> None:
    desk.borrow_bands(mapped, "leaf_area")
    desk.write_params(["leaf_area"])
    desk.maps.mkdir()
    (desk.maps / "reports").write_text("a file where the folder should be")
    ran = desk.invoke_infer()
    assert ran.code == 0
    (said,) = ran.complaints
    assert "the verdict stands, but what follows it failed" in said
    assert str(desk.maps / "reports") in said
    assert "report " not in ran.stdout
