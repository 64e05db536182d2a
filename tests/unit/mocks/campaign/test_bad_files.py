"""Bad campaign files: each error with its key, its line and what is allowed; all at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.mocks.campaign.config import parse_campaign, read_campaign
from muster.mocks.campaign.problems import CampaignFileError
from muster.mocks.campaign.yaml_document import MOST_BYTES
from tests.unit.mocks.campaign.campaign_files import GOOD, write_campaign

if TYPE_CHECKING:
    from pathlib import Path


def find_problems(path: Path) -> list[str]:
    with pytest.raises(CampaignFileError) as caught:
        read_campaign(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [f"{path}: {p.text}" for p in caught.value.problems] == caught.value.lines
    return [problem.text for problem in caught.value.problems]


BAD = {
    "unknown key": (
        ("batch_size", "batchsize"),
        "line 11: execution.batchsize: unknown key, is batch_size meant?; allowed: batch_size, "
        "concurrency, max_retries, order, pack, quorum, retry_backoff, slice_realizations, "
        "timeout_hours",
    ),
    "unknown block": (("resources:", "resource:"), "line 12: resource: unknown key, is resources"),
    "key missing": (
        ("  galaxy_model: hod\n", ""),
        "line 4: science.galaxy_model: the key is missing",
    ),
    "block missing": (("outputs:\n  base_path: /campaigns\n", ""), "outputs: the key is missing"),
    "block is no mapping": (
        ("execution:\n  batch_size: 4", "execution: 4"),
        "line 10: execution: should be a mapping; got: 4",
    ),
    "wrong type": (
        ("batch_size: 4", "batch_size: many"),
        "line 11: execution.batch_size: should be a whole number; got: 'many'",
    ),
    "quoted number": (
        ("batch_size: 4", 'batch_size: "4"'),
        "line 11: execution.batch_size: should be a whole number; got: '4'",
    ),
    "true for a number": (
        ("batch_size: 4", "batch_size: true"),
        "line 11: execution.batch_size: should be a whole number; got: true",
    ),
    "nothing for a number": (
        ("batch_size: 4", "batch_size:"),
        "line 11: execution.batch_size: should be a whole number; got: null",
    ),
    "yes for a number": (
        ("batch_size: 4", "batch_size: yes"),
        "line 11: execution.batch_size: should be a whole number; got: 'yes'",
    ),
    "out of range": (
        ("batch_size: 4", "batch_size: 0"),
        "line 11: execution.batch_size: should be greater than or equal to 1; got: 0",
    ),
    "none of the words": (
        ("batch_size: 4", "order: depth"),
        "line 11: execution.order: should be 'depth_first' or 'breadth_first'; got: 'depth'",
    ),
    "snapshots": (
        ("  galaxy_model", "  snapshots: 3\n  galaxy_model"),
        "line 9: science.snapshots: should be the number of redshifts, which is 2; leave it out, "
        "or complete the redshifts; got: 3",
    ),
    "redshift twice": (
        ("[1.1, 0.5]", "[1.1, 0.5, 1.1]"),
        "line 8: science.redshifts: given twice: 1.1",
    ),
    "redshift below 0": (
        ("[1.1, 0.5]", "[1.1, -0.5]"),
        "line 8: science.redshifts[1]: should be greater than or equal to 0; got: -0.5",
    ),
    "no redshift": (("[1.1, 0.5]", "[]"), "line 8: science.redshifts: needs at least 1"),
    "NaN": (
        ("[1.1, 0.5]", "[1.1, .nan]"),
        "line 8: science.redshifts[1]: NaN, infinities and numbers too large for a double",
    ),
    "infinite": (
        ("  galaxy_model", "  min_mass_msunh: 1e999\n  galaxy_model"),
        "line 9: science.min_mass_msunh: NaN, infinities and numbers too large for a double",
    ),
    "no realization": (
        ("realizations: 10", "realizations: 0"),
        "line 7: science.realizations: there is no realization; got: 0",
    ),
    "realizations in words": (
        ("realizations: 10", "realizations: all"),
        "line 7: science.realizations: should be how many realizations there are, or a mapping",
    ),
    "too many realizations": (
        ("realizations: 10", "realizations: {count: 10, start: 99995}"),
        "line 7: science.realizations: the last realization would have the number 100004; the "
        "highest is 99999",
    ),
    "include what is excluded": (
        ("realizations: 10", "realizations: {count: 10, include: [3], exclude: [3]}"),
        "line 7: science.realizations.exclude: 3 is included, too",
    ),
    "another name": (
        ("  galaxy_model", "  min_mass: 1e10\n  galaxy_model"),
        "line 9: science.min_mass: unknown key: it is called min_mass_msunh here, in Msun/h",
    ),
    "what the site says": (
        ("job_type: cpu", "partition: genoa"),
        "line 13: resources.partition: unknown key: the site file says it, of the pool",
    ),
    "unknown suite": (
        ("synthetic", "Quijote"),
        "line 5: science.simulation_suite: unknown; got: 'Quijote'; allowed: AbacusSummit_small, ",
    ),
    "unknown galaxy model": (
        ("hod", "sam"),
        "line 9: science.galaxy_model: unknown; got: 'sam'; allowed: hod, diffsky, rgrspit",
    ),
    "unknown option of the box": (
        ("box_size_mpch: 50", "box_size: 50"),
        "line 6: science.box.box_size: unknown key, is box_size_mpch meant?; allowed: ",
    ),
    "option of the box out of range": (
        ("box_size_mpch: 50", "box_size_mpch: 5"),
        "line 6: science.box.box_size_mpch: should be greater than or equal to 25; got: 5",
    ),
    "unknown parameter": (
        ("  galaxy_model", "  parameters:\n    alfa: 1\n  galaxy_model"),
        "line 10: science.parameters.alfa: unknown key",
    ),
    "histories of a model without": (
        ("base_path", "layout: full\n  base_path"),
        "line 15: outputs.layout: the galaxy model hod has no formation histories",
    ),
    "size for a factor": (
        ("job_type: cpu", "memory_requirement: 64GiB"),
        "line 13: resources.memory_requirement: should be low, normal or high: 0.5, 1 or 2 times",
    ),
    "override that selects nothing": (
        ("job_type: cpu", "overrides:\n    - {redshifts: {max: 0.1}, memory: 8GiB}"),
        "line 14: resources.overrides[0].redshifts: selects none of the campaign's redshifts",
    ),
    "override of another redshift": (
        ("job_type: cpu", "overrides:\n    - {redshifts: [0.6], memory: 8GiB}"),
        "line 14: resources.overrides[0].redshifts: 0.6: none of the campaign's redshifts",
    ),
    "override that changes nothing": (
        ("job_type: cpu", "overrides:\n    - {redshifts: [0.5]}"),
        "line 14: resources.overrides[0]: changes nothing: say memory, time or cpus",
    ),
    "override without a unit": (
        ("job_type: cpu", "overrides:\n    - {redshifts: [0.5], memory: 8}"),
        "line 14: resources.overrides[0].memory: a size needs its unit: '512MiB', '190GiB'",
    ),
    "object store": (
        ("/campaigns", "s3://bucket/campaigns"),
        "line 15: outputs.base_path: should be a path or file:///path: catalogues are made on a "
        "file system, and 'muster campaign stage' brings them elsewhere",
    ),
    "variable in a path": (
        ("/campaigns", "$SCRATCH/campaigns"),
        "line 15: outputs.base_path: is taken literally, ~ and $ too: write the path out",
    ),
    "compression that HDF5 lacks": (
        ("base_path", "compression: zstd\n  base_path"),
        "line 15: outputs.compression: should be 'gzip', 'lzf' or 'none'; got: 'zstd'",
    ),
    "level without gzip": (
        ("base_path", "compression: {filter: lzf, level: 3}\n  base_path"),
        "line 15: outputs.compression.level: only gzip has a level; the filter is lzf",
    ),
    "metadata in another format": (
        ("base_path", "metadata_format: yaml\n  base_path"),
        "line 15: outputs.metadata_format: should be json: provenance and reports have no other",
    ),
    "redshifts not told apart": (
        ("[1.1, 0.5]", "[1.001, 1.0012]"),
        "line 14: outputs.naming_scheme: does not tell redshifts apart: 1.001 and 1.0012 are both "
        "mock_z1.001.hdf5",
    ),
    "scheme without redshift": (
        ("base_path", "naming_scheme: mock_{phase}\n  base_path"),
        "line 15: outputs.naming_scheme: does not tell redshifts apart: 1.1 and 0.5 are both",
    ),
    "scheme with another field": (
        ("base_path", "naming_scheme: 'mock_{z}'\n  base_path"),
        "line 15: outputs.naming_scheme: unknown field {z}; allowed are {cosmology}, {phase}, "
        "{realization}, {redshift}",
    ),
    "scheme that reads attributes": (
        ("base_path", "naming_scheme: '{redshift.__class__}'\n  base_path"),
        "line 15: outputs.naming_scheme: unknown field {redshift.__class__}",
    ),
    "scheme that leaves its folder": (
        ("base_path", "naming_scheme: '../mock_{redshift}'\n  base_path"),
        "line 15: outputs.naming_scheme: may hold letters, digits, _ . + - and fields in braces",
    ),
    "retention without a unit": (
        ("base_path", "retention: {logs: 90}\n  base_path"),
        "line 15: outputs.retention.logs: a time is written",
    ),
    "name without a letter": (
        ("Small boxes", "'---'"),
        "line 2: campaign.name: needs a letter (a-z) or digit",
    ),
    "version of a folder": (
        ('"1.0"', "../1.0"),
        "line 3: campaign.version: should match pattern",
    ),
    "key twice": (
        ("batch_size: 4", "batch_size: 4\n  batch_size: 5"),
        "line 11: execution.batch_size: given twice, first in line 11; and again in line 12",
    ),
    "key that is no text": (
        ("batch_size: 4", "4: batch_size"),
        "line 11: a key should be a text: '4'",
    ),
    "merge key": (
        ("batch_size: 4", "<<: {batch_size: 4}"),
        "line 11: execution.<<: merge keys are not taken",
    ),
    "tag": (
        ("batch_size: 4", "batch_size: !!python/object/apply:os.getpid []"),
        "line 11: tags are refused: !!python/object/apply:os.getpid",
    ),
    "tag of a plain value": (
        ("batch_size: 4", 'batch_size: !!int "4"'),
        "line 11: tags are refused: !!int",
    ),
    "tag of a list": (("[1.1, 0.5]", "!!set [1.1, 0.5]"), "line 8: tags are refused: !!set"),
    "tag of nobody": (("[1.1, 0.5]", "!a!b [1.1, 0.5]"), "line 8: tags are refused: !a!b"),
    "leading zero": (
        ("realizations: 10", "realizations: 010"),
        "line 7: science.realizations: a number is written without leading zeros: 010",
    ),
    "leading zero of a fraction": (
        ("[1.1, 0.5]", "[1.1, -00.5]"),
        "line 8: science.redshifts[1]: a number is written without leading zeros: -00.5",
    ),
    "line break in a path": (
        ("/campaigns", '"/campaigns\\nof mine"'),
        "line 15: outputs.base_path: may not hold line breaks",
    ),
    "redshift above the suite's": (
        ("[1.1, 0.5]", "[1.1, 20.5]"),
        "line 8: science.redshifts[1]: synthetic haloes are made up to redshift 20; got: 20.5",
    ),
    "text for a number in the box": (
        ("box_size_mpch: 50", 'box_size_mpch: "50"'),
        "line 6: science.box.box_size_mpch: should be a number; got: '50'",
    ),
    "text for a number deep in the box": (
        ("box_size_mpch: 50", 'cosmology: {h: "0.7"}'),
        "line 6: science.box.cosmology.h: should be a number; got: '0.7'",
    ),
    "true for a number in the box": (
        ("box_size_mpch: 50", "seed: true"),
        "line 6: science.box.seed: should be a number; got: true",
    ),
    "text for a parameter": (
        ("  galaxy_model", '  parameters:\n    alpha: "1"\n  galaxy_model'),
        "line 10: science.parameters.alpha: should be a number; got: '1'",
    ),
    "anchor": (
        ("batch_size: 4", "batch_size: &size 4"),
        "line 11: anchors and aliases are not taken",
    ),
    "tab": (
        ("  batch_size: 4", "\tbatch_size: 4"),
        "line 11: not a YAML file: a tab indents, where YAML takes blanks alone",
    ),
    "bracket without its partner": (
        ("[1.1, 0.5]", "[1.1, 0.5"),
        "line 9: not a YAML file: while parsing a flow sequence, expected ',' or ']'",
    ),
    "two documents": (
        ("execution:", "---\nexecution:"),
        "line 10: the file holds several documents; a campaign is one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_by_key_and_line(tmp_path: Path, case: str) -> None:
    changed, says = BAD[case]
    texts = find_problems(write_campaign(tmp_path, changed))
    assert len(texts) == 1, texts
    assert says in texts[0]


def test_there_are_more_than_twenty_cases_and_the_file_that_they_change_is_good(
    tmp_path: Path,
) -> None:
    assert len(BAD) > 20
    assert read_campaign(write_campaign(tmp_path)).label == "1.0_small_boxes"


def test_whole_numbers_are_numbers_and_a_negative_zero_is_zero(tmp_path: Path) -> None:
    changes = [
        ("  galaxy_model", "  parameters: {alpha: 1}\n  galaxy_model"),
        ("[1.1, 0.5]", "[0.05, -0.0]"),
    ]
    science = read_campaign(write_campaign(tmp_path, *changes)).science
    assert science.parameters == {"alpha": 1}
    assert str(science.redshifts[1]) == "0.0"


def test_all_errors_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    changes = [
        ('version: "1.0"', "vers: 1"),
        ("box_size_mpch: 50", "box_size_mpch: 5"),
        ("[1.1, 0.5]", "[1.1, 1.10001]"),
        ("batch_size: 4", "batch_size: 0\n  order: any"),
        ("job_type: cpu", "job_type: a b"),
        ("/campaigns", "~/campaigns"),
    ]
    texts = find_problems(write_campaign(tmp_path, *changes))
    keys = [re.sub(r"^line (\d+): ([^:]*): .*", r"\1 \2", text) for text in texts]
    assert keys == [
        "1 campaign.version",
        "3 campaign.vers",
        "6 science.box.box_size_mpch",
        "11 execution.batch_size",
        "12 execution.order",
        "14 resources.job_type",
        "16 outputs.base_path",
    ]


def test_quoted_numbers_are_told_beside_other_errors_of_their_block(tmp_path: Path) -> None:
    changes = [
        ("box_size_mpch: 50", 'box_size_mpch: "50", boks: 3, cosmology: {h: "0.7"}, seed: true'),
        (
            "  galaxy_model",
            '  parameters:\n    alpha: "1"\n    log_m_min: 12\n    sigma: 1\n  galaxy_model',
        ),
        ("batch_size: 4", 'batch_size: "4"\n  pack: 0\n  ordre: any'),
    ]
    texts = find_problems(write_campaign(tmp_path, *changes))
    keys = [re.sub(r"^line \d+: ([^:]*): .*", r"\1", text) for text in texts]
    assert keys == [
        "science.box.boks",
        "science.box.box_size_mpch",
        "science.box.cosmology.h",
        "science.box.seed",
        "science.parameters.alpha",
        "science.parameters.sigma",
        "execution.batch_size",
        "execution.pack",
        "execution.ordre",
    ]
    assert [text for text in texts if text.endswith("should be a number; got: '0.7'")]


def test_what_a_yaml_file_may_not_be_is_told_before_anything_is_made_of_it(tmp_path: Path) -> None:
    path = tmp_path / "campaign.yaml"
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
    )
    for content, says in (
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"- a\n- b\n", "the file holds no keys at its top"),
        (b"\xff\xfe\x00", "the file is no text in UTF-8: byte 0"),
        (b"a: \x00", "not a YAML file: "),
        (bomb.encode(), "line 1: anchors and aliases are not taken"),
        (b"a: " + b"[" * 100_000, "line 1: nested deeper than 20"),
        (b"a: " + b"9" * 10_000, "line 1: a: no number that can be taken"),
        (b"#" * (MOST_BYTES + 1), f"the file has {MOST_BYTES + 1} bytes; at most {MOST_BYTES}"),
    ):  # fmt: skip
        path.write_bytes(content)
        assert says in " ".join(find_problems(path)), content[:20]


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"campaign\.yaml"):
        read_campaign(tmp_path / "campaign.yaml")
    with pytest.raises(InvalidInput):
        read_campaign(tmp_path)


def test_a_campaign_given_as_data_has_the_same_errors_without_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_campaign({"campaign": {"name": 3}}, "params")
    message = str(caught.value)
    assert message.startswith("params: 3 errors | campaign.version: the key is missing | ")
    assert "line" not in message


def test_a_relative_folder_needs_a_file_to_be_relative_to(tmp_path: Path) -> None:
    relative = ("/campaigns", "out/campaigns")
    campaign = read_campaign(write_campaign(tmp_path, relative))
    assert campaign.folder_uri == f"{tmp_path}/out/campaigns/1.0_small_boxes"
    data = {**campaign.config.to_data(), "outputs": {"base_path": "out"}}
    with pytest.raises(ConfigError, match=r"outputs\.base_path: is relative, and no file says"):
        parse_campaign(data)


def test_the_problems_are_plain_data_for_json(tmp_path: Path) -> None:
    path = write_campaign(tmp_path, ("batch_size: 4", "order: depth"))
    with pytest.raises(CampaignFileError) as caught:
        read_campaign(path)
    assert [problem.to_dict() for problem in caught.value.problems] == [
        {
            "key": "execution.order",
            "line": 11,
            "message": "should be 'depth_first' or 'breadth_first'",
            "got": "'depth'",
            "allowed": None,
        }
    ]
    assert "depth" not in GOOD
