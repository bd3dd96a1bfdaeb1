"""T16: a stick whose firmware answers the second read with other bytes than the first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.host.install.importer import import_files, import_layout
from appliance.host.layout.prefix import Prefix
from bundles.bundle import Bundle
from bundles.chunks.check import check_blobs
from bundles.chunks.chunk import Chunk
from bundles.chunks.transfer import Turn, Write
from bundles.contents.contents import File
from bundles.oci.layout import Layout, blob_path
from bundles.progress import ignore
from bundles.stick.media_set import MediaSet
from signing.digest import sha256
from signing.verified import Verified
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.sticks import SimStick, plugged
from tests.toy import NOW

ROW = row(16)


@pytest.fixture
def firmware(stick: Stick) -> Iterator[SimStick]:
    medium = SimStick(stick.path)
    with medium.plugged():
        yield medium


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    return prefix


def verified(stick: Stick) -> Verified[Bundle]:
    """The first read: everything is right."""
    found = stick.open()
    check_blobs(stick.layout, found.value)
    return found


def release_of(prefix: Prefix, bundle: Bundle) -> Path:
    return prefix.release_path(bundle.contents.version, bundle.manifest)


def copy_all(stick: Stick, prefix: Prefix, bundle: Bundle) -> Path:
    """The second read."""
    release = release_of(prefix, bundle)
    release.mkdir(exist_ok=True)
    import_files(prefix, stick.layout, release, bundle, ignore)
    return release


def playbook_lies(firmware: SimStick, bundle: Bundle) -> File:
    """From now on a playbook's blob reads as something else of the same length."""
    file = bundle.contents.of_kind("playbook")[0]
    firmware.give(blob_path(file.chunks[0].sha256), b"E" * file.size)
    return file


def test_unattacked_stick_that_answers_alike_is_copied(stick: Stick, firmware: SimStick, prefix: Prefix) -> None:
    bundle = verified(stick).value
    release = copy_all(stick, prefix, bundle)
    assert (release / "playbooks" / "playbook.txt").read_bytes() == b"playbook: a note\n"


def test_attacked_on_the_second_read_of_a_file(stick: Stick, firmware: SimStick, prefix: Prefix) -> None:
    bundle = verified(stick).value
    file = playbook_lies(firmware, bundle)
    refused(ROW, lambda: copy_all(stick, prefix, bundle), "contents.file-changed", file.path)
    assert not (release_of(prefix, bundle) / file.path).exists()


def test_attacked_on_the_second_read_of_the_contents(stick: Stick, firmware: SimStick, prefix: Prefix) -> None:
    found = verified(stick)
    path = blob_path(found.value.config.sha256)
    firmware.give(path, b"{}")
    release = release_of(prefix, found.value)
    release.mkdir()
    again = lambda: import_layout(stick.layout, release, found, stick.root, NOW)  # noqa: E731
    refused(ROW, again, "blob.differs", path)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["liar-first", "liar-second"])
def test_attacked_by_one_of_two_media_the_honest_one_is_read(
    stick: Stick, prefix: Prefix, tmp_path: Path, order: tuple[int, int]
) -> None:
    shutil.copytree(stick.path, tmp_path / "honest")
    media = (SimStick(stick.path), SimStick(tmp_path / "honest"))
    with plugged(*media):
        layouts = [Layout(media[at].root) for at in order]
        bundle = verified(stick).value
        for layout in layouts:
            check_blobs(layout, bundle)
        file = playbook_lies(media[0], bundle)
        release = release_of(prefix, bundle)
        release.mkdir()
        source = MediaSet(layouts)
        import_files(prefix, source, release, bundle, ignore)
    assert sha256((release / file.path).read_bytes()) == file.sha256
    # Where the liar was asked first, its bytes were refused, and it is named.
    assert [notice.startswith(f"{stick.path} is damaged: ") for notice in source.notices] == [True] * (order[0] == 0)


def test_unguarded_the_other_bytes_are_installed(stick: Stick, firmware: SimStick, prefix: Prefix) -> None:
    def trust(chunk: Chunk, origin: int, start: int, write: Write, _subject: str, _turn: Turn) -> None:
        write(memoryview(os.pread(origin, chunk.size, start)), 0)

    bundle = verified(stick).value
    file = playbook_lies(firmware, bundle)
    with guard_off(ROW.guard, trust):
        release = copy_all(stick, prefix, bundle)
    assert (release / file.path).read_bytes() == b"E" * file.size
