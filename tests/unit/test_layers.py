"""Who may import whom: by the floors of the house, and in processes that lack others' packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from muster.jobs.planning.workflow import WORKFLOWS, load_workflow

REPOSITORY = Path(__file__).resolve().parents[2]
COMPUTE = (
    "abacusnbody", "asdf", "colossus", "cupy", "diffsky", "h5py", "jax", "lightgbm", "llvmlite",
    "matplotlib", "mpi4py", "numba", "numpy", "pyarrow", "pyproj", "pystac", "rasterio", "scipy",
    "sklearn",
)  # fmt: skip

FLOORS = (
    {
        "",
        "config",
        "counts",
        "entry_points",
        "errors",
        "frozen",
        "hashing",
        "imports",
        "locations",
        "log",
        "storage",
    },
    {"model", "raster"},
    {"pools", "site", "store"},
    {"backends"},
    {"doctor", "jobs"},
    {"report"},
    {"mocks", "resampling", "traits"},
    {"__main__", "campaign_manager", "cli", "laptop"},
)
"""What lies in muster/, from the ground up; a module imports from its own floor and those below."""

BLOCK = """
import importlib, importlib.abc, runpy, sys, warnings
warnings.simplefilter("ignore")
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
BLOCKED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Absent())
"""
IMPORT = BLOCK + "for name in sys.argv[2:]:\n    importlib.import_module(name)\n"
RUN = BLOCK + "for path in sys.argv[2:]:\n    runpy.run_path(path)\n"


def modules(package: str) -> list[str]:
    root = REPOSITORY / package.replace(".", "/")
    names = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        if "migrations" not in parts and parts[-1] != "__main__":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def run(code: str, blocked: tuple[str, ...], *arguments: str, home: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", code, ",".join(blocked), *arguments],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": "plugins", "AIRFLOW_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]


def read_imports() -> dict[str, set[str]]:
    """Read of each module which others of muster it imports, anywhere and for types too."""
    paths = {}
    for path in sorted((REPOSITORY / "muster").rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found: dict[str, set[str]] = {}
    for name, path in paths.items():
        named = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                members = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= (members & set(paths)) or {str(node.module)}
        found[name] = named & set(paths)
    return found


def floor_of(module: str) -> int:
    part = ([*module.split("."), ""])[1]
    return next(number for number, floor in enumerate(FLOORS) if part in floor)


def find_upward(imports: dict[str, set[str]]) -> list[str]:
    return [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in others
        if floor_of(other) > floor_of(module)
    ]


def find_circle(imports: dict[str, set[str]]) -> list[str]:
    """Find modules that import each other in a circle; a wing and its own package may."""
    left = {
        module: {o for o in others if not f"{module}.".startswith(f"{o}.")}
        for module, others in imports.items()
    }
    while ready := [m for m, others in left.items() if not others & left.keys()]:
        for module in ready:
            del left[module]
    return sorted(left)


def test_no_module_imports_from_a_floor_above() -> None:
    imports = read_imports()
    assert len(imports) > 250
    assert find_upward(imports) == []


def test_modules_form_no_circle() -> None:
    assert find_circle(read_imports()) == []


def test_an_upward_import_and_a_circle_are_found() -> None:
    upward = {"muster.store.runs": {"muster.jobs.child"}, "muster.jobs.child": set()}
    assert find_upward(upward) == ["muster.store.runs imports muster.jobs.child"]
    circle = {"muster.a": {"muster.b"}, "muster.b": {"muster.a"}, "muster.c": {"muster.a"}}
    assert find_circle(circle) == ["muster.a", "muster.b", "muster.c"]
    own = {"muster.w": {"muster.w.x"}, "muster.w.x": {"muster.w"}}
    assert find_circle(own) == []


@pytest.mark.thorough
@pytest.mark.slow
def test_muster_is_importable_without_airflow(tmp_path: Path) -> None:
    names = modules("muster")
    assert "muster.jobs.supervision.supervisor" in names
    assert "muster.traits.predicting.predict" in names
    if find_spec("asdf") is None:  # an extra of its own
        names.remove("muster.mocks.halos.compaso")
    run(IMPORT, ("airflow",), *names, home=tmp_path)


OF_AIRFLOWS_SIDE = (
    "muster.model",
    "muster.jobs",
    "muster.doctor",
    "muster.store",
    "muster.backends",
    "muster.storage",
    "muster.report",
    "muster.cli",
    "operators",
)


def test_all_that_airflow_needs_is_importable_without_the_compute_libraries(tmp_path: Path) -> None:
    names = [name for package in OF_AIRFLOWS_SIDE for name in modules(package)]
    run(IMPORT, COMPUTE, *names, home=tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("package", OF_AIRFLOWS_SIDE)
def test_what_airflow_needs_is_importable_without_the_compute_libraries(
    package: str, tmp_path: Path
) -> None:
    run(IMPORT, COMPUTE, *modules(package), home=tmp_path)


def test_what_a_workflow_does_at_its_end_needs_no_compute_libraries(tmp_path: Path) -> None:
    ours = [load_workflow(name) for name in WORKFLOWS]
    named = [name for w in ours for name in (w.report, w.conclude) if name]
    assert named
    run(IMPORT, COMPUTE, *(name.partition(":")[0] for name in named), home=tmp_path)


def test_dags_and_plugins_are_importable_without_the_compute_libraries(tmp_path: Path) -> None:
    files = [str(p) for folder in ("dags", "plugins") for p in (REPOSITORY / folder).glob("*.py")]
    assert files
    run(RUN, COMPUTE, *files, home=tmp_path)


def test_the_block_works(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="blocked: numpy"):
        run(IMPORT, COMPUTE, "muster.raster.write.packing", home=tmp_path)


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("muster.jobs.running.child", {"airflow", "importlib.metadata", "numpy", "pydantic"}),
        ("muster.jobs.running.runner", {"airflow", "numpy", "rasterio"}),
        ("muster.traits.predicting.predict", {"airflow", "lightgbm", "pyarrow", "sklearn"}),
        ("muster.traits.product.build", {"lightgbm", "numba", "pyarrow", "sklearn"}),
    ],
)
def test_a_process_of_a_job_starts_without_what_it_does_not_need(
    module: str, unwanted: set[str]
) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert not unwanted & set(loaded.split())
