"""A stick that every reader would refuse after it was written is refused before: nothing on it changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bundles.oci.layout import blob_path
from bundles.stick.media import OpenMedia, by_newest, open_media
from bundles.stick.writing.writer import WriteChoice, write_sticks
from signing.digest import Digest
from signing.errors import NotTrustedError
from signing.floors import Floors
from tests.toy import NOW, build_toy

Built = tuple[bytes, tuple[Path, Path]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The root, and two versions of a bundle."""
    folder = tmp_path_factory.mktemp("workspace")
    _, first = build_toy(folder)
    workspace, second = build_toy(folder, "1.1.0", note="another note")
    return workspace.root_file.read_bytes(), (first, second)


def opened(built: Built, path: Path) -> OpenMedia:
    return open_media([path], by_newest(built[0], Floors(), NOW))


@pytest.mark.parametrize(
    "name", ["blobs/notes.txt", "blobs/sha256/notes.txt", "metadata/a.json", "targets/a", "BOOT/a"]
)
@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 1), (1, 0)])
def test_what_a_reader_would_refuse_is_refused_before_a_byte_is_written_or_removed(
    built: Built, tmp_path: Path, name: str, before: int, after: int
) -> None:
    stick, asked = tmp_path / "stick", list[Path]()
    write_sticks(opened(built, built[1][before]), [stick])
    (stick / name).write_bytes(b"mine")
    (stick / "README.txt").write_bytes(b"to be written anew")
    there = {path: path.read_bytes() for path in stick.rglob("*") if path.is_file()}

    def may_remove(path: Path, _names: Sequence[str], _size: int) -> bool:
        asked.append(path)
        return True

    for choice in (WriteChoice(may_remove=may_remove), *([WriteChoice()] if before == after else [])):
        with pytest.raises(NotTrustedError) as caught:
            write_sticks(opened(built, built[1][after]), [stick], choice)
        assert (caught.value.code, caught.value.subject) == ("layout.unlisted", name)
        assert {path: path.read_bytes() for path in stick.rglob("*") if path.is_file()} == there
    assert asked == []


def test_blob_of_no_bundle_is_refused_before_a_byte_is_written_unless_it_may_be_removed(
    built: Built, tmp_path: Path
) -> None:
    stick = tmp_path / "stick"
    write_sticks(opened(built, built[1][0]), [stick])
    blob = stick / blob_path(Digest("ab" * 32))
    blob.write_bytes(b"of a bundle that is gone")
    (stick / "STICK.json").unlink()
    with pytest.raises(NotTrustedError) as caught:
        write_sticks(opened(built, built[1][0]), [stick])
    assert (caught.value.code, (stick / "STICK.json").exists()) == ("layout.unlisted", False)
    write_sticks(opened(built, built[1][0]), [stick], WriteChoice(may_remove=lambda *_: True))
    assert not blob.exists()
