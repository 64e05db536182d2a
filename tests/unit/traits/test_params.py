import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from muster.config import parse_config
from muster.errors import ConfigError, MissingInput
from muster.traits.params import InferParams, read_traits_file

MINIMAL: dict[str, Any] = {
    "traits": ["X50"],
    "predictors": "/data/stack.tif",
    "models": "/models",
    "output": "/maps",
}


def params(**changes: Any) -> InferParams:
    return parse_config(InferParams, {**MINIMAL, **changes}, "params of trait_inference")


def year(number: int) -> dict[str, datetime]:
    return {
        "interval_start": datetime(number, 1, 1, tzinfo=UTC),
        "interval_end": datetime(number + 1, 1, 1, tzinfo=UTC),
    }


def test_defaults_and_a_single_predictor() -> None:
    made = params()
    assert made.predictors == ("/data/stack.tif",)
    assert made.tasks == ("predict", "cov", "aoa", "build")
    assert (made.trait_set, made.overwrite, made.local_point_density) == ("default", False, False)
    assert made.bundle_uri("X50") == "/models/X50"
    assert made.product_uri("X50") == "/maps/X50.tif"
    assert made.quicklook_uri("X50") == "/maps/X50.png"


def test_parameters_survive_json() -> None:
    made = params(**year(2024), resources={"traits.aoa": {"memory": "2GiB"}})
    again = InferParams.model_validate(made.model_dump(mode="json"))
    assert again == made
    assert again.resources["traits.aoa"].memory == 2048
    assert again.product_uri("X50") == "/maps/2024/X50.tif"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"traits": []}, "traits: .*at least 1"),
        ({"traits": ["a", "b", "a"]}, "traits: named twice: a"),
        ({"traits": ["../../etc/passwd"]}, "not safe in a path"),
        ({"traits": [".."]}, "not safe in a path"),
        ({"traits": ["a/b"]}, "not safe in a path"),
        ({"traits": ["a\\b"]}, "not safe in a path"),
        ({"traits": ["a\nb"]}, "not safe in a path"),
        ({"traits": ["a\x00"]}, "not safe in a path"),
        ({"traits": [""]}, "may not be empty"),
        ({"traits": [" a"]}, "blank"),
        ({"traits": ["{trait}"]}, "not safe in a path"),
        ({"traits": ["ä" * 51]}, "longer than 100 bytes"),
        ({"trait_set": "../x"}, "not safe in a path"),
        ({"tasks": []}, "tasks: .*at least 1"),
        ({"tasks": ["predict", "predict"]}, "tasks: named twice"),
        ({"tasks": ["paint"]}, "'predict', 'cov', 'aoa' or 'build'"),
        ({"predictors": []}, "predictors: .*at least 1"),
        ({"predictors": ["a.tif", "a.tif"]}, "named twice: a.tif"),
        ({"predictors": "a_{trait}.tif"}, r"unknown placeholder \{trait\}, allowed are \{month\}"),
        ({"models": "/m/{traits}"}, r"unknown placeholder \{traits\}"),
        ({"models": "/m/{trait"}, "unbalanced brace"),
        ({"models": " "}, "location is empty"),
        ({"output": "/o/{trait}"}, r"unknown placeholder \{trait\}"),
        ({"colour": 1}, "unknown key.*got: colour; expected: .*traits"),
        ({"resources": {"traits.paint": {}}}, "traits.paint"),
        ({"resources": {"traits.aoa": {"ram": 1}}}, r"unknown key.*resources\.traits\.aoa\.ram"),
        ({"resources": {"traits.aoa": {"memory": "2 GB"}}}, "a size needs its unit"),
        ({"interval_start": "2024-01-01T00:00:00"}, "interval_start"),
        ({"interval_start": "2024-01-01T00:00:00Z"}, "given together"),
        ({**year(2024), "interval_end": year(2024)["interval_start"]}, "later than interval_start"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        params(**changes)
    assert "\n" not in str(caught.value)


def test_placeholders_are_filled() -> None:
    made = params(
        **year(2023),
        trait_set="woody",
        predictors=["s3://b/{year}/{trait_set}.tif"],
        models="/m/{trait_set}/{trait}/v{year}",
        output="/o/{year}/{trait_set}",
    )
    assert made.predictor_uris() == ["s3://b/2023/woody.tif"]
    assert made.bundle_uri("X50") == "/m/woody/X50/v2023"
    assert made.product_uri("X50") == "/o/2023/woody/X50.tif"


@pytest.mark.parametrize("key", ["predictors", "models", "output"])
@pytest.mark.parametrize("placeholder", ["year", "month"])
def test_year_without_an_interval_says_what_to_do(key: str, placeholder: str) -> None:
    made = params(**{key: f"/data/{{{placeholder}}}/x"})
    with pytest.raises(ConfigError, match=rf"\{{{placeholder}\}}.*interval_start"):
        (made.predictor_uris(), made.bundle_uri("X50"), made.product_uri("X50"))


@pytest.mark.parametrize(
    ("start", "end", "output", "expected"),
    [
        ("2024-01-01", "2025-01-01", "/o", "/o/2024"),
        ("2024-01-01", "2025-01-01", "/o/{year}", "/o/2024"),
        ("2024-12-01", "2025-01-01", "/o", "/o/2024-12"),
        ("2024-02-01", "2024-03-01", "/o/{year}/{month}", "/o/2024/02"),
        # {year} alone would give twelve months one and the same product.
        ("2024-02-01", "2024-03-01", "/o/{year}", "/o/2024/2024-02"),
        ("2024-02-05", "2024-03-01", "/o", "/o/2024-02-05"),
        ("2024-01-01", "2026-01-01", "/o", "/o/2024-01-01"),
        ("2024-01-01T06:00:00", "2024-01-01T07:00:00", "/o", "/o/2024-01-01T060000"),
    ],
)
def test_interval_names_the_folder(start: str, end: str, output: str, expected: str) -> None:
    made = params(
        interval_start=datetime.fromisoformat(start).replace(tzinfo=UTC),
        interval_end=datetime.fromisoformat(end).replace(tzinfo=UTC),
        output=output,
    )
    assert made.output_uri() == expected


def test_interval_is_read_in_utc() -> None:
    east = timezone(timedelta(hours=2))
    made = params(
        interval_start=datetime(2024, 1, 1, 2, tzinfo=east),
        interval_end=datetime(2025, 1, 1, 2, tzinfo=east),
    )
    assert made.interval_label == "2024"


FILE = """
traits:
  names: [X50, X55]
trait_sets: [splot, gbif]
predictors: [rasters/, s3://bucket/soil.tif, /abs/climate.tif]
models: models/{trait_set}/{trait}
output: ../maps/{trait_set}
seed: 3
local_point_density: true
resources:
  traits.aoa: {cpus: 2, memory: 4GiB, time: "01:00:00"}
"""


def test_params_file_is_relative_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(FILE)
    read = read_traits_file(path)
    assert read.seed == 3
    made = read.infer_params(traits=("X55",), trait_set="gbif", tasks=("aoa",), overwrite=True)
    assert made.traits == ("X55",)
    assert made.predictors == (f"{tmp_path}/rasters/", "s3://bucket/soil.tif", "/abs/climate.tif")
    assert made.bundle_uri("X55") == f"{tmp_path}/models/gbif/X55"
    assert made.output_uri() == str(tmp_path.parent / "maps" / "gbif")
    assert (made.tasks, made.overwrite, made.local_point_density) == (("aoa",), True, True)
    assert made.resources["traits.aoa"].model_dump() == {
        "cpus": 2,
        "memory": 4096,
        "time": 3600,
        "gpus": None,
    }
    everything = read.infer_params()
    assert (everything.traits, everything.trait_set) == (("X50", "X55"), "splot")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 3", "sead: 3", r"unknown key.*params\.yaml.*sead.*expected: .*trait_sets"),
        ("  names:", "  name:", r"traits\.name"),
        ("models: models/{trait_set}/{trait}\n", "", "missing.*models"),
        ("seed: 3", "seed: -1", "seed: .*greater than or equal to 0"),
        ("seed: 3", "seed: 3\nseed: 4", "'seed' is given twice"),
        ("[X50, X55]", "[X50, 55]", r"traits\.names\.1: should be a text"),
        ("[X50, X55]", "[X50, X55", "not a YAML file"),
        (FILE, "- a\n", "holds no keys"),
        (FILE, "!!python/object/apply:os.system [echo]", "not a YAML file"),
    ],
)
def test_wrong_params_file_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FILE
    path = tmp_path / "params.yaml"
    path.write_text(FILE.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_traits_file(path)


def test_unknown_trait_and_trait_set_name_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(FILE)
    read = read_traits_file(path)
    with pytest.raises(ConfigError, match=r"unknown trait; .*got: X99; expected: X50, X55"):
        read.infer_params(traits=("X50", "X99"))
    with pytest.raises(ConfigError, match="got: iucn; expected: splot, gbif"):
        read.infer_params(trait_set="iucn")
    with pytest.raises(MissingInput, match="absent"):
        read_traits_file(tmp_path / "absent.yaml")


def test_params_import_no_compute_package() -> None:
    code = (
        "import sys; import muster.traits.params; "
        "print([m for m in ('numpy', 'pyarrow', 'rasterio', 'lightgbm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_traits_that_are_no_list_are_refused_beside_a_file(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(FILE)
    data = InferParams.complete({"config": str(path), "traits": 5})
    with pytest.raises(ConfigError, match=r"traits: .*got: 5"):
        parse_config(InferParams, dict(data), "params of trait_inference")
