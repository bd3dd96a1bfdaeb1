"""Files come out whole from a set of which one stick is lost, also where the sticks are read one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bundles.bundle import Bundle
from bundles.chunks.copy import copy_files
from bundles.chunks.work_file import CopyJob
from bundles.oci.layout import PARITY, STICK_FILE, Layout, blob_path
from bundles.parity import source, streams
from bundles.parity.streams import plan_parity, write_parity
from bundles.stick.card import StickBundle, StickCard, name_set, runs_of, write_card
from bundles.stick.media_set import MediaSet
from signing.errors import DamagedError, NextStickError
from tests.bundles.plain_bundle import plain_bundle
from tests.sim.noise import noise
from tests.sim.sets.stick_sets import SetFiles, make_files

UNIT = 1000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (streams, source):
        monkeypatch.setattr(module, "PIECE_BYTES", 1536)


@pytest.fixture
def carried(tmp_path: Path) -> tuple[SetFiles, Bundle, list[Layout]]:
    """Two files over three sticks, chunk by chunk in turn, and a fourth stick with the parity."""
    files = make_files([b"".join(noise(seed, size)) for seed, size in ((1, 12 * UNIT + 7), (2, 5 * UNIT))], UNIT)
    bundle = plain_bundle([])
    bundle = replace(bundle, contents=replace(bundle.contents, files=files.files))
    shares = [files.chunks[number::3] for number in range(3)]
    layouts = [Layout(tmp_path / f"stick-{number}") for number in range(1, 5)]
    runs = tuple((runs_of(bundle, {chunk.sha256 for chunk in share}),) for share in shares)
    named = StickBundle("plain", "1.0.0", bundle.manifest)
    for number, layout in enumerate(layouts, 1):
        card = StickCard(name_set([bundle.manifest]), number, 4, (named,), runs)
        for chunk in shares[number - 1] if number < 4 else ():
            layout.medium.write(blob_path(chunk.sha256), files.data[chunk.sha256])
        layout.medium.write(STICK_FILE, write_card(card))
    source = MediaSet(layouts[:3], [bundle])
    write_parity(plan_parity(shares), source.open_chunk, layouts[3])
    return files, bundle, layouts


def copy(files: SetFiles, bundle: Bundle, layouts: Sequence[Layout], folder: Path) -> None:
    jobs = [CopyJob(file, folder / Path(file.path).name) for file in files.files]
    copy_files(jobs, MediaSet(layouts, [bundle]))


def assert_whole(files: SetFiles, folder: Path) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        Path(file.path).name: files.bytes_of(file) for file in files.files
    }


@pytest.mark.parametrize("lost", range(3))
def test_a_set_without_one_stick_is_whole_with_its_parity(
    carried: tuple[SetFiles, Bundle, list[Layout]], tmp_path: Path, lost: int
) -> None:
    files, bundle, layouts = carried
    here = [layout for number, layout in enumerate(layouts) if number != lost]
    assert MediaSet(here, [bundle]).missing(bundle) == tuple(bundle.blobs[:2])  # its made-up documents
    copy(files, bundle, here, tmp_path / "host")
    assert_whole(files, tmp_path / "host")


@pytest.mark.parametrize("lost", range(3))
def test_sticks_one_after_the_other_and_then_the_parity_make_the_files_whole(
    carried: tuple[SetFiles, Bundle, list[Layout]], tmp_path: Path, lost: int
) -> None:
    files, bundle, layouts = carried
    for number in {0, 1, 2} - {lost}:
        with pytest.raises(NextStickError):
            copy(files, bundle, layouts[number : number + 1], tmp_path / "host")
    copy(files, bundle, layouts[3:], tmp_path / "host")
    assert_whole(files, tmp_path / "host")


def test_two_lost_sticks_stay_missing(carried: tuple[SetFiles, Bundle, list[Layout]], tmp_path: Path) -> None:
    files, bundle, layouts = carried
    with pytest.raises(NextStickError) as refused:
        copy(files, bundle, [layouts[0], layouts[3]], tmp_path / "host")
    assert refused.value.exit_code == 5


def test_a_forged_parity_changes_no_byte_of_a_file(
    carried: tuple[SetFiles, Bundle, list[Layout]], tmp_path: Path
) -> None:
    files, bundle, layouts = carried
    for piece in (layouts[3].path / "parity").glob("*.xor"):
        piece.write_bytes(bytes(piece.stat().st_size))
    with pytest.raises((NextStickError, DamagedError)):
        copy(files, bundle, layouts[1:], tmp_path / "host")
    assert not [path for path in (tmp_path / "host").iterdir() if path.suffix != ".partial"]
    # The lost stick is found, and the run goes on.
    copy(files, bundle, layouts, tmp_path / "host")
    assert_whole(files, tmp_path / "host")


@pytest.mark.parametrize("damaged", range(3))
def test_damaged_blob_is_rebuilt_from_the_parity_and_named(
    carried: tuple[SetFiles, Bundle, list[Layout]], tmp_path: Path, damaged: int
) -> None:
    files, bundle, layouts = carried
    chunk = files.chunks[damaged::3][1]
    (layouts[damaged].path / blob_path(chunk.sha256)).write_bytes(b"E" * chunk.size)
    media = MediaSet(layouts, [bundle])
    copy_files([CopyJob(file, tmp_path / "host" / Path(file.path).name) for file in files.files], media)
    assert_whole(files, tmp_path / "host")
    assert media.notices == (
        f"{layouts[damaged].path} is damaged: {blob_path(chunk.sha256)} came from the parity; write that medium again",
    )


def test_damaged_blob_beside_a_wrong_parity_is_3_with_the_medium_that_has_it(
    carried: tuple[SetFiles, Bundle, list[Layout]], tmp_path: Path
) -> None:
    files, bundle, layouts = carried
    chunk = files.chunks[0]
    (layouts[0].path / blob_path(chunk.sha256)).write_bytes(b"E" * chunk.size)
    for piece in (layouts[3].path / PARITY).iterdir():
        if piece.name != "PARITY.json":
            piece.write_bytes(b"E" * piece.stat().st_size)
    with pytest.raises(DamagedError) as caught:
        copy(files, bundle, layouts, tmp_path / "host")
    assert caught.value.subject.startswith(f"{layouts[0].path}: ")
