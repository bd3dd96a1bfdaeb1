"""Writing to places that are no stick of the bundle: the bundle itself, a person's files, what lies below a mount."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from appliance.builder.chunking.chunker import Source
from bundles.medium import Medium
from bundles.stick.media import OpenMedia, by_newest, open_media
from bundles.stick.writing import writer
from bundles.stick.writing.read_back import read_back
from bundles.stick.writing.writer import WriteChoice, write_sticks
from signing.errors import NextStickError, UsageError
from signing.floors import Floors
from tests.toy import NOW, build_toy


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, bundle = build_toy(tmp_path_factory.mktemp("workspace"))
    (bundle / "README.txt").write_text("a bundle")
    return bundle


def opened(bundle: Path) -> OpenMedia:
    root = (bundle.parents[1] / "trust" / "root.json").read_bytes()
    return open_media([bundle], by_newest(root, Floors(), NOW))


def test_a_stick_that_is_named_twice_is_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_sticks(opened(built), [tmp_path / "a", tmp_path / "a" / ".." / "a"])
    assert caught.value.code == "stick.twice"
    assert not os.listdir(tmp_path / "a")


@pytest.mark.parametrize("inside", ["", "blobs/stick"])
def test_the_bundle_itself_is_no_stick(built: Path, tmp_path: Path, inside: str) -> None:
    with pytest.raises(UsageError) as caught:
        write_sticks(opened(built), [built / inside])
    assert caught.value.code == "stick.is-source"
    assert not (built / "STICK.json").exists()
    assert not (built / "blobs/stick").exists()


@pytest.mark.parametrize(
    "own", ["README.txt", "index.json", "STICK.json", "metadata/5.root.json", "BOOT/letter.txt", "targets/letter.txt"]
)
@pytest.mark.parametrize("replaces", [False, True])
def test_a_persons_file_is_never_overwritten_or_removed(built: Path, tmp_path: Path, own: str, replaces: bool) -> None:
    file = tmp_path / own
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"mine")
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    choice = WriteChoice(may_remove=lambda *_: True) if replaces else WriteChoice()
    with pytest.raises(UsageError) as caught:
        write_sticks(opened(built), [tmp_path], choice)
    assert caught.value.code in ("stick.other-files", "stick.other-bundle")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted([file, tmp_path / "photo.jpg"])
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize("moment", ["after the blobs", "while it is read back"])
def test_a_stick_that_is_unmounted_is_said_to_be_pulled_out_and_its_machine_keeps_nothing(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A desktop takes the mount away when a stick is pulled out; what then lies at its path is the machine's own."""
    stick, aside = tmp_path / "stick", tmp_path / "aside"
    stick.mkdir()
    real, pulled = os.stat, False

    def stat(path: Any, **options: Any) -> os.stat_result:
        found = real(path, **options)
        if pulled and path == stick:
            fields = list(found)
            fields[2] += 1
            return os.stat_result(fields)
        return found

    def pull(work: Any) -> Any:
        def then(*arguments: Any) -> Any:
            nonlocal pulled
            if not pulled:
                stick.rename(aside)
                stick.mkdir()
                pulled = True
            return work(*arguments)

        return then

    monkeypatch.setattr(os, "stat", stat)
    if moment == "after the blobs":
        monkeypatch.setattr(writer._Work, "_small_files", pull(writer._Work._small_files))
    else:
        monkeypatch.setattr("bundles.stick.writing.filling.read_back", pull(read_back))
    with pytest.raises(NextStickError) as caught:
        write_sticks(opened(built), [stick])
    assert caught.value.code == "stick.unplugged"
    assert not os.listdir(stick)


def test_sticks_that_are_written_are_told_where_the_stick_of_the_parity_is_too_small(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, parity = tmp_path / "a", tmp_path / "p"
    monkeypatch.setattr(Medium, "free_bytes", lambda medium: (0 if medium.root == parity else 1 << 40, 1))
    written = write_sticks(opened(built), [first], WriteChoice(parity_stick=lambda _: parity))
    assert [one.path for one in written.sticks] == [first]
    assert written.parity_error is not None
    assert written.parity_error.code == "stick.too-small"


def test_before_a_further_stick_is_asked_for_the_last_one_is_said_to_be_safe_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = [Source(f"files/{at}.txt", "config", data=f"{at} ".encode() * 80_000) for at in range(8)]
    _, bundle = build_toy(tmp_path / "workspace", extra=large)
    rooms = {"a": 1_900_000}
    monkeypatch.setattr(Medium, "free_bytes", lambda medium: (rooms.get(medium.root.name, 1 << 40), 1))
    said = list[str]()

    def next_sticks(_left: int) -> list[Path]:
        assert said[-1].startswith(f"{tmp_path / 'a'}: this folder is no mount point")
        return [tmp_path / "b"]

    choice = WriteChoice(next_sticks=next_sticks, announce=said.append)
    assert len(write_sticks(opened(bundle), [tmp_path / "a"], choice).sticks) == 2
