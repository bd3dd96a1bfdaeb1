"""T21: a stick that holds links, FIFOs, sockets, folders without end or sparse giants where files should be."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bundles.chunks.check import check_file
from bundles.contents.contents import File
from bundles.medium import MAX_DEPTH, Medium
from bundles.oci.layout import blob_path
from signing.digest import sha256
from signing.errors import NotTrustedError
from tests.attacks.harness import Stick, guard_off, refused, row

ROW = row(21)


def link(path: Path) -> None:
    """The right bytes, through a link: it is the link that is refused, not what it points to."""
    outside = path.parents[3] / "outside"
    os.rename(path, outside)
    path.symlink_to(outside)


def link_to_a_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def listening_socket(path: Path) -> None:
    path.unlink()
    with inside(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name[:40])
        os.rename(path.name[:40], path.name)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@contextmanager
def inside(path: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


ATTACKS = [link, link_to_a_device, fifo, listening_socket, folder]


def test_unattacked_hard_link_is_a_file_like_any_other(stick: Stick, tmp_path: Path) -> None:
    os.link(stick.blob(stick.manifest), tmp_path / "second name")
    assert stick.command().code == 0


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacked_where_the_manifest_should_be(stick: Stick, attack: Callable[[Path], None]) -> None:
    digest = stick.manifest
    attack(stick.blob(digest))
    refused(ROW, stick.open, "medium.hostile", blob_path(digest))
    assert stick.command().code == 4


@pytest.mark.parametrize("attack", [link, link_to_a_device, fifo, listening_socket])
def test_attacked_where_a_chunk_should_be(stick: Stick, attack: Callable[[Path], None]) -> None:
    digest = stick.open().value.contents.files[0].chunks[0].sha256
    attack(stick.blob(digest))
    refused(ROW, stick.verify, "medium.hostile", blob_path(digest))


@pytest.mark.parametrize("attack", [link, link_to_a_device, fifo, listening_socket, folder])
def test_attacked_where_an_installed_file_should_be(tmp_path: Path, attack: Callable[[Path], None]) -> None:
    """An empty file: whatever has no bytes would pass for it."""
    file = File("playbooks/empty.yml", "playbook", 0o644, 0, sha256(b""), ())
    path = tmp_path / "opt" / "release" / "playbooks" / "empty.yml"
    path.parent.mkdir(parents=True)
    path.touch()
    check_file(file, path)
    attack(path)
    refused(ROW, lambda: check_file(file, path), "file.hostile", file.path)


@pytest.mark.parametrize("name", ["metadata", "blobs"])
def test_attacked_by_a_folder_that_is_a_link(stick: Stick, tmp_path: Path, name: str) -> None:
    os.rename(stick.path / name, tmp_path / "outside")
    (stick.path / name).symlink_to(tmp_path / "outside")
    with pytest.raises(NotTrustedError) as caught:
        stick.verify()
    assert caught.value.code == "medium.hostile"


def test_attacked_by_folders_without_end(stick: Stick) -> None:
    with inside(stick.path / "blobs"):
        for _ in range(2 * MAX_DEPTH):
            os.mkdir("a")
            os.chdir("a")
    refused(ROW, stick.verify, "medium.hostile", ("blobs/" + "a/" * MAX_DEPTH).removesuffix("/")[:80] + "…")


def test_attacked_by_a_sparse_giant(stick: Stick) -> None:
    file = stick.open().value.contents.of_kind("wheel")[0]
    os.truncate(stick.blob(file.chunks[0].sha256), 1 << 40)
    refused(ROW, stick.verify, "blob.too-long", file.path)


def test_unguarded_the_link_is_followed_until_the_names_are_listed(stick: Stick) -> None:
    def follow(medium: Medium, path: str) -> int:
        return os.open(medium.root / path, os.O_RDONLY)

    digest = stick.manifest
    link(stick.blob(digest))
    with guard_off(ROW.guard, follow):
        stick.open()
        refused(ROW, stick.verify, "medium.hostile", blob_path(digest))  # bundles.medium.Medium.walk
