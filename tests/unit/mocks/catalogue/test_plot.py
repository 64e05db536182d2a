"""The scatter plot of a slice: the right points, bounded, and the same bytes each time."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from matplotlib.image import imread

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.mocks.catalogue.plot import draw_slice, plot_catalogue, read_slice
from tests.unit.mocks.catalogue.boxes import make_box, write_box

if TYPE_CHECKING:
    from pathlib import Path


def test_the_slice_holds_what_lies_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.mocks.catalogue.hdf5.SLAB_BYTES", 12 * 200)
    galaxies, halos = make_box(2500)
    found = read_slice(write_box(tmp_path / "box.hdf5", 2500), 8.0, 4.0)
    for points, positions, mass in (
        (found.halos, halos.positions, np.log10(halos.masses).astype(np.float32)),
        (found.galaxies, galaxies.positions, galaxies.properties["logsm_t_obs"]),
    ):
        inside = (positions[:, 0] >= 4) & (positions[:, 0] < 12)
        order = np.argsort(mass[inside], kind="stable")
        assert points.in_slice == inside.sum()
        np.testing.assert_array_equal(points.y, positions[inside, 1][order])
        np.testing.assert_array_equal(points.z, positions[inside, 2][order])
        np.testing.assert_array_equal(points.mass, mass[inside][order])
    assert found.title == "AbacusSummit_small_c000 ph3007 z1.100"


def test_of_a_crowded_slice_the_most_massive_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_box(tmp_path / "box.hdf5", 2500)
    whole = read_slice(path, 30.0)
    monkeypatch.setattr("muster.mocks.catalogue.hdf5.SLAB_BYTES", 12 * 200)
    few = read_slice(path, 30.0, most_halos=5, most_galaxies=40)
    assert (len(few.halos.mass), len(few.galaxies.mass)) == (5, 40)
    assert few.galaxies.in_slice == whole.galaxies.in_slice > 2000
    np.testing.assert_array_equal(few.galaxies.mass, whole.galaxies.mass[-40:])
    np.testing.assert_array_equal(few.halos.radius, whole.halos.radius[-5:])
    drawn = draw_slice(few).axes
    assert any("the 40 most massive drawn" in axes.get_title() for axes in drawn)
    assert not any(axes.child_axes for axes in drawn), "an inset would hide points"
    places = [axes.get_position() for axes in drawn]
    assert not any(a.overlaps(b) for a, b in combinations(places, 2))
    zoom = next(axes for axes in drawn if axes.get_title() == "galaxies of the square")
    for low, value, high in zip(
        zoom.viewLim.min, (few.halos.y[-1], few.halos.z[-1]), zoom.viewLim.max, strict=True
    ):
        assert 0 <= low <= value <= high <= few.box_size_mpch


def test_the_picture_shows_points_and_is_the_same_each_time(tmp_path: Path) -> None:
    path = write_box(tmp_path / "box.hdf5", 2500)
    images = [tmp_path / "plots" / name for name in ("a.png", "b.png")]
    for image in images:
        plot_catalogue(path, image)
    assert images[0].read_bytes() == images[1].read_bytes()
    assert sorted(p.name for p in images[0].parent.iterdir()) == ["a.png", "b.png"]
    pixels = imread(images[0])
    middle = pixels.shape[1] // 2
    for panel in (pixels[:, :middle], pixels[:, middle:]):
        black = (panel[..., :3] == 0).all(axis=-1)
        coloured = np.ptp(panel[..., :3], axis=-1) > 0.2
        assert black.mean() > 0.2
        assert 0.005 < coloured.mean() < 0.5


@pytest.mark.parametrize("counts", [(0, 0), (0, 50)])
def test_an_empty_box_is_drawn(tmp_path: Path, counts: tuple[int, int]) -> None:
    plot_catalogue(write_box(tmp_path / "box.hdf5", *counts), tmp_path / "a.png")
    assert imread(tmp_path / "a.png").size


def test_what_cannot_be_drawn_is_an_error(tmp_path: Path) -> None:
    path, image = write_box(tmp_path / "box.hdf5"), tmp_path / "plots" / "a.png"
    for slice_mpch, from_mpch in ((0.0, 0.0), (5.0, 33.0), (5.0, -1.0)):
        with pytest.raises(ConfigError, match="not in the box"):
            plot_catalogue(path, image, slice_mpch=slice_mpch, from_mpch=from_mpch)
    with pytest.raises(MissingInput):
        plot_catalogue(tmp_path / "absent.hdf5", image)
    with h5py.File(path, "r+") as file:
        del file["galaxies/logsm_t_obs"]
        file["galaxies/logsm_t_obs"] = np.zeros(2)
    with pytest.raises(InvalidInput, match="not of one length"):
        plot_catalogue(path, image)
    with h5py.File(path, "r+") as file:
        del file["galaxies/logsm_t_obs"]
    with pytest.raises(MissingInput, match="galaxies/logsm_t_obs"):
        plot_catalogue(path, image)
    assert not image.parent.exists()
