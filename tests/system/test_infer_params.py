"""A params.yaml or site file that is wrong: refused before anything runs, in one line."""

from __future__ import annotations

import pytest

from tests.system.desk import Desk, assert_says_once

REST = "predictors: 'stack.tif'\nmodels: 'models'\noutput: maps\n"
TRAITS = "traits: {names: [leaf_area]}\n"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk whose store does not answer: nothing here may get as far as asking it."""
    folder = tmp_path_factory.mktemp("params")
    return Desk(folder / "at", "postgresql://nobody@127.0.0.1:1/none", folder)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (TRAITS + REST + "colour: red", ("unknown key", "colour", "local_point_density, models")),
        ("traits: {names: [a], nmaes: 1}\n" + REST, ("unknown key", "traits.nmaes", ": names")),
        (TRAITS + REST + "output: other", ("key 'output' is given twice", "line 5")),
        ("traits: {names: []}\n" + REST, ("traits.names: needs at least 1", "got: []")),
        ("traits: {names: null}\n" + REST, ("traits.names: should be a list", "got: null")),
        ("traits: {names: leaf}\n" + REST, ("traits.names: should be a list", "got: 'leaf'")),
        ("traits: [leaf]\n" + REST, ("traits: should be a mapping", "got: ['leaf']")),
        ("traits: {}\n" + REST, ("a key is missing", "expected: traits.names")),
        (TRAITS + "models: models\noutput: maps", ("a key is missing", "expected: predictors")),
        ("traits: {names: ['']}\n" + REST, ("traits.names.0", "may not be empty")),
        ("traits: {names: [a/b]}\n" + REST, ("traits.names.0", "'a/b' is not safe in a path")),
        ("traits: {names: ['..']}\n" + REST, ("traits.names.0", "'..' is not safe in a path")),
        ('traits: {names: ["a\\nb"]}\n' + REST, ("traits.names.0", "is not safe in a path")),
        ("traits: {names: [" + "x" * 300 + "]}\n" + REST, ("longer than 100 bytes",)),
        ("traits: {names: [a, b, a]}\n" + REST, ("traits.names: named twice: a",)),
        ("traits: {names: [12]}\n" + REST, ("traits.names.0", "should be a text", "got: 12")),
        (TRAITS + REST.replace("stack", "{yaer}"), ("unknown placeholder {yaer}", "{year}")),
        (TRAITS + REST.replace("stack", "{year"), ("predictors.0: unbalanced brace",)),
        (TRAITS + REST.replace("maps", "m-{year}"), ("placeholder {year}", "m-{year}", "--year")),
        (TRAITS + REST.replace("stack", "{year}"), ("placeholder {year}", "{year}.tif", "--year")),
        (TRAITS + REST.replace("'models'", "'{year}'"), ("placeholder {year}", "--year")),
        (TRAITS + REST.replace("'stack.tif'", "[]"), ("predictors: needs at least 1",)),
        (TRAITS + REST + "seed: -1", ("seed: ", "greater than or equal to 0", "got: -1")),
        (TRAITS + REST + "resources: {traits.aoa: {cores: 2}}", ("unknown key", "cores", "cpus")),
        (TRAITS + REST + "resources: {traits.aoo: {cpus: 2}}", ("traits.aoo", "traits.aoa")),
        (TRAITS + REST + "resources: {traits.aoa: {memory: big}}", ("memory", "'512MiB'", "'big'")),
        ("traits: {names: [leaf_area]\n", ("not a YAML file", "line 2", "','")),
        ("traits: !!python/object/apply:os.system ['touch x']", ("not a YAML file", "python")),
        ("a" * 10, ("params file holds no keys", "got: str", "trait_table, traits")),
        ("", ("params file holds no keys", "got: NoneType")),
        (b"\x00\x01\xff\xfe", ("not a YAML file", "params.yaml")),
        ("traits: {names: [Blattflä]}\n".encode("latin-1"), ("not a YAML file", "params.yaml")),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_one_line(
    desk: Desk, text: str | bytes, parts: tuple[str, ...]
) -> None:
    path = desk.folder / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    ran = desk.invoke_infer()
    assert (ran.code, ran.stdout) == (65, "")
    assert len(ran.complaints) == 1, ran.stderr
    assert_says_once(ran, *parts)
    if "placeholder {year}" not in parts:
        assert_says_once(ran, "params.yaml")
    assert not (desk.folder / "x").exists()
    assert not desk.home.exists()


def test_a_file_that_is_absent_or_none_is_told(desk: Desk) -> None:
    for name, code, parts in (
        ("absent.yaml", 66, ("no such file", "where: absent.yaml")),
        (".", 65, ("cannot be read", "Is a directory")),
    ):
        ran = desk.invoke("traits", "infer", "--params", name)
        assert (ran.code, ran.stdout) == (code, "")
        assert_says_once(ran, *parts)


@pytest.mark.parametrize(
    ("text", "code", "parts"),
    [
        (None, 66, ("no such site", "site.toml", "laptop")),
        ("x = ", 65, ("not a TOML file", "site.toml", "end of document")),
        (b"\xff", 65, ("not a TOML file", "site.toml")),
        ("[pols]", 65, ("unknown key", "site.toml", "pols", "pools")),
        ("", 65, ("a key is missing", "site.toml", "pools")),
        ('[pools]\na = { backend = "local" }\n[placement]', 65, ("missing", "pools.a.slots")),
        ('[pools]\na = { backend = "pbs", slots = 1 }\n[placement]', 65, ("backend", "'pbs'")),
        ('[pools]\na = { backend = "local", slots = 0 }\n[placement]', 65, ("one slot",)),
        ('[pools]\n[placement]\n"traits.aoa" = { pool = "b" }', 65, ("traits.aoa", "'b'")),
        ('[pools]\n[placement]\n"traits.aoo" = { pool = "b" }', 65, ("unknown step 'traits.aoo'",)),
        ('[pools]\na = { backend = "local", slots = 1 }\n[placement]', 65, ("does not place",)),
    ],
)  # fmt: skip
def test_a_wrong_site_file_is_refused_in_one_line(
    desk: Desk, text: str | bytes | None, code: int, parts: tuple[str, ...]
) -> None:
    (desk.folder / "params.yaml").write_text(TRAITS + REST)
    path = desk.folder / "site.toml"
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    ran = desk.invoke_infer("--site", "site.toml")
    assert (ran.code, ran.stdout) == (code, "")
    assert len(ran.complaints) == 1, ran.stderr
    assert_says_once(ran, *parts)
