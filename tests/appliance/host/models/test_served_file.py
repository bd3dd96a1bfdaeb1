"""The bytes that are served are the signed ones: the check and the engine use one descriptor."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from pathlib import Path

import pytest

from appliance.host.models.served_file import E1, E2, MARGIN_BYTES, memory_available_bytes, open_verified
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from bundles.progress import Progress
from signing.digest import sha256
from signing.errors import DamagedError, NotTrustedError

SIZES = (1, 3 << 20, 5, 1 << 20)
PLENTY = 1 << 40


@pytest.fixture
def model(tmp_path: Path) -> tuple[File, Path]:
    data = random.Random(1).randbytes(sum(SIZES))
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    chunks, at = [], 0
    for size in SIZES:
        chunks.append(Chunk(sha256(data[at : at + size]), size))
        at += size
    return File("models/m/model.gguf", "model", 0o644, len(data), sha256(data), tuple(chunks)), path


def test_with_enough_memory_the_model_is_a_sealed_copy(model: tuple[File, Path]) -> None:
    file, path = model
    with open_verified(file, path, available_bytes=PLENTY) as served:
        assert served.level == E2
        path.write_bytes(b"changed on disk later")
        assert sha256(Path(served.path_for_child).read_bytes()) == file.sha256


def test_a_sealed_copy_can_be_changed_by_nobody(model: tuple[File, Path]) -> None:
    with open_verified(*model, available_bytes=PLENTY) as served:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(served.fd, b"x", 0)
        again = os.open(served.path_for_child, os.O_RDWR)
        try:
            for change in (
                lambda: os.pwrite(again, b"x", 0),
                lambda: os.ftruncate(again, 1),
                lambda: os.ftruncate(again, 1 << 30),
                lambda: fcntl.fcntl(again, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL),
            ):
                with pytest.raises(PermissionError):
                    change()
        finally:
            os.close(again)


def test_with_little_memory_the_descriptor_that_was_hashed_is_served(model: tuple[File, Path]) -> None:
    file, path = model
    with open_verified(file, path, available_bytes=file.size + MARGIN_BYTES - 1) as served:
        assert served.level == E1
        os.rename(path, path.with_name("gone"))
        path.write_bytes(b"another file under the same name")
        assert sha256(Path(served.path_for_child).read_bytes()) == file.sha256


@pytest.mark.parametrize("available", [0, PLENTY])
@pytest.mark.parametrize("place", [0, 1, (3 << 20), (3 << 20) + 3, sum(SIZES) - 1])
def test_one_flipped_bit_anywhere_is_refused_and_its_place_is_named(
    model: tuple[File, Path], available: int, place: int
) -> None:
    file, path = model
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(DamagedError) as caught:
        open_verified(file, path, available_bytes=available)
    assert (caught.value.code, caught.value.subject) == ("contents.file-changed", file.path)
    start = max(at for at in (0, 1, 1 + (3 << 20), 6 + (3 << 20)) if at <= place)
    assert caught.value.expected.startswith(f"bytes {start} to ")
    assert "appliance install" in caught.value.hint
    assert os.listdir("/proc/self/fd") == before


def test_all_changed_places_are_counted(model: tuple[File, Path]) -> None:
    file, path = model
    path.write_bytes(bytes(file.size))
    with pytest.raises(DamagedError, match="and 3 more places"):
        open_verified(file, path)


@pytest.mark.parametrize("change", [-1, 1])
def test_another_length_is_refused_before_a_byte_is_read(model: tuple[File, Path], change: int) -> None:
    file, path = model
    os.truncate(path, file.size + change)
    with pytest.raises(DamagedError) as caught:
        open_verified(file, path)
    assert (caught.value.expected, caught.value.found) == (f"{file.size} bytes", f"{file.size + change} bytes")


def test_a_missing_file_is_damaged_and_what_is_no_file_is_not_trusted(model: tuple[File, Path]) -> None:
    file, path = model
    target = path.rename(path.with_name("target"))
    with pytest.raises(DamagedError):
        open_verified(file, path)
    path.symlink_to(target)
    with pytest.raises(NotTrustedError):
        open_verified(file, path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(NotTrustedError):
        open_verified(file, path)


def test_where_the_machine_has_no_memory_files_the_lower_level_is_used_and_reported(
    model: tuple[File, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_name: str, _flags: int) -> int:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with open_verified(*model, available_bytes=PLENTY) as served:
        assert served.level == E1


def test_an_empty_file_has_no_chunks_and_passes(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    file = File("models/m/empty", "model", 0o644, 0, sha256(b""), ())
    with open_verified(file, path, available_bytes=PLENTY) as served:
        assert os.pread(served.fd, 1, 0) == b""


def test_progress_ends_at_the_size_of_the_file(model: tuple[File, Path]) -> None:
    seen: list[Progress] = []
    open_verified(*model, seen.append).close()
    assert [event.done for event in seen] == sorted(event.done for event in seen)
    assert (seen[-1].done, seen[-1].total) == (sum(SIZES), sum(SIZES))


def test_this_machine_shows_its_memory() -> None:
    assert memory_available_bytes() > 1 << 20
