"""Predictors and outputs that cannot be used: one line, the right outcome, nothing half-written."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from rasterio import Affine

from tests.system.conftest import write_stack
from tests.system.desk import Desk, assert_says_once, say_states

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


pytestmark = pytest.mark.slow


def write_pair(folder: Path, **profile: object) -> list[str]:
    write_stack(folder / "a.tif", names=("rain", "warmth"))
    write_stack(folder / "b.tif", names=("height",), **profile)
    return ["a.tif", "b.tif"]


def write_other_crs(folder: Path) -> list[str]:
    return write_pair(folder, crs="EPSG:3857")


def write_other_size(folder: Path) -> list[str]:
    return write_pair(folder, height=90)


def write_elsewhere(folder: Path) -> list[str]:
    return write_pair(folder, transform=Affine(1000, 0, 9_000_000, 0, -1000, 100_000))


def write_without_crs(folder: Path) -> list[str]:
    write_stack(folder / "a.tif", crs=None)
    return ["a.tif"]


def write_without_header(folder: Path) -> list[str]:
    write_stack(folder / "whole.tif")
    (folder / "a.tif").write_bytes((folder / "whole.tif").read_bytes()[:100])
    return ["a.tif"]


def write_text(folder: Path) -> list[str]:
    (folder / "a.tif").write_text("lon,lat\n1,2\n")
    return ["a.tif"]


def write_nothing(folder: Path) -> list[str]:
    return ["a.tif"]


def make_folder(folder: Path) -> list[str]:
    (folder / "rasters").mkdir()
    return ["rasters"]


def make_empty_folder(folder: Path) -> list[str]:
    (folder / "rasters").mkdir()
    return ["rasters/"]


CONCERN_ALL = [
    (write_other_crs, "invalid_input", ("different grids (CRS)", "/b.tif", "EPSG:3857", "do")),
    (write_nothing, "missing_input", ("no such predictor", "/a.tif", "do")),
    *(
        pytest.param(*case, marks=pytest.mark.thorough)
        for case in (
            (write_other_size, "invalid_input", ("different grids (size)", "/b.tif", "90 rows")),
            (write_elsewhere, "invalid_input", ("different grids", "/b.tif", "(9000000, 100000)")),
            (
                write_without_crs,
                "invalid_input",
                ("no coordinate reference system", "/a.tif", "do"),
            ),
            (
                write_without_header,
                "invalid_input",
                ("cannot be opened (100 bytes)", "/a.tif", "do"),
            ),
            (write_text, "invalid_input", ("cannot be opened", "/a.tif", "do")),
            (
                make_folder,
                "invalid_input",
                ("predictor is a folder", "/rasters", "end it with '/'"),
            ),
            (
                make_empty_folder,
                "missing_input",
                ("no predictors in the folder", "/rasters/", ".tif"),
            ),
        )
    ),
]


@pytest.mark.parametrize(
    ("write", "outcome", "parts"),
    CONCERN_ALL,
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_predictors_that_concern_all_traits_fail_the_run_in_one_line(
    desk: Desk, write: Callable[[Path], list[str]], outcome: str, parts: tuple[str, ...]
) -> None:
    desk.write_params(["leaf_area"], predictors=write(desk.folder))
    ran = desk.invoke_infer()
    assert ran.code == 1
    assert_says_once(ran, *parts)
    summary = ran.stdout.splitlines()[0]
    assert "no completed plan" in summary
    for part in parts:
        assert part in summary
    assert desk.states(ran.run_id) == {"inputs": {"inspect": outcome}}
    run = desk.status(ran.run_id)["run"]
    assert run["state"] == "failed"
    assert parts[0] in run["message"]
    assert not desk.maps.exists()
    desk.assert_nothing_half_written()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (["--predict-only"], ["predict"]),
        pytest.param([], ["predict", "cov", "aoa"], marks=pytest.mark.thorough),
    ],
)
def test_a_raster_whose_data_is_gone_leaves_no_product(
    desk: Desk, options: list[str], steps: list[str]
) -> None:
    """The header promises all its bands; the end of the file is not there."""
    write_stack(desk.folder / "whole.tif")
    whole = (desk.folder / "whole.tif").read_bytes()
    (desk.folder / "cut.tif").write_bytes(whole[: len(whole) // 2])
    desk.write_params(["leaf_area"], predictors="cut.tif")
    ran = desk.invoke_infer(*options)
    assert ran.code == 1
    assert desk.states(ran.run_id)["leaf_area"] == say_states(
        "missing_input", bands="not_asked", **dict.fromkeys(steps, "invalid_input")
    )
    said = [line for line in ran.complaints if "raster cannot be read" in line]
    assert len(said) == len(steps), "once a step"
    assert all(f"where: {desk.folder / 'cut.tif'}" in line for line in said)
    failed = ", ".join(f"{step} invalid_input" for step in steps)
    assert f"leaf_area: failed: {failed}" in ran.stdout
    assert f"  {desk.maps / 'leaf_area.tif'}" not in ran.stdout.splitlines()
    assert not desk.products()
    assert not desk.stages()
    desk.assert_nothing_half_written()


@pytest.mark.parametrize(
    "output", ["maps/below/it", pytest.param("maps", marks=pytest.mark.thorough)]
)
def test_an_output_that_is_a_file_is_left_alone(desk: Desk, mapped: Desk, output: str) -> None:
    desk.borrow_bands(mapped, "leaf_area")
    (desk.folder / "maps").write_text("mine")
    desk.write_params(["leaf_area"], output=output)
    ran = desk.invoke_infer()
    assert ran.code == 1
    assert_says_once(ran, "output is not a folder", str(desk.folder / "maps"), "do")
    assert desk.states(ran.run_id) == {"inputs": {"inspect": "invalid_input"}}
    assert (desk.folder / "maps").read_text() == "mine"


def test_an_output_on_a_read_only_mount_is_refused_before_any_work(
    desk: Desk, mapped: Desk
) -> None:
    desk.write_params(["leaf_area"])
    desk.maps.mkdir()
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" "$0" && exec "$@"'
    mounted = [*namespace(), "sh", "-c", script, str(desk.maps)]
    ran = desk.infer(before=mounted)
    assert ran.code == 1
    assert_says_once(ran, "output cannot be written", str(desk.maps), "Read-only file system", "do")
    assert desk.states(ran.run_id) == {"inputs": {"inspect": "invalid_input"}}
    assert not desk.products()
    assert not desk.stages()


def namespace() -> list[str]:
    """How to start a command in a mount namespace of its own, where this machine allows it."""
    for command in (["unshare", "-m"], ["unshare", "--map-root-user", "-m"]):
        if shutil.which(command[0]) is None:
            break
        probe = [*command, "mount", "-t", "tmpfs", "none", "/mnt"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return command
    return pytest.skip("no mount namespaces here")
