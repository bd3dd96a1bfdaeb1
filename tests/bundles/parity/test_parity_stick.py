"""The writer makes one stick more, and with it any one stick of the set may be lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.builder.chunking.chunker import Source
from bundles.bundle import open_bundles
from bundles.medium_check import check_medium
from bundles.oci.layout import Layout
from bundles.oci.litter import beside
from bundles.parity.streams import LIST_FILE, read_parity
from bundles.stick.card import read_card
from bundles.stick.check import check_set
from bundles.stick.media import OpenMedia, by_newest, open_media
from bundles.stick.media_check import check_media
from bundles.stick.writing.placement import Room
from bundles.stick.writing.stick_state import StickState
from bundles.stick.writing.writer import WriteChoice, WrittenSet, write_sticks
from signing.errors import ApplianceError, NextStickError
from signing.floors import Floors
from tests.sim.noise import noise
from tests.toy import NOW, build_toy


@dataclass(frozen=True)
class Made:
    """A bundle of some hundred kilobytes, and the root that it is verified against."""

    root: bytes
    path: Path

    @property
    def small_bytes(self) -> int:
        """What every stick holds beside chunks, with room for names and blocks."""
        blobs = self.path / "blobs/sha256"
        files = [path for path in self.path.rglob("*") if path.is_file()]
        documents = 64 << 10
        return sum(path.stat().st_size + 1024 for path in files if path.parent != blobs) + documents

    @property
    def source(self) -> OpenMedia:
        return open_media([self.path], by_newest(self.root, Floors(), NOW))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    extra = [Source(f"files/{seed}", "config", data=b"".join(noise(seed, 40_000 + seed))) for seed in range(11)]
    workspace, path = build_toy(tmp_path_factory.mktemp("workspace"), extra=extra)
    return Made(workspace.root_file.read_bytes(), path)


@pytest.fixture(autouse=True)
def small_sticks(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stick has room for two or three of the larger files; the one of the parity, too."""

    def room(state: StickState, *, replaces: bool) -> Room:
        return Room(made.small_bytes + 110_000, state.held, 512)

    monkeypatch.setattr(StickState, "room", room)


def write(made: Made, folder: Path, parity: bool = True) -> tuple[WrittenSet, list[Path]]:
    paths = [folder / f"stick-{number}" for number in range(1, 4)]
    extra = folder / "stick-parity"
    choice = WriteChoice(keep_mounted=True, parity_stick=(lambda _size: extra) if parity else None)
    return write_sticks(made.source, paths, choice), [*paths, extra]


def opened(made: Made, paths: Sequence[Path]) -> OpenMedia:
    return open_media(paths, by_newest(made.root, Floors(), NOW))


def check(made: Made, paths: Sequence[Path]) -> int:
    state = check_set(opened(made, paths))
    return state.error.exit_code if state.error else 0


def test_any_one_stick_of_a_written_set_may_be_lost(made: Made, tmp_path: Path) -> None:
    written, paths = write(made, tmp_path)
    assert (written.left, len(written.sticks)) == ((), 4)
    assert check(made, paths[:3]) == 0
    for lost in range(4):
        assert check(made, [path for path in paths if path != paths[lost]]) == 0
        checked = check_media(opened(made, [path for path in paths if path != paths[lost]]))
        assert (checked.rebuilt > 0) == (lost < 3)
    assert check(made, paths[:1] + paths[3:]) == 5
    with pytest.raises(NextStickError):
        check_media(opened(made, paths[:1] + paths[3:]))


@pytest.mark.parametrize("damage", [b"", None, b"other"])
def test_a_damaged_parity_ends_a_verification_with_an_error(made: Made, tmp_path: Path, damage: bytes | None) -> None:
    _, paths = write(made, tmp_path)
    piece = paths[3] / "parity/000001.xor"
    if damage is None:
        piece.unlink()
    else:
        piece.write_bytes(damage * (piece.stat().st_size // 5))
    with pytest.raises(ApplianceError) as refused:
        check_media(opened(made, paths[1:]))
    assert refused.value.exit_code in (3, 5)


def test_the_parity_is_no_longer_than_the_fullest_stick_and_lies_beside_what_is_signed(
    made: Made, tmp_path: Path
) -> None:
    written, paths = write(made, tmp_path)
    stick = Layout(paths[3])
    streams = read_parity(stick)
    assert streams is not None
    assert written.parity_bytes == streams.size_bytes == max(offsets[-1] for offsets in streams.offsets)
    check_medium(stick, open_bundles(paths[3], made.root, Floors(), NOW))
    assert beside(stick) == ()
    assert [card.number for card in map(read_card, map(Layout, paths)) if card and card.of == 4] == [1, 2, 3, 4]


def test_without_parity_no_stick_has_one(made: Made, tmp_path: Path) -> None:
    written, paths = write(made, tmp_path, parity=False)
    assert (written.parity_bytes, len(written.sticks)) == (0, 3)
    assert not any((path / LIST_FILE).exists() for path in paths)


def test_a_parity_that_does_not_fit_is_refused_with_its_size(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def room(state: StickState, *, replaces: bool) -> Room:
        more = 40_000 if "parity" in state.layout.path.name else 110_000
        return Room(made.small_bytes + more, state.held, 512)

    monkeypatch.setattr(StickState, "room", room)
    written, _ = write(made, tmp_path)
    assert (len(written.sticks), written.parity_bytes) == (3, 0)
    assert written.parity_error is not None
    assert written.parity_error.code == "stick.too-small"
    assert "bytes of parity" in written.parity_error.expected


def test_a_parity_is_written_again_as_it_was(made: Made, tmp_path: Path) -> None:
    _, paths = write(made, tmp_path)
    before = {path.name: path.stat().st_ino for path in (paths[3] / "parity").iterdir()}
    write(made, tmp_path)
    assert {path.name: path.stat().st_ino for path in (paths[3] / "parity").iterdir()} == before


def test_the_parity_of_an_earlier_set_is_removed_with_what_is_replaced(made: Made, tmp_path: Path) -> None:
    _, paths = write(made, tmp_path)
    asked = list[tuple[str, ...]]()

    def may_remove(_stick: Path, names: Sequence[str], _size: int) -> bool:
        asked.append(tuple(names))
        return True

    [stick] = write_sticks(made.source, [paths[3]], WriteChoice(may_remove=may_remove)).sticks
    assert stick.filling.removed == asked[0]
    assert all(name.startswith("parity/") for name in asked[0])
    assert not (paths[3] / "parity").exists()
