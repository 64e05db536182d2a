"""What a batch is frozen with: nothing in it can be more than one word of Slurm's."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from muster.model.slurm_target import OWN_OPTIONS, Cluster, SlurmTarget

WORDS = ("partition", "account", "qos", "constraint", "reservation", "gres")


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize(
    "word", ["", "-x", "--wrap=x", "a b", "a\nb", "a#b", 'a"b', "a'b", "a\\b", "$(x)", "a;b", "\0"]
)
def test_a_word_is_one_word(name: str, word: str) -> None:
    with pytest.raises(ValidationError):
        SlurmTarget(**{name: word})


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("partition", "genoa,milan"),
        ("qos", "regular_1"),
        ("account", "m1234_g"),
        ("constraint", "gpu&hbm80g"),
        ("constraint", "[rack1*2&rack2*4]"),
        ("constraint", "(cpu|gpu)"),
        ("gres", "gpu"),
        ("gres", "gpu:a100,nvme:1"),
    ],
)
def test_words_of_slurm_are_taken(name: str, word: str) -> None:
    assert getattr(SlurmTarget(**{name: word}), name) == word


@pytest.mark.parametrize("gres", ["gpu:2", "gpu:l40s:2", "nvme:1,gpu:1"])
def test_the_number_of_gpus_is_the_placements(gres: str) -> None:
    with pytest.raises(ValidationError, match="said by the placement"):
        SlurmTarget(gres=gres)


@pytest.mark.parametrize("name", sorted(OWN_OPTIONS))
def test_what_muster_sets_is_no_further_option(name: str) -> None:
    with pytest.raises(ValidationError, match="set by Muster itself"):
        SlurmTarget(options={name: True})


@pytest.mark.parametrize(
    "options",
    [
        {"--nice": 1},
        {"Nice": 1},
        {"nice\n#SBATCH --wrap": 1},
        {"": True},
        {"image": ""},
        {"image": "a b"},
        {"image": "a\nb"},
        {"image": "-x"},
        {"image": 'a"b'},
        {"image": "a#b"},
        {"overcommit": False},
        {"nice": 1.5},
        {"nice": None},
    ],
)
def test_an_option_that_could_be_another_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SlurmTarget(options=options)


def test_further_options_keep_their_kind() -> None:
    options = {"nice": 1, "overcommit": True, "licenses": "scratch:1,cfs", "image": "docker:a/b:1"}
    place = SlurmTarget(options=options)
    assert place.options == options
    assert place.options["nice"] is not True
    assert SlurmTarget.model_validate_json(place.model_dump_json()) == place


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"transport": "ssh"}, "needs a host"),
        ({"host": "login1"}, "host: only with transport = 'ssh'"),
        ({"work": "/there"}, "work: only with"),
        ({"transport": "ssh", "host": "login1", "work": "there"}, "absolute path"),
        ({"transport": "ssh", "host": "-oProxyCommand=x"}, "host"),
        ({"transport": "ssh", "host": "a b"}, "host"),
        ({"transport": "ssh", "host": "login1", "user": "-x"}, "user"),
        ({"environment": {"a b": "x"}}, "'a b'"),
        ({"environment": {"PPID": "x"}}, "'PPID'"),
        ({"prelude": ("",)}, "empty"),
        ({"container": ("a\0",)}, "NUL"),
        ({"python": ""}, "empty"),
        ({"name": "a b"}, "name"),
        ({"submissions_per_s": 0}, "greater than 0"),
        ({"poll_every": 30}, "poll_every"),
    ],
)
def test_a_cluster_that_cannot_be_reached_so_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Cluster(**fields)


def test_a_cluster_is_frozen_and_read_again_as_it_was() -> None:
    cluster = Cluster(
        transport="ssh",
        host="login1.example.org",
        port=2222,
        user="ada",
        work="/scratch/muster",
        poll_every="00:01:00",
        environment={"A": "b\nc"},
        container=("shifter", "--image=x"),
    )
    assert cluster.poll_every == 60
    assert Cluster.model_validate_json(cluster.model_dump_json()) == cluster
