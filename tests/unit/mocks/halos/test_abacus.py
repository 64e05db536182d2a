"""A real CompaSO catalogue: read as its raw arrays say, by slabs too, and refused when damaged."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from muster.mocks.coordinates import Coordinate
from muster.mocks.errors import CatalogNotFound, ValidationError
from muster.mocks.halos.abacus import ABACUS_BOX, ABACUS_SUMMIT_SMALL
from tests.unit.mocks.halos.conftest import MINI_MPCH, PARTICLE_MSUNH, RawHalos

if TYPE_CHECKING:
    from pathlib import Path

AT = Coordinate(0, 0.0)


def inputs_of(root: Path, **options: Any) -> dict[str, Any]:
    parsed = ABACUS_BOX.parse_options({"root": str(root), "cleaned": False, **options})
    state = ABACUS_BOX.find_inputs(parsed, [AT])[AT]
    assert state.state == "present", state.reason
    return state.inputs


def superslab(root: Path, number: int) -> Path:
    return root / f"halos/z0.000/halo_info/halo_info_{number:03d}.asdf"


def without_checksums(root: Path) -> Path:
    (root / "halos/z0.000/halo_info/checksums.crc32").unlink()
    return root


def write_asdf(path: Path, header: dict[str, Any], columns: dict[str, Any]) -> None:
    import asdf

    path.parent.mkdir(parents=True, exist_ok=True)
    asdf.AsdfFile({"header": header, "data": columns}).write_to(path)


def test_the_box_is_what_its_raw_arrays_say(mini: Path, raw: RawHalos) -> None:
    halos = ABACUS_BOX.read(inputs_of(mini), min_mass_msunh=0)
    assert [len(part["id"]) for part in raw.superslabs] == [127, 154, 100]
    order = np.argsort(raw.column("id"))
    assert np.array_equal(halos.ids, raw.column("id")[order].astype(np.int64))
    shifted = raw.column("x_com")[order] * np.float32(MINI_MPCH) + np.float32(MINI_MPCH / 2)
    assert np.array_equal(halos.positions, shifted % np.float32(MINI_MPCH))
    assert np.array_equal(halos.masses, raw.column("N")[order] * PARTICLE_MSUNH)
    scale_kms = raw.header["VelZSpace_to_kms"]
    np.testing.assert_allclose(halos.velocities, raw.column("v_com")[order] * scale_kms, rtol=1e-6)
    np.testing.assert_allclose(halos.radii, raw.column("r100_com")[order] * MINI_MPCH, rtol=1e-6)
    # Physics of the same: a halo's radius holds its mass at some 100 to 1000 times the mean.
    mean = halos.masses / (4 / 3 * np.pi * halos.radii.astype(float) ** 3) / 2.775e11 / 0.315192
    assert 100 < np.median(mean) < 1000
    assert halos.velocities.std() == pytest.approx(250, rel=0.5)
    types = [a.dtype.str for a in (halos.positions, halos.masses, halos.ids, halos.velocities)]
    assert types == ["<f4", "<f8", "<i8", "<f4"]


def test_the_metadata_are_those_of_the_header(mini: Path) -> None:
    said = ABACUS_BOX.read(inputs_of(mini, phase="ph042"), min_mass_msunh=1e12).metadata
    assert (said.simulation, said.box_size_mpch, said.redshift) == ("Mini_N64_L32", 32.0, 0.0)
    assert (said.phase, said.realization, said.cleaned) == ("ph042", 0, False)
    assert said.particle_mass_msunh == PARTICLE_MSUNH
    assert (said.cosmology.h, said.cosmology.omega_m) == (0.6736, 0.315192)
    assert said.min_mass_msunh == 1e12
    assert said.source["superslabs"] == [0, 1, 2]


def test_haloes_at_the_mass_cut_stay_and_none_may_be_left(mini: Path, raw: RawHalos) -> None:
    cut = 100 * PARTICLE_MSUNH
    halos = ABACUS_BOX.read(inputs_of(mini), min_mass_msunh=cut)
    assert len(halos) == np.count_nonzero(raw.column("N") >= 100)
    assert halos.masses.min() == cut
    empty = ABACUS_BOX.read(inputs_of(mini), min_mass_msunh=1e17)
    assert (len(empty), empty.positions.shape, empty.metadata.box_size_mpch) == (0, (0, 3), 32.0)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_slabs_hold_the_box_none_twice(mini: Path, axis: Any) -> None:
    inputs = inputs_of(mini)
    whole = ABACUS_BOX.read(inputs, min_mass_msunh=0)
    for slabs in (1, 3, 7) if axis == "y" else (4,):
        parts = [
            ABACUS_BOX.read(inputs, min_mass_msunh=0, slab=(s, slabs), slab_axis=axis)
            for s in range(slabs)
        ]
        order = np.argsort(np.concatenate([part.ids for part in parts]))
        for name in ("ids", "positions", "masses", "velocities", "radii"):
            together = np.concatenate([getattr(part, name) for part in parts])[order]
            assert np.array_equal(together, getattr(whole, name)), (slabs, name)
        assert [part.metadata.slab for part in parts] == [(s, slabs) for s in range(slabs)]


def test_the_test_mode_takes_the_haloes_of_the_smallest_x(mini: Path) -> None:
    inputs = inputs_of(mini)
    whole = ABACUS_BOX.read(inputs, min_mass_msunh=0)
    few = ABACUS_BOX.read(inputs, min_mass_msunh=0, n_halos=20)
    smallest = np.sort(whole.ids[np.argsort(whole.positions[:, 0])[:20]])
    assert np.array_equal(few.ids, smallest)
    parts = [
        ABACUS_BOX.read(inputs, min_mass_msunh=0, n_halos=20, slab=(s, 3), slab_axis="x")
        for s in range(3)
    ]
    assert np.array_equal(np.sort(np.concatenate([part.ids for part in parts])), smallest)


@pytest.fixture
def in_12_superslabs(raw: RawHalos, tmp_path: Path) -> Path:
    """The box cut into 12 files, each with what lies up to 0.4 of a width beyond its end."""
    x = raw.column("x_com")[:, 0]
    number = np.floor((x + 0.5) * 12 - 0.2 * (raw.column("id") % 3)).astype(int) % 12
    for file in range(12):
        rows = np.flatnonzero(number == file)
        columns = {name: raw.column(name)[rows] for name in raw.superslabs[0]}
        write_asdf(superslab(tmp_path, file), raw.header, columns)
    return tmp_path


def test_a_slab_in_x_reads_its_superslabs_and_their_neighbours_alone(
    mini: Path, in_12_superslabs: Path
) -> None:
    whole = ABACUS_BOX.read(inputs_of(mini), min_mass_msunh=0)
    inputs = inputs_of(in_12_superslabs)
    for slab, unread in (((0, 6), range(3, 11)), ((5, 6), range(1, 9))):
        hidden = [superslab(in_12_superslabs, number) for number in unread]
        for path in hidden:
            path.rename(path.with_suffix(".away"))
        part = ABACUS_BOX.read(inputs, min_mass_msunh=0, slab=slab, slab_axis="x")
        low, high = slab[0] * MINI_MPCH / 6, (slab[0] + 1) * MINI_MPCH / 6
        inside = (whole.positions[:, 0] >= low) & (whole.positions[:, 0] < high)
        assert np.array_equal(part.ids, whole.ids[inside])
        assert np.array_equal(part.positions, whole.positions[inside])
        with pytest.raises(CatalogNotFound):
            ABACUS_BOX.read(inputs, min_mass_msunh=0, slab=slab, slab_axis="y")
        for path in hidden:
            path.with_suffix(".away").rename(path)


def test_the_test_mode_is_of_the_whole_box_in_a_slab_in_x_too(
    mini: Path, in_12_superslabs: Path
) -> None:
    whole = ABACUS_BOX.read(inputs_of(mini), min_mass_msunh=0)
    smallest = np.argsort(whole.positions[:, 0])[:100]
    inputs = inputs_of(in_12_superslabs)
    for slab in (1, 5):
        part = ABACUS_BOX.read(inputs, min_mass_msunh=0, slab=(slab, 6), slab_axis="x", n_halos=100)
        inside = np.floor(whole.positions[smallest, 0] * 6 / MINI_MPCH) == slab
        assert np.array_equal(part.ids, np.sort(whole.ids[smallest[inside]]))
    assert not inside.any()


def test_haloes_far_from_their_superslab_are_refused_by_slabs_in_x(
    in_12_superslabs: Path,
) -> None:
    first, fourth = superslab(in_12_superslabs, 0), superslab(in_12_superslabs, 3)
    kept = first.read_bytes()
    first.write_bytes(fourth.read_bytes())
    fourth.write_bytes(kept)
    inputs = inputs_of(in_12_superslabs)
    with pytest.raises(ValidationError, match=r"far from its part.*halo_info_000.*in y"):
        ABACUS_BOX.read(inputs, min_mass_msunh=0, slab=(0, 6), slab_axis="x")
    assert len(ABACUS_BOX.read(inputs, min_mass_msunh=0)) == 381


def test_a_halo_at_the_upper_edge_is_at_0(raw: RawHalos, tmp_path: Path) -> None:
    columns = {name: values[:4].copy() for name, values in raw.superslabs[0].items()}
    # The third is 31.99999905 Mpc/h, between two float32 of which the upper one is 32.
    columns["x_com"][:, 0] = [-0.5, 0.5, np.nextafter(np.float32(0.5), np.float32(0)), 0.4999]
    write_asdf(superslab(tmp_path, 0), raw.header, columns)
    x = ABACUS_BOX.read(inputs_of(tmp_path), min_mass_msunh=0).positions[:, 0]
    assert x.tolist()[:3] == [0.0, 0.0, 0.0]
    assert x[3] == pytest.approx(31.9968, abs=1e-5)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_refused_by_its_name(copy_of_mini: Path, share: float) -> None:
    inputs = inputs_of(without_checksums(copy_of_mini))
    path = superslab(copy_of_mini, 1)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValidationError, match=r"truncated or damaged.*halo_info_001"):
        ABACUS_BOX.read(inputs, min_mass_msunh=0)


def test_a_size_other_than_the_listed_one_is_refused(copy_of_mini: Path) -> None:
    inputs = inputs_of(copy_of_mini)
    with superslab(copy_of_mini, 2).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ValidationError, match=r"checksums\.crc32.*41959 bytes.*41958"):
        ABACUS_BOX.read(inputs, min_mass_msunh=0)


def test_no_damage_gets_through_or_out_as_another_error(copy_of_mini: Path) -> None:
    """Bytes changed at random: refused, or in what is not read."""
    truth = ABACUS_BOX.read(inputs_of(copy_of_mini), min_mass_msunh=0)
    inputs = inputs_of(without_checksums(copy_of_mini))
    path = superslab(copy_of_mini, 1)
    content = path.read_bytes()
    draw = random.Random(20261130)
    refused = 0
    for trial in range(20):
        changed = bytearray(content)
        # The tree before byte 12704, and the blocks.
        for _ in range(3):
            changed[draw.randrange(12704) if trial % 2 else draw.randrange(len(changed))] ^= 0x15
        path.write_bytes(changed)
        try:
            halos = ABACUS_BOX.read(inputs, min_mass_msunh=0)
        except ValidationError as error:
            assert "halo_info_001" in str(error)  # noqa: PT017
            refused += 1
        else:
            assert np.array_equal(halos.positions, truth.positions)
            assert np.array_equal(halos.masses, truth.masses)
            assert np.array_equal(halos.velocities, truth.velocities)
    assert refused > 6


def test_a_column_that_was_changed_in_place_has_the_wrong_checksum(
    raw: RawHalos, tmp_path: Path
) -> None:
    path = superslab(tmp_path, 0)
    write_asdf(path, raw.header, dict(raw.superslabs[0]))
    assert len(ABACUS_BOX.read(inputs_of(tmp_path), min_mass_msunh=0)) == 127
    content = bytearray(path.read_bytes())
    at = content.find(raw.superslabs[0]["v_com"].tobytes())
    content[at + 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValidationError, match=r"checksum is wrong.*v_com"):
        ABACUS_BOX.read(inputs_of(tmp_path), min_mass_msunh=0)


def test_checksums_of_what_is_stored_are_taken_too(raw: RawHalos, tmp_path: Path) -> None:
    """As newer versions of asdf write them, of compressed blocks."""
    import hashlib

    import asdf

    path = superslab(tmp_path, 0)
    path.parent.mkdir(parents=True)
    file = asdf.AsdfFile({"header": raw.header, "data": dict(raw.superslabs[0])})
    file.write_to(path, all_array_compression="blsc")
    from muster.mocks.halos.asdf_blocks import check_blocks

    content = bytearray(path.read_bytes())
    for block in check_blocks(path):
        stored = content[block.begin : block.begin + block.used]
        content[block.begin - 16 : block.begin] = hashlib.md5(stored).digest()
    path.write_bytes(content)
    assert len(ABACUS_BOX.read(inputs_of(tmp_path), min_mass_msunh=0)) == 127
    content[check_blocks(path)[2].begin + 40] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValidationError):
        ABACUS_BOX.read(inputs_of(tmp_path), min_mass_msunh=0)


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (4 + 4, r"Blosc chunks hold \d+ of \d+ bytes"),  # its decompressed size, little-endian
        (4 + 12, "Blosc chunk states a wrong length"),  # its compressed size
        (3, "Blosc chunk states a wrong length"),  # the length before it, big-endian
    ],
)
def test_a_chunk_that_would_write_beyond_its_array_is_refused_unread(
    copy_of_mini: Path, at: int, words: str
) -> None:
    from muster.mocks.halos.asdf_blocks import check_blocks

    path = superslab(copy_of_mini, 1)
    content = bytearray(path.read_bytes())
    content[check_blocks(path)[20].begin + at] += 8
    path.write_bytes(content)
    with pytest.raises(ValidationError, match=words):
        check_blocks(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an ASDF file"),
        (b"SIMPLE  =   T" + bytes(3000), "not an ASDF file"),
        (b"#ASDF 1.0.0\n%YAML 1.1\n---\n{}\n...\n", "no binary block"),
    ],
)
def test_a_file_of_another_kind_is_refused(copy_of_mini: Path, content: bytes, words: str) -> None:
    inputs = inputs_of(without_checksums(copy_of_mini))
    superslab(copy_of_mini, 0).write_bytes(content)
    with pytest.raises(ValidationError, match=words):
        ABACUS_BOX.read(inputs, min_mass_msunh=0)


def test_data_in_another_file_are_refused(copy_of_mini: Path) -> None:
    path = superslab(copy_of_mini, 0)
    inputs = inputs_of(without_checksums(copy_of_mini))
    content = path.read_bytes()
    assert b"source: 12\n" in content
    path.write_bytes(content.replace(b"source: 12\n", b"source: /x\n", 1))
    with pytest.raises(ValidationError, match="data from elsewhere"):
        ABACUS_BOX.read(inputs, min_mass_msunh=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Redshift": 1.1}, r"another Redshift.*got: 1\.1; expected: 0\.0"),
        ({"BoxSize": 500.0}, r"another BoxSize in Mpc/h.*got: 500\.0; expected: 32\.0"),
        ({"BoxSize": -32.0}, "BoxSize is no number that it can be"),
        ({"BoxSize": float("nan")}, "BoxSize is no number that it can be"),
        ({"ParticleMassHMsun": "heavy"}, "ParticleMassHMsun is no number.*heavy"),
        ({"H0": 70.0}, "another H0"),
        ({"Omega_M": 0.25}, "another Omega_M"),
    ],
)
def test_a_wrong_header_is_refused(
    raw: RawHalos, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    write_asdf(superslab(tmp_path, 0), {**raw.header, **change}, dict(raw.superslabs[0]))
    with pytest.raises(ValidationError, match=words):
        ABACUS_BOX.read(inputs_of(tmp_path, box_size_mpch=32), min_mass_msunh=0)


def test_superslabs_of_two_boxes_are_refused(raw: RawHalos, tmp_path: Path) -> None:
    for number, name in enumerate(("Mini_N64_L32", "Mini_other")):
        header = {**raw.header, "SimName": name}
        write_asdf(superslab(tmp_path, number), header, dict(raw.superslabs[number]))
    with pytest.raises(ValidationError, match=r"two boxes.*halo_info_001.*Mini_other"):
        ABACUS_BOX.read(inputs_of(tmp_path), min_mass_msunh=0)


def test_a_superslab_that_is_there_twice_is_refused(copy_of_mini: Path) -> None:
    inputs = inputs_of(without_checksums(copy_of_mini))
    shutil.copyfile(superslab(copy_of_mini, 0), superslab(copy_of_mini, 1))
    with pytest.raises(ValidationError, match=r"an id that is there twice; .*got: 127"):
        ABACUS_BOX.read(inputs, min_mass_msunh=0)


@pytest.mark.parametrize(
    ("column", "value"),
    [("x_com", 0.6), ("x_com", np.nan), ("v_com", np.inf), ("r100_com", -1.0), ("r100_com", 1.0)],
)
def test_values_that_no_halo_has_are_refused(
    raw: RawHalos, tmp_path: Path, column: str, value: float
) -> None:
    columns = {name: values.copy() for name, values in raw.superslabs[0].items()}
    columns[column].flat[7] = value
    write_asdf(superslab(tmp_path, 0), raw.header, columns)
    with pytest.raises(ValidationError, match=f"{column}: 1 values"):
        ABACUS_BOX.read(inputs_of(tmp_path), min_mass_msunh=0)


def test_a_column_of_another_length_is_refused(raw: RawHalos, tmp_path: Path) -> None:
    columns = {**raw.superslabs[0], "v_com": raw.superslabs[0]["v_com"][:-1]}
    write_asdf(superslab(tmp_path, 0), raw.header, columns)
    with pytest.raises(ValidationError, match=r"column v_com has not the shape.*\(126, 3\)"):
        ABACUS_BOX.read(inputs_of(tmp_path), min_mass_msunh=0)


def test_a_superslab_that_vanished_is_missing_input(copy_of_mini: Path) -> None:
    inputs = inputs_of(copy_of_mini)
    superslab(copy_of_mini, 2).unlink()
    with pytest.raises(CatalogNotFound, match="halo_info_002") as error:
        ABACUS_BOX.read(inputs, min_mass_msunh=0)
    assert isinstance(error.value, FileNotFoundError)


@pytest.fixture
def cleaned_mini(copy_of_mini: Path, raw: RawHalos) -> Path:
    """The box with a catalogue of cleaning: in each file the second halo is merged into the first.

    In the layout of AbacusSummit: ROOT/cleaning/SIMULATION/zN.NNN/cleaned_halo_info.
    """
    place = copy_of_mini.parent / "cleaning" / copy_of_mini.name / "z0.000/cleaned_halo_info"
    header = {**raw.header, "TimeSliceRedshiftsPrev": [0.1]}
    for number, columns in enumerate(raw.superslabs):
        total = columns["N"].copy()
        total[0] += total[1]
        total[1] = 0
        write_asdf(place / f"cleaned_halo_info_{number:03d}.asdf", header, {"N_total": total})
    return copy_of_mini


def test_the_cleaned_catalogue_has_the_masses_after_cleaning(
    cleaned_mini: Path, raw: RawHalos
) -> None:
    cleaned = ABACUS_BOX.read(inputs_of(cleaned_mini, cleaned=True), min_mass_msunh=0)
    uncleaned = ABACUS_BOX.read(inputs_of(cleaned_mini), min_mass_msunh=0)
    assert (cleaned.metadata.cleaned, uncleaned.metadata.cleaned) == (True, False)
    assert (len(cleaned), len(uncleaned)) == (378, 381)
    merged = [int(part["id"][1]) for part in raw.superslabs]
    assert set(uncleaned.ids) - set(cleaned.ids) == set(merged)
    total = raw.superslabs[1]["N"][:2].sum() * PARTICLE_MSUNH
    assert cleaned.masses[cleaned.ids == int(raw.superslabs[1]["id"][0])] == total
    fingerprints = {
        ABACUS_BOX.find_inputs(
            ABACUS_BOX.parse_options({"root": str(cleaned_mini), "cleaned": flag}), [AT]
        )[AT].fingerprint
        for flag in (True, False)
    }
    assert len(fingerprints) == 2


def test_a_lacking_file_of_cleaning_makes_the_input_incomplete(cleaned_mini: Path) -> None:
    place = cleaned_mini.parent / "cleaning" / cleaned_mini.name / "z0.000/cleaned_halo_info"
    (place / "cleaned_halo_info_001.asdf").unlink()
    options = ABACUS_BOX.parse_options({"root": str(cleaned_mini), "cleaned": True})
    state = ABACUS_BOX.find_inputs(options, [AT])[AT]
    assert state.state == "incomplete"
    assert "cleaned_halo_info_001.asdf of 3 superslabs not there" in str(state.reason)
    shutil.rmtree(cleaned_mini.parent / "cleaning")
    state = ABACUS_BOX.find_inputs(options, [AT])[AT]
    assert (state.state, "no folder cleaning" in str(state.reason)) == ("incomplete", True)


def test_one_box_has_one_realization_and_the_redshifts_of_its_folders(mini: Path) -> None:
    options = ABACUS_BOX.parse_options({"root": str(mini), "cleaned": False})
    other, later = Coordinate(1, 0.0), Coordinate(0, 1.1)
    found = ABACUS_BOX.find_inputs(options, [AT, other, later])
    assert [found[c].state for c in (AT, other, later)] == ["present", "missing", "missing"]
    assert "one box, realization 0" in str(found[other].reason)
    assert "holds no z1.100" in str(found[later].reason)


def test_the_last_superslab_is_missed_by_the_list_of_checksums(copy_of_mini: Path) -> None:
    superslab(copy_of_mini, 2).unlink()
    options = ABACUS_BOX.parse_options({"root": str(copy_of_mini), "cleaned": False})
    state = ABACUS_BOX.find_inputs(options, [AT])[AT]
    assert state.state == "incomplete"
    assert "halo_info_002.asdf of 3 superslabs not there" in str(state.reason)


class TestSuite:
    """AbacusSummit_small, as folders of empty files: the look reads none of them."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Phases 3000 to 3004 at two redshifts, of four superslabs, with gaps."""
        for phase in (3000, 3001, 3002, 3004):
            for redshift in ("z1.100", "z0.500"):
                if (phase, redshift) == (3004, "z0.500"):
                    continue
                name = f"AbacusSummit_small_c000_ph{phase}/halos/{redshift}/halo_info"
                (tmp_path / name).mkdir(parents=True)
                for number in range(4):
                    (tmp_path / name / f"halo_info_{number:03d}.asdf").touch()
        base = tmp_path / "AbacusSummit_small_c000_ph3001/halos"
        (base / "z1.100/halo_info/halo_info_001.asdf").unlink()
        (base / "z0.500/halo_info/halo_info_003.asdf").unlink()
        for path in (tmp_path / "AbacusSummit_small_c000_ph3002/halos/z0.500/halo_info").iterdir():
            path.unlink()
        return tmp_path

    COORDINATES = [Coordinate(r, z) for r in range(5) for z in (1.1, 0.5)]

    def test_what_lacks_is_told_by_name(self, root: Path) -> None:
        options = ABACUS_SUMMIT_SMALL.parse_options({"root": str(root), "cleaned": False})
        found = ABACUS_SUMMIT_SMALL.find_inputs(options, self.COORDINATES)
        states = {c.name: found[c].state for c in self.COORDINATES}
        assert states == {
            "r0000_z1.100": "present", "r0000_z0.500": "present",
            "r0001_z1.100": "incomplete", "r0001_z0.500": "incomplete",
            "r0002_z1.100": "present", "r0002_z0.500": "missing",
            "r0003_z1.100": "missing", "r0003_z0.500": "missing",
            "r0004_z1.100": "present", "r0004_z0.500": "missing",
        }  # fmt: skip
        reasons = {c.name: str(found[c].reason) for c in self.COORDINATES}
        assert "halo_info_001.asdf of 4 superslabs" in reasons["r0001_z1.100"]
        assert "halo_info_003.asdf of 4 superslabs" in reasons["r0001_z0.500"]
        assert "holds no superslab" in reasons["r0002_z0.500"]
        assert "holds no AbacusSummit_small_c000_ph3003" in reasons["r0003_z1.100"]
        assert "holds no z0.500" in reasons["r0004_z0.500"]
        inputs = found[Coordinate(4, 1.1)].inputs
        assert (inputs["phase"], inputs["simulation"], inputs["superslabs"]) == (
            "ph3004", "AbacusSummit_small_c000_ph3004", 4,
        )  # fmt: skip

    def test_a_folder_that_is_closed_is_the_affair_of_its_catalogues(self, root: Path) -> None:
        closed = root / "AbacusSummit_small_c000_ph3003"
        closed.symlink_to(closed)  # too many levels of symbolic links, for root too
        options = ABACUS_SUMMIT_SMALL.parse_options({"root": str(root), "cleaned": False})
        found = ABACUS_SUMMIT_SMALL.find_inputs(options, self.COORDINATES)
        state = found[Coordinate(3, 1.1)]
        assert state.state == "missing"
        assert "ph3003/halos cannot be listed: Too many levels" in str(state.reason)
        assert found[Coordinate(4, 1.1)].state == "present"

    def test_each_folder_is_listed_once_and_no_file_is_asked_for(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import os

        options = ABACUS_SUMMIT_SMALL.parse_options({"root": str(root), "cleaned": False})
        listed: list[str] = []
        really = os.listdir

        def listing(folder: str) -> list[str]:
            listed.append(folder)
            return really(folder)

        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("a file was asked for")

        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", listing)
            for name in ("stat", "lstat", "open", "scandir"):
                patch.setattr(os, name, refuse)
            ABACUS_SUMMIT_SMALL.find_inputs(options, self.COORDINATES)
        assert len(listed) == len(set(listed)) == 1 + 4 + 7

    def test_the_fingerprint_is_of_the_box_and_not_of_its_place(
        self, root: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        elsewhere = tmp_path_factory.mktemp("moved") / "small"
        shutil.copytree(root, elsewhere)

        def look(folder: Path, **options: Any) -> dict[str, str]:
            parsed = ABACUS_SUMMIT_SMALL.parse_options(
                {"root": str(folder), "cleaned": False, **options}
            )
            found = ABACUS_SUMMIT_SMALL.find_inputs(parsed, self.COORDINATES)
            return {c.name: found[c].fingerprint for c in self.COORDINATES if found[c].fingerprint}

        first = look(root)
        assert first == look(elsewhere)
        assert len(set(first.values())) == len(first) == 4
        shifted = look(root, first_phase=3001)
        assert set(shifted) != set(first)

    def test_a_realization_is_a_phase_and_the_header_must_say_so(
        self, copy_of_mini: Path, tmp_path: Path
    ) -> None:
        root = tmp_path / "small"
        box = root / "AbacusSummit_small_c000_ph3007"
        shutil.copytree(copy_of_mini, box)
        options = ABACUS_SUMMIT_SMALL.parse_options({"root": str(root), "cleaned": False})
        at = Coordinate(7, 0.0)
        assert ABACUS_SUMMIT_SMALL.name_parts(options, at) == {
            "cosmology": "c000", "phase": "ph3007",
        }  # fmt: skip
        inputs = ABACUS_SUMMIT_SMALL.find_inputs(options, [at])[at].inputs
        with pytest.raises(ValidationError, match=r"SimName.*Mini_N64_L32.*c000_ph3007"):
            ABACUS_SUMMIT_SMALL.read(inputs, min_mass_msunh=0)
