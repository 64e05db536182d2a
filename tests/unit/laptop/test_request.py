from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

from muster.errors import ConfigError, InvalidInput, MissingInput, SoftwareError
from muster.laptop.__main__ import main, split_words
from muster.laptop.example_region import make_predictors, write_example
from muster.laptop.home import make_home
from muster.laptop.request import EXAMPLE_TRAITS, example_request, own_request, read_columns
from muster.laptop.training import Training, make_stamp, render_train


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path / "home")


@pytest.fixture
def plots(tmp_path):
    path = tmp_path / "my plots.csv"
    path.write_text("\ufefflon,lat,height,area\n1,2,3,4\n", encoding="utf-8")
    return path


def write_stack(path, bands):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=3,
        height=2,
        count=len(bands),
        dtype="float32",
        crs="EPSG:4326",
        transform=rasterio.Affine(1, 0, 0, 0, -1, 3),
    ) as raster:
        raster.descriptions = bands
        raster.write(np.ones((len(bands), 2, 3), "float32"))
    return path


@pytest.fixture
def stack(tmp_path):
    return write_stack(tmp_path / "stack.tif", ("warmth", "rain"))


def test_own_request_is_taken_as_it_is(home, plots, stack):
    request = own_request(home, str(plots), [str(stack)], ["area", "height"])
    assert request.params() == {
        "traits": ["area", "height"],
        "predictors": [str(stack)],
        "models": str(home.folder / "maps" / "models"),
        "output": str(home.folder / "maps" / "products"),
    }


def test_relative_paths_are_made_absolute(home, plots, stack, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    request = own_request(home, "my plots.csv", ["stack.tif"], ["area"], "out")
    assert request.plots == plots
    assert request.predictors == (str(stack),)
    assert request.products == tmp_path / "out" / "products"


def test_wrong_requests_are_refused_before_anything_starts(home, plots, stack):
    with pytest.raises(ConfigError, match="together"):
        own_request(home, str(plots), [], ["area"])
    with pytest.raises(ConfigError, match="together"):
        own_request(home, None, [str(stack)], ["area"])
    with pytest.raises(ConfigError, match=r"no such column.*: area2.*lon, lat, height, area"):
        own_request(home, str(plots), [str(stack)], ["area", "area2"])
    with pytest.raises(ConfigError, match=r"no traits named.*height, area"):
        own_request(home, str(plots), [str(stack)], [])
    with pytest.raises(ConfigError, match="twice"):
        own_request(home, str(plots), [str(stack)], ["area", "area"])
    with pytest.raises(MissingInput, match=r"absent\.csv"):
        own_request(home, "/absent.csv", [str(stack)], ["area"])
    with pytest.raises(MissingInput, match=r"absent\.tif"):
        own_request(home, str(plots), ["/absent.tif"], ["area"])
    stack.write_bytes(stack.read_bytes()[:100])
    with pytest.raises(InvalidInput, match=r"stack\.tif"):
        own_request(home, str(plots), [str(stack)], ["area"])
    stack.unlink()
    write_stack(stack, ("warmth", "area"))
    with pytest.raises(ConfigError, match=r"own predictor.*area"):
        own_request(home, str(plots), [str(stack)], ["area"])


def test_predictors_are_taken_from_plots_that_have_them_all(home, tmp_path, plots, stack):
    request = own_request(home, str(plots), [str(stack)], ["area"])
    assert not request.predictors_in_plots
    assert "--predictors-from-csv" not in render_train(request)
    plots.write_text("lon,lat,area,rain,warmth\n")
    request = own_request(home, str(plots), [str(stack)], ["area"])
    assert request.predictors_in_plots
    assert "--predictors-from-csv" in render_train(request)


def test_plots_that_are_no_csv_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(InvalidInput, match="UTF-8"):
        read_columns(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(InvalidInput, match="header"):
        read_columns(tmp_path / "x")


def test_command_line_says_it_in_one_line(monkeypatch, tmp_path, capsys, plots):
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path / "home"))
    arguments = ["run", "--plots", str(plots), "--predictors", "/absent.tif", "--traits", "area"]
    assert main(arguments) == 66
    assert main(["run", "--plots", "/absent.csv", "--predictors", "/x", "--traits", "a"]) == 66
    assert main(["run", "--traits", "a"]) == 65
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: ") for line in lines)
    assert main(["status"]) is None
    assert capsys.readouterr().out == "nothing runs\n"


def test_words_are_split_as_a_shell_does():
    assert split_words("a 'b c'  d") == ("a", "b c", "d")
    assert split_words(None) == ()


def test_example_is_equal_for_equal_seeds(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_example(tmp_path / name, seed)
    for name in ("predictors.tif", "plots.csv"):
        content = (tmp_path / "a" / name).read_bytes()
        assert (tmp_path / "b" / name).read_bytes() == content
        assert (tmp_path / "c" / name).read_bytes() != content


def test_example_is_a_region_with_a_coast(tmp_path):
    write_example(tmp_path, 0)
    predictors, land = make_predictors(0)
    with rasterio.open(tmp_path / "predictors.tif") as raster:
        assert (raster.width, raster.height, raster.count) == (240, 180, 6)
        assert raster.descriptions == tuple(predictors)
        valid = raster.read_masks() > 0
        elev = raster.read(raster.descriptions.index("elev") + 1)
    assert (valid == land).all()
    assert 0.3 < land.mean() < 0.8
    assert (land != land[::-1]).any()
    assert (land != land[:, ::-1]).any()
    # The highest place lies in the north-east: whoever swaps axes sees it elsewhere.
    row, col = divmod(int(elev.argmax()), 240)
    assert row < 90
    assert col > 120
    assert read_columns(tmp_path / "plots.csv") == ["lon", "lat", *EXAMPLE_TRAITS]


def test_training_starts_from_what_is_there(home):
    request = example_request(home)
    write_example(request.plots.parent, 0)
    for trait in request.traits:
        (request.models / trait).mkdir(parents=True)
    stamp = request.models / "trained_from.json"
    stamp.write_text(json.dumps(make_stamp(request)))
    told = []
    Training(request, {}, home.log("training"), told.append).start()
    assert told == []

    (request.models / "plant_height_m" / "model.txt").write_text("another")
    again = Training(request, {}, home.log("training"), told.append)
    again.start()
    again.abandon()
    assert not stamp.exists()
    assert told.pop().startswith("training models")

    stamp.write_text(json.dumps(make_stamp(request)))
    write_example(request.plots.parent, 1)
    training = Training(request, {}, home.log("training"), told.append)
    training.start()
    training.abandon()
    assert told == ["training models of leaf_area_mm2, wood_density_g_cm3, plant_height_m"]


def test_failed_training_says_the_trainers_last_line(home, plots, stack):
    request = own_request(home, str(plots), [str(stack)], ["area"])
    training = Training(request, {"PATH": ""}, home.log("training"), lambda _: None)
    training.start()
    with pytest.raises((InvalidInput, SoftwareError), match=r"training failed.*training\.log"):
        training.finish()
    assert not (request.models / "trained_from.json").exists()


def test_training_names_traits_and_units(home):
    arguments = render_train(example_request(home))
    assert arguments[:2] == ["traits", "train"]
    assert arguments.count("--traits") == 3
    assert "leaf_area_mm2=mm²" in arguments
