"""Temporary names: each one made is recognised, nested ones too, and the sweep removes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from muster import storage
from muster.jobs.retention.work_layout import Kind, find_work
from muster.storage.temporaries import (
    Temporary,
    digest,
    parse_temporary,
    start_of,
    temporary_sibling,
    writer_name,
)

NAME_BYTES = 255
"""What a file system takes."""


def _cut(name: str) -> str:
    while len(os.fsencode(name)) > NAME_BYTES:
        name = name[: NAME_BYTES if len(name) > NAME_BYTES else -1]
    return name


ALPHABET = st.one_of(
    st.sampled_from("..part09af-é漢\n \udcff"),
    st.characters(codec="utf-8", exclude_characters="/\0"),
)
NAMES = (
    st.tuples(st.text(ALPHABET, min_size=1, max_size=9), st.sampled_from([1, 3, 13, 60, 255]))
    .map(lambda drawn: _cut(drawn[0] * drawn[1]))
    .filter(lambda name: name not in (".", ".."))
)
BESIDE = st.sampled_from(["", ".ovr.tmp", ".aux.xml", ".part"])


@given(name=NAMES, owner=st.text(max_size=20), depth=st.integers(1, 4), beside=BESIDE)
def test_every_name_is_recognised_however_nested(
    name: str, owner: str, depth: int, beside: str
) -> None:
    assume(parse_temporary(name) is None)
    path = temporary_sibling(Path("/w") / name, owner)
    for _ in range(depth - 1):
        path = temporary_sibling(path)
    assert len(os.fsencode(path.name)) <= NAME_BYTES
    found = parse_temporary(path.name + beside)
    assert found == Temporary(start_of(name), digest(owner), writer_name())
    assert storage.is_temporary(path.name + beside)
    assert storage.writer_is_alive(f"a/{path.name}") is True


@given(name=NAMES)
def test_a_product_is_no_temporary(name: str) -> None:
    assert storage.is_temporary(name) == name.endswith(".part")


@pytest.mark.parametrize("depth", [2, 3])
def test_names_that_were_nested_are_recognised(depth: int) -> None:
    name = "map.tif"
    for level in range(depth):
        name = f".{name}.{digest('o' if level == 0 else '')}.{writer_name()}.{'0' * 32}.part"
    assert name.startswith("..")
    assert parse_temporary(name) == Temporary("map.tif", digest("o"), writer_name())


@pytest.mark.parametrize(
    "name", ["map.tif", "漢" * 85, "a" * 255, ".hidden", "x" * 119 + "é"], ids=len
)
def test_the_sweep_takes_what_is_dead_or_the_owners_and_nothing_else(
    tmp_path: Path, name: str
) -> None:
    target = tmp_path / name
    mine = temporary_sibling(temporary_sibling(target, "me"))
    other = temporary_sibling(temporary_sibling(target, "other"))
    nobody = temporary_sibling(target)
    neighbour = temporary_sibling(tmp_path / f"_{name}"[:60], "me")
    dead = [
        path.with_name(path.name.replace(writer_name(), f"{digest(os.uname().nodename)}-{2**30}"))
        for path in (mine, other, nobody)
    ]
    dead.append(dead[0].with_name(f"{dead[0].name}.ovr.tmp"))
    # another host's process, of which this host cannot know whether it runs
    elsewhere = other.with_name(other.name.replace(writer_name(), f"{digest('elsewhere')}-1"))
    assert storage.writer_is_alive(elsewhere.name) is None
    for path in (target, mine, other, nobody, neighbour, elsewhere, *dead):
        path.write_bytes(b"x")
    storage.sweep(str(target), "me")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {target.name, other.name, nobody.name, neighbour.name, elsewhere.name}


def test_a_dead_process_folder_is_swept_with_what_is_in_it(tmp_path: Path) -> None:
    fresh = temporary_sibling(tmp_path / "bundle")
    dead = fresh.with_name(fresh.name.replace(f"-{os.getpid()}.", f"-{2**30}."))
    for folder in (fresh, dead):
        folder.mkdir()
        (folder / "model.txt").write_text("x")
    (found,) = (found for found in find_work(str(tmp_path)) if found.writer is False)
    assert (found.name, found.kind, found.is_folder) == (dead.name, Kind.TEMPORARY, True)
    storage.sweep(str(tmp_path / "bundle"), "")
    assert list(tmp_path.iterdir()) == [fresh]


KILLED_IN_A_NESTED_TEMPORARY = """
import os, sys, time
from muster import storage
from muster.raster.write.integrity import check_output_folder
staged = storage.stage(sys.argv[1], owner="run1/0")
staged.path.write_bytes(b"half")

def stall(descriptor):
    print("nested", flush=True)
    time.sleep(60)

os.fsync = stall
check_output_folder(staged.path)
"""


@pytest.mark.parametrize("name", ["map.tif", "漢" * 85], ids=["short", "longest"])
def test_a_kill_within_a_temporary_of_a_temporary_leaves_nothing_after_the_sweep(
    tmp_path: Path, name: str
) -> None:
    target = tmp_path / name
    target.write_bytes(b"old and whole")
    command = [sys.executable, "-c", KILLED_IN_A_NESTED_TEMPORARY, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "nested\n"
        assert len(list(tmp_path.iterdir())) == 3
        writer.kill()
    assert storage.list(str(tmp_path)) == [name]
    leftovers = [found for found in find_work(str(tmp_path)) if found.kind is Kind.TEMPORARY]
    assert [found.writer for found in leftovers] == [False, False]
    storage.sweep(str(target), "run2/0")
    assert list(tmp_path.iterdir()) == [target]
