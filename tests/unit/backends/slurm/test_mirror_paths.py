"""Paths of a mirrored work directory: what is translated, and what is left alone."""

from __future__ import annotations

import json

import pytest

from muster.backends.remote.mirror_paths import WorkPaths, is_translated
from muster.errors import InvalidInput

PATHS = WorkPaths("/data/work", "/lustre/u/muster")


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("/data/work", "/lustre/u/muster"),
        ("/data/work/runs/a b/é.json", "/lustre/u/muster/runs/a b/é.json"),
        ("/data/work/runs/", "/lustre/u/muster/runs/"),
        ("file:///data/work/a%20b", "file:///lustre/u/muster/a%20b"),
    ],
)
def test_paths_below_move_and_come_back(here: str, there: str):
    assert PATHS.to_there(here) == there
    assert json.loads(PATHS.translate_to_here(json.dumps(there).encode())) == here


@pytest.mark.parametrize(
    "path",
    [
        "/data/workshop/x",
        "/data/work/../secret",
        "/data",
        "data/work/x",
        "",
        "s3://data/work/x",
        "see /data/work/x",
        "/data/work/a/../../../etc/passwd",
        "file:///data/workshop",
    ],
)
def test_what_lies_elsewhere_has_no_path_there(path: str):
    with pytest.raises(InvalidInput, match="work directory"):
        PATHS.to_there(path)


def test_root_may_be_the_work_directory():
    assert WorkPaths("/", "/there").to_there("/a") == "/there/a"
    assert WorkPaths("/here", "/").to_there("/here/a") == "/a"


def test_relative_work_directory_is_refused():
    with pytest.raises(InvalidInput):
        WorkPaths("work", "/there")


def test_only_whole_values_below_are_translated():
    value = {
        "/data/work/key": "/data/work/x",
        "list": ["/data/work", "/data/other", 1, None, True, 0.1, {"a": "/data/work/é"}],
        "text": "no such file; where: /data/work/x",
    }
    moved = json.loads(PATHS.translate_to_there(json.dumps(value).encode()))
    assert moved == {
        "/data/work/key": "/lustre/u/muster/x",
        "list": [
            "/lustre/u/muster",
            "/data/other",
            1,
            None,
            True,
            0.1,
            {"a": "/lustre/u/muster/é"},
        ],
        "text": "no such file; where: /data/work/x",
    }
    assert json.loads(PATHS.translate_to_here(json.dumps(moved).encode())) == value


def test_json_without_such_paths_stays_byte_for_byte():
    data = b'{"a" :  1.10,\n "b": "/elsewhere"}'
    assert PATHS.translate_to_there(data) == data


@pytest.mark.parametrize(
    ("name", "translated"),
    [("batch-0123456789ab.json", True), ("plan.json", True), ("0", False), ("stac.json", False)],
)
def test_few_files_are_translated(name: str, translated: bool):
    assert is_translated(name) is translated
