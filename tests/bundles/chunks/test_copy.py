"""One pass from blobs to a file, whatever happens in between."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bundles.chunks.chunk import Chunk
from bundles.chunks.copy import copy_file
from bundles.contents.contents import File
from signing.digest import sha256
from signing.errors import ApplianceError, DamagedError, NotTrustedError

PARTS = [os.urandom(5000), os.urandom(3000), os.urandom(1)]


class Blobs:
    """A stick of three blobs that counts how often each is opened and can stop or lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[str] = []
        self.before: Callable[[Chunk], None] = lambda _chunk: None
        for part in PARTS:
            (folder / sha256(part)).write_bytes(part)

    def open(self, chunk: Chunk) -> int:
        self.before(chunk)
        self.opened.append(chunk.sha256)
        return os.open(self.folder / chunk.sha256, os.O_RDONLY)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    (tmp_path / "stick").mkdir()
    return Blobs(tmp_path / "stick")


@pytest.fixture
def file() -> File:
    whole = b"".join(PARTS)
    chunks = tuple(Chunk(sha256(part), len(part)) for part in PARTS)
    return File("models/a.gguf", "model", 0o644, len(whole), sha256(whole), chunks)


def test_copy_has_the_signed_bytes_and_mode(blobs: Blobs, file: File, tmp_path: Path) -> None:
    target = tmp_path / "host" / "a.gguf"
    assert copy_file(file, blobs.open, target, mode=0o444)
    assert target.read_bytes() == b"".join(PARTS)
    assert target.stat().st_mode & 0o777 == 0o444
    assert [path.name for path in target.parent.iterdir()] == ["a.gguf"]
    assert len(blobs.opened) == len(PARTS)


def test_right_file_keeps_its_inode_and_its_times(blobs: Blobs, file: File, tmp_path: Path) -> None:
    target = tmp_path / "a.gguf"
    copy_file(file, blobs.open, target)
    before = target.stat()
    assert not copy_file(file, blobs.open, target)
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(blobs.opened) == len(PARTS)


def test_damaged_file_is_rebuilt_into_a_new_inode(blobs: Blobs, file: File, tmp_path: Path) -> None:
    target = tmp_path / "a.gguf"
    copy_file(file, blobs.open, target)
    held = target.open("rb")
    with target.open("r+b") as stream:
        stream.write(b"x")
    assert copy_file(file, blobs.open, target)
    assert target.read_bytes() == b"".join(PARTS)
    with held:
        assert os.fstat(held.fileno()).st_ino != target.stat().st_ino


def test_interrupted_copy_goes_on_at_the_next_chunk(blobs: Blobs, file: File, tmp_path: Path) -> None:
    def stop_at_third(chunk: Chunk) -> None:
        if chunk.sha256 == sha256(PARTS[2]):
            raise KeyboardInterrupt

    blobs.before = stop_at_third
    with pytest.raises(KeyboardInterrupt):
        copy_file(file, blobs.open, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()
    blobs.before, blobs.opened = lambda _chunk: None, []
    copy_file(file, blobs.open, tmp_path / "a.gguf")
    assert blobs.opened == [sha256(PARTS[2])]
    assert (tmp_path / "a.gguf").read_bytes() == b"".join(PARTS)


def as_somebody(folder: Path, work: Callable[[], object]) -> None:
    """Do something as an ordinary user who owns a folder: root may write to files that are read-only."""
    if os.geteuid() != 0:
        work()
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        try:
            work()
        except BaseException:  # noqa: BLE001 - the parent tells
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_leftover_that_was_finished_and_is_read_only_already_is_finished_by_an_ordinary_user(
    blobs: Blobs, file: File, tmp_path: Path
) -> None:
    leftover = tmp_path / "a.gguf.partial"
    leftover.write_bytes(b"".join(PARTS))
    leftover.chmod(0o444)
    blobs.folder = Path("stick")  # an ordinary user may not reach the folder of these tests by its whole path
    as_somebody(tmp_path, lambda: copy_file(file, blobs.open, Path("a.gguf"), mode=0o444))
    assert (tmp_path / "a.gguf").read_bytes() == b"".join(PARTS)
    assert blobs.opened == []


def test_leftover_beside_a_file_that_is_right_goes(blobs: Blobs, file: File, tmp_path: Path) -> None:
    copy_file(file, blobs.open, tmp_path / "a.gguf")
    (tmp_path / "a.gguf.partial").write_bytes(PARTS[0])
    assert not copy_file(file, blobs.open, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf.partial").exists()


def test_leftover_with_other_bytes_is_not_believed(blobs: Blobs, file: File, tmp_path: Path) -> None:
    (tmp_path / "a.gguf.partial").write_bytes(b"y" * 20_000)
    copy_file(file, blobs.open, tmp_path / "a.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == b"".join(PARTS)


def test_blob_that_differs_leaves_nothing_under_the_final_name(blobs: Blobs, file: File, tmp_path: Path) -> None:
    (blobs.folder / sha256(PARTS[1])).write_bytes(PARTS[1][:-1] + bytes([PARTS[1][-1] ^ 1]))
    with pytest.raises(DamagedError) as caught:
        copy_file(file, blobs.open, tmp_path / "a.gguf")
    assert caught.value.subject == file.path
    assert not (tmp_path / "a.gguf").exists()


@pytest.mark.parametrize(("change", "kind"), [(PARTS[1][:-1], DamagedError), (PARTS[1] + b"x", NotTrustedError)])
def test_shorter_blob_is_damaged_and_longer_one_not_trusted(
    blobs: Blobs, file: File, tmp_path: Path, change: bytes, kind: type[ApplianceError]
) -> None:
    (blobs.folder / sha256(PARTS[1])).write_bytes(change)
    with pytest.raises(kind):
        copy_file(file, blobs.open, tmp_path / "a.gguf")


def test_full_disk_says_how_much_is_free_and_the_next_run_goes_on(
    blobs: Blobs, file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def full_after_first(descriptor: int, data: bytes, at: int) -> int:
        if at >= len(PARTS[0]):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", full_after_first)
    with pytest.raises(ApplianceError) as caught:
        copy_file(file, blobs.open, tmp_path / "a.gguf")
    assert (caught.value.code, caught.value.exit_code) == ("disk.full", 1)
    assert "bytes free" in caught.value.found
    monkeypatch.undo()
    blobs.opened = []
    copy_file(file, blobs.open, tmp_path / "a.gguf")
    assert len(blobs.opened) == 2
