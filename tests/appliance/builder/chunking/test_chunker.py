"""Sources become chunks in one pass, in bounded memory, and nothing else than what was hashed is written."""

from __future__ import annotations

import errno
import hashlib
import io
import mmap
import os
import random
from pathlib import Path

import pytest

from appliance.builder.chunking import bundle_writer, chunker, hash_pool
from appliance.builder.chunking.bundle_writer import BundleWriter
from appliance.builder.chunking.chunker import SMALL_SOURCE_BYTES, Source, store_all
from appliance.builder.chunking.hash_pool import HashPool
from bundles import durability
from bundles.chunks.chunk import MAX_CHUNK_BYTES, Chunk
from bundles.fsverity_digest import digest_of
from bundles.oci.layout import blob_path
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, DamagedError, NotTrustedError
from tests.sim.gguf_files import HOSTILE, gguf, string_key

TENSORS = [("blk.0.a", 3 << 20), ("blk.1.a", 700_001), ("output", 12)]


@pytest.fixture
def bundle(tmp_path: Path) -> BundleWriter:
    return BundleWriter(tmp_path / "dist" / "x-1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([string_key("tokenizer.chat_template", "{{ x }}")], TENSORS, tail=b"the end"))
    return path


def assembled(bundle: BundleWriter, chunks: tuple[Chunk, ...]) -> bytes:
    parts = [(bundle.making.root / blob_path(chunk.sha256)).read_bytes() for chunk in chunks]
    assert [(sha256(part), len(part)) for part in parts] == [(chunk.sha256, chunk.size) for chunk in chunks]
    return b"".join(parts)


def test_all_digests_are_those_of_the_bytes_and_the_blobs_make_the_file_again(
    bundle: BundleWriter, model: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(random.Random(1).randbytes(3_000_000))
    sources = [
        Source("models/m/m.gguf", "model", file=model),
        Source("wheels/plain", "wheel", file=plain, sha256=sha256(plain.read_bytes())),
        Source("config/none", "config", data=b""),
        *(Source(f"config/{number}", "config", data=f"{number}".encode() * 1000) for number in range(50)),
    ]
    stored = store_all(sources, bundle)
    for source, (file, header) in zip(sources, stored, strict=True):
        data = source.file.read_bytes() if source.file else source.data
        assert (file.path, file.size, file.sha256) == (source.path, len(data), sha256(data))
        assert assembled(bundle, file.chunks) == data
        assert (header is not None) == (source.kind == "model")
    assert stored[0][0].fsverity == digest_of(io.BytesIO(model.read_bytes()), model.stat().st_size)
    assert len(stored[0][0].chunks) == 7


def test_each_byte_of_a_source_is_read_once_after_its_header(
    bundle: BundleWriter, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = 0
    real = hash_pool._read_into

    def count(stream: io.RawIOBase, view: memoryview) -> int:
        nonlocal counted
        counted += (got := real(stream, view))  # type: ignore[arg-type]
        return got

    monkeypatch.setattr(hash_pool, "_read_into", count)
    store_all([Source("models/m/m.gguf", "model", file=model)], bundle)
    assert counted == model.stat().st_size


def test_a_file_of_many_chunks_is_never_held_in_more_than_the_buffers(
    tmp_path: Path, bundle: BundleWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunker, "cut_plain", lambda size: (100,) * (size // 100))
    (tmp_path / "many").write_bytes(random.Random(2).randbytes(100_000))
    made: list[int] = []
    real = mmap.mmap

    def make(at: int, size: int, **more: int) -> object:
        made.append(size)
        return real(at, size, **more)

    monkeypatch.setattr(mmap, "mmap", make)
    [(file, _)] = store_all([Source("config/many", "config", file=tmp_path / "many")], bundle)
    assert len(file.chunks) == 1000
    assert assembled(bundle, file.chunks) == (tmp_path / "many").read_bytes()
    assert len(made) <= 8
    assert 2 * MAX_CHUNK_BYTES + 8 * hash_pool.SMALL_BYTES < 150 << 20


def test_work_in_order_sees_the_pieces_as_they_were_read() -> None:
    data = random.Random(3).randbytes(1000)
    state = hashlib.sha256()
    stream = io.BytesIO(data)
    with HashPool() as threads:
        for _ in range(100):
            piece = threads.read(stream, 10)
            threads.run(state.update, piece, in_order="whole")
            piece.release()
    assert state.digest() == hashlib.sha256(data).digest()


def test_a_source_with_another_digest_than_the_locked_one_is_damaged(bundle: BundleWriter, model: Path) -> None:
    with pytest.raises(DamagedError) as caught:
        store_all([Source("models/m/m.gguf", "model", file=model, sha256=Digest("0" * 64))], bundle)
    assert (caught.value.code, caught.value.subject) == ("source.differs-from-lock", "models/m/m.gguf")


def test_a_model_damaged_in_its_header_is_damaged_and_a_hostile_one_not_trusted(
    bundle: BundleWriter, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(HOSTILE["the same key twice"])
    for digest, kind in ((Digest("0" * 64), DamagedError), (sha256(path.read_bytes()), NotTrustedError)):
        with pytest.raises(kind):
            store_all([Source("models/m/m.gguf", "model", file=path, sha256=digest)], bundle)


def test_a_source_that_vanished_is_named(bundle: BundleWriter, tmp_path: Path) -> None:
    with pytest.raises(ApplianceError) as caught:
        store_all([Source("config/x", "config", file=tmp_path / "gone")], bundle)
    assert (caught.value.code, caught.value.subject) == ("source.vanished", str(tmp_path / "gone"))


@pytest.mark.parametrize("change", [-1, +1])
@pytest.mark.parametrize("size", [1000, SMALL_SOURCE_BYTES + 1])
def test_a_source_that_grows_or_shrinks_while_it_is_read_is_refused(
    bundle: BundleWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int, size: int
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * size)

    def cut(size: int) -> tuple[int, ...]:
        os.truncate(path, size + change)
        return (size,)

    monkeypatch.setattr(chunker, "cut_plain", cut)
    with pytest.raises(DamagedError) as caught:
        store_all([Source("config/x", "config", file=path)], bundle)
    assert (caught.value.code, caught.value.subject) == ("source.changed", str(path))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The disk is full after so many new files."""
    left = [5]
    real = durability.start_writing

    def start(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(bundle_writer, "start_writing", start)
    return left


def test_a_full_disk_is_said_and_the_next_run_goes_on(
    tmp_path: Path, bundle: BundleWriter, full_disk: list[int]
) -> None:
    sources = [Source(f"config/{number}", "config", data=f"{number}".encode() * 9) for number in range(20)]
    with pytest.raises(ApplianceError) as caught:
        store_all(sources, bundle)
    assert (caught.value.code, caught.value.exit_code) == ("disk.full", 1)
    assert not bundle.final.root.exists()
    kept = list((bundle.making.root / "blobs/sha256").iterdir())
    assert 0 < len(kept) <= 5
    full_disk[0] = 100
    again = BundleWriter(bundle.final.root)
    store_all(sources, again)
    assert again.written == 20 - len(kept)
