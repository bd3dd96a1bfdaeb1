"""A scrub finds what has changed on the disk, and says where."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from appliance.host.models import scrub
from appliance.host.models.incident import BYTES, UNREADABLE
from appliance.host.models.scrub import BLOCK_BYTES, FileScrub, become_idle, scrub_file
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from bundles.progress import Progress
from signing.digest import sha256

CHUNK = 700_001


@pytest.fixture
def model(tmp_path: Path) -> tuple[File, Path]:
    data = random.Random(7).randbytes(3 * BLOCK_BYTES + 5)
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    parts = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    chunks = tuple(Chunk(sha256(part), len(part)) for part in parts)
    return File("models/m/model.gguf", "model", 0o644, len(data), sha256(data), chunks), path


def refuse_direct(patch: pytest.MonkeyPatch) -> None:
    real = os.open

    def opened(path: Any, flags: int, *more: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct reads")
        return real(path, flags, *more)

    patch.setattr(os, "open", opened)


@pytest.mark.parametrize("is_direct", [True, False])
def test_right_file_is_read_to_its_end(
    model: tuple[File, Path], is_direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_direct:
        refuse_direct(monkeypatch)
    seen: list[Progress] = []
    found = scrub_file(*model, seen.append)
    assert found.fault is None
    assert found.size_bytes == model[0].size
    assert seen[-1].done == model[0].size
    if not is_direct:
        assert not found.is_direct


@pytest.mark.parametrize("place", [0, CHUNK - 1, CHUNK, BLOCK_BYTES, 3 * BLOCK_BYTES + 4])
def test_one_flipped_bit_anywhere_is_found_and_its_place_is_named(model: tuple[File, Path], place: int) -> None:
    file, path = model
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    fault = scrub_file(file, path).fault
    assert fault is not None
    assert fault.cause == BYTES
    assert fault.detail.startswith(f"bytes {place // CHUNK * CHUNK} to ")


@pytest.mark.parametrize("change", [-1, 1])
def test_another_length_is_found_before_a_byte_is_read(model: tuple[File, Path], change: int) -> None:
    os.truncate(model[1], model[0].size + change)
    found = scrub_file(*model)
    assert found.size_bytes == 0
    assert found.fault is not None
    assert found.fault.cause == BYTES


def test_block_that_the_disk_does_not_give_is_found(model: tuple[File, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv

    def failing(descriptor: int, buffers: Any, at: int) -> int:
        if at >= BLOCK_BYTES:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, buffers, at)

    monkeypatch.setattr(os, "preadv", failing)
    fault = scrub_file(*model).fault
    assert fault is not None
    assert fault.cause == UNREADABLE
    assert fault.detail == f"from byte {BLOCK_BYTES}: Input/output error"


@pytest.mark.parametrize("number", scrub.SHORTAGES)
def test_shortage_of_the_machine_is_no_fault_of_the_file(
    model: tuple[File, Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def failing(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(OSError, match=os.strerror(number)):
        scrub_file(*model)


def test_file_system_that_refuses_a_direct_read_is_read_through_the_cache(
    model: tuple[File, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.preadv

    def failing(descriptor: int, buffers: Any, at: int) -> int:
        if at and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, buffers, at)

    monkeypatch.setattr(os, "preadv", failing)
    found = scrub_file(*model)
    assert (found.fault, found.is_direct) == (None, False)


def test_file_that_ends_while_it_is_read_is_found(model: tuple[File, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, bufs, at: 0 if at else real(fd, bufs, at))
    fault = scrub_file(*model).fault
    assert fault is not None
    assert "ends before" in fault.detail


def test_link_and_pipe_are_no_model(model: tuple[File, Path], tmp_path: Path) -> None:
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(model[1])
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="symbolic links"):
        scrub_file(model[0], link)
    assert scrub_file(model[0], pipe).fault is not None


def test_idle_thread_is_idle_and_the_others_are_not() -> None:
    seen: list[int] = []

    def work() -> None:
        become_idle()
        seen.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [os.SCHED_IDLE]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_result_names_a_seal_where_there_is_one(model: tuple[File, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "has_signed_seal", lambda _file, _descriptor: True)
    assert scrub_file(*model) == FileScrub(model[0].size, True, scrub_file(*model).is_direct, None)
