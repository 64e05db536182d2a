"""The steps of QA from end to end: files in, summary, plots, matrices and facts out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.mocks.qa.collect import read_campaign
from muster.mocks.qa.ensemble import STATISTICS, summarise_campaign
from muster.mocks.qa.judge import Expected, judge_campaign, make_summary
from muster.mocks.qa.plots import draw_ensemble
from muster.mocks.qa.statistics import CatalogueStatistics
from muster.mocks.qa.statistics_file import read_table, write_statistics
from muster.mocks.qa.steps import check_ensemble, collect_batch, write_matrices
from muster.mocks.qa.summary import EnsembleSummary, read_summary
from muster.model.step import StepContext, call_step
from tests.unit.mocks.qa.made_statistics import draw, make_row, write_campaign
from tests.unit.mocks.qa.test_collect import entry_of, truncate, write_statistics_group

if TYPE_CHECKING:
    from pathlib import Path

EXPECTED = {"realizations": list(range(25)), "redshifts": [0.5, 1.1]}
PNG = b"\x89PNG\r\n\x1a\n"


def plant(folder: Path) -> None:
    """Write 24 realizations × 2 redshifts with an outlier, one missing, one corrupt file."""
    rows = [make_row(n, z) for n in range(24) for z in (0.5, 1.1) if (n, z) != (7, 1.1)]
    strange = draw(5, 0.5)
    doubled = CatalogueStatistics.from_arrays(
        {**strange.to_arrays(), "power_mpch3": 2 * strange.power_mpch3}
    )
    rows[10] = make_row(5, 0.5, statistics=doubled, uri="/c/strange.hdf5")
    for number in range(3):
        write_statistics(folder / f"batch_{number:04d}.parquet", rows[number::3])
    (folder / "batch_0003.parquet").write_bytes(b"PAR1 no")


def run(folder: Path, to: Path, **more: Any) -> dict[str, Any]:
    to.mkdir()
    context = StepContext(progress=lambda fraction, said: None)
    outputs = {"summary": to / "summary.json", "matrices": to / "matrices.npz"}
    inputs = {
        "statistics_folder": str(folder),
        "expected": EXPECTED,
        "figures": (to / "plots").as_uri(),
        **more,
    }
    return dict(call_step(check_ensemble, inputs, outputs, context))


@pytest.mark.slow
def test_what_was_planted_is_found_and_the_rest_is_judged(tmp_path: Path) -> None:
    folder = tmp_path / "statistics"
    folder.mkdir()
    plant(folder)
    facts = run(folder, tmp_path / "out")
    assert (facts["boxes"], facts["expected"], facts["missing"]) == (47, 50, 3)
    assert (facts["outlier_count"], facts["outliers"]) == (1, ["r0005_z0.500"])
    assert facts["problem_count"] == 1
    assert "batch_0003.parquet" in facts["problems"][0]
    assert len(json.dumps(facts)) < 10_000
    summary = read_summary(str(tmp_path / "out" / "summary.json"))
    assert summary.missing == {"r0007": (1.1,), "r0024": (0.5, 1.1)}
    assert [(r.redshift, r.boxes, r.expected) for r in summary.redshifts] == [
        (0.5, 24, 25), (1.1, 23, 25)
    ]  # fmt: skip
    (outlier,) = summary.outliers
    assert (outlier.statistic, outlier.uri) == ("power", "/c/strange.hdf5")
    power = summary.statistics[0]
    assert (power.name, power.boxes, power.bins, power.inverse) == ("power", 24, 16, True)
    assert power.hartlap == (24 - 16 - 2) / 23
    halos = next(s for s in summary.statistics if s.name == "halo_mass_function")
    assert (halos.hartlap, halos.inverse) == (None, False)
    lacking = "no inverse covariance, which needs N > p + 2 and rank p: N = 23 to 24 boxes"
    (warning,) = (w for w in summary.warnings if w.startswith("halo_mass_function"))
    assert warning.startswith(f"halo_mass_function: {lacking}, p = 40 bins, rank 2")
    assert warning.endswith(", at all 2 redshifts")
    with np.load(tmp_path / "out" / "matrices.npz") as archive:
        covariance = archive["power/z1.100/covariance"]
        product = archive["power/z1.100/precision"] @ covariance
        assert "halo_mass_function/z0.500/precision" not in archive
    np.testing.assert_allclose(product, np.eye(16) * (23 - 16 - 2) / 22, atol=1e-9)
    plots = tmp_path / "out" / "plots"
    assert {p.name for p in plots.iterdir()} == {f.name for f in summary.figures}
    assert len(summary.figures) == facts["figures"] == 10
    assert all(path.read_bytes().startswith(PNG) for path in plots.iterdir())


def test_no_statistics_at_all_are_told_and_end_nothing(tmp_path: Path) -> None:
    facts = run(tmp_path / "none", tmp_path / "out")
    assert (facts["boxes"], facts["missing"], facts["figures"]) == (0, 50, 0)
    assert facts["warnings"] == ["there are no statistics at all"]
    summary = read_summary(str(tmp_path / "out" / "summary.json"))
    assert summary.missing["r0000"] == (0.5, 1.1)
    assert (summary.statistics, summary.box_size_mpch) == ((), None)


def test_boxes_without_haloes_are_named(tmp_path: Path) -> None:
    arrays = draw(1).to_arrays()
    nothing = {name: 0 * v for name, v in arrays.items() if name.endswith(("counts", "cumulative"))}
    for name in ("halo_stellar", "stellar_sfr", "power_mpch3", "shot_noise_mpch3"):
        nothing[name] = arrays[name] * (np.nan if arrays[name].dtype.kind == "f" else 0)
    empty = CatalogueStatistics.from_arrays({**arrays, **nothing})
    rows = [make_row(n, statistics=empty if n in (2, 3) else None) for n in range(5)]
    write_statistics(tmp_path / "batch_0000.parquet", rows)
    campaign = read_campaign(tmp_path)
    summary = make_summary(campaign, judge_campaign(campaign), Expected((0, 1, 2, 3, 4), (0.5,)))
    assert summary.problem_count == 0
    assert summary.warnings[0] == "boxes without haloes: 2, the first r0002_z0.500"


def test_one_box_has_bands_and_plots_but_no_covariance(tmp_path: Path) -> None:
    write_campaign(tmp_path / "s", [3])
    campaign = read_campaign(tmp_path / "s")
    found = summarise_campaign(campaign)
    names = [figure.name for figure in draw_ensemble(campaign, found, str(tmp_path / "plots"))]
    assert names == [
        "power.png", "halo_mass_function.png", "stellar_mass_function.png", "sfr_function.png",
        "halo_stellar.png", "stellar_sfr.png",
    ]  # fmt: skip
    write_matrices(tmp_path / "m.npz", found)
    with np.load(tmp_path / "m.npz") as archive:
        assert archive["power/z0.500/covariance"].shape == (0, 0)


@pytest.mark.slow
def test_the_same_statistics_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.mocks.qa.plots.MOST_PANELS", 2)
    monkeypatch.setattr("muster.mocks.qa.plots.STATISTICS", STATISTICS[:1])
    write_campaign(tmp_path / "s", range(4), (0.5, 1.1, 2.0), files=2)
    for name in "ab":
        run(tmp_path / "s", tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    # More redshifts than a figure has panels go on in another.
    assert {"power.png", "power_2.png"} <= {path.name for path in files}
    assert len(files) == 10
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


@pytest.mark.parametrize(
    "expected",
    [
        {},
        {"realizations": [1]},
        {"realizations": 4, "redshifts": [1.0]},
        {"realizations": ["1"], "redshifts": [1.0]},
        {"realizations": [True], "redshifts": [1.0]},
        {"realizations": [1], "redshifts": [float("nan")]},
        {"realizations": [1], "redshifts": [1.0], "more": 1},
    ],
)
def test_what_is_expected_must_be_two_lists(tmp_path: Path, expected: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected catalogues are not described"):
        run(tmp_path, tmp_path / "out", expected=expected)


def test_statistics_on_s3_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="read from a file system"):
        run(tmp_path, tmp_path / "out", statistics_folder="s3://bucket/statistics")


def test_a_batch_is_collected_by_the_step(tmp_path: Path) -> None:
    good = write_statistics_group(tmp_path / "good.hdf5", draw(7).to_arrays())
    write_statistics_group(tmp_path / "bad.hdf5", draw(7).to_arrays())
    truncate(tmp_path / "bad.hdf5")
    bad = entry_of(tmp_path / "bad.hdf5", realization=8)
    to = tmp_path / "b.parquet"
    facts = call_step(collect_batch, {"catalogues": [bad, good]}, {"statistics": to}, StepContext())
    assert (facts["catalogues"], facts["collected"], facts["problem_count"]) == (2, 1, 1)
    assert facts["problems"][0].startswith("r0008_z0.500: ")
    assert read_table(to).realization.tolist() == [7]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not the summary"),
        ("[1, 2]", "not the summary"),
        ("{" * 100_000, "not the summary"),
        ('{"boxes": "many"}', "not the summary"),
        ("../../etc/passwd", "not the summary"),
    ],
)
def test_a_summary_that_is_none_is_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(InvalidInput, match=what):
        read_summary(str(tmp_path / "s.json"))


def test_a_figure_lies_in_its_folder(tmp_path: Path) -> None:
    run(tmp_path / "none", tmp_path / "out")
    uri = tmp_path / "out" / "summary.json"
    data = json.loads(uri.read_text())
    EnsembleSummary.model_validate(data)
    for name in ("../a.png", "/a.png", "a.svg", "a.png\n"):
        data["figures"] = [{"name": name, "title": "t"}]
        uri.write_text(json.dumps(data))
        with pytest.raises(InvalidInput, match=r"figures\.0\.name"):
            read_summary(str(uri))


def test_a_summary_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.mocks.qa.summary.MOST_BYTES", 10)
    (tmp_path / "s.json").write_text(" " * 11)
    with pytest.raises(InvalidInput, match="too large"):
        read_summary(str(tmp_path / "s.json"))
    with pytest.raises(MissingInput):
        read_summary(str(tmp_path / "none.json"))
