"""T145: a seal that proves nothing about the signed bytes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.models import seal as seals
from appliance.host.models.seal import seal
from appliance.host.models.served_file import E2, E4, open_verified
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from bundles.fsverity_digest import digest_of
from signing.digest import sha256
from tests.appliance.sim_verity import SimVerity
from tests.attacks.harness import guard_off, refused, row

ROW = row(145)
PLENTY = 1 << 40
GOOD, EVIL = b"good weights " * 1000, b"evil weights " * 1000
SEAL, EVIL_SEAL = (digest_of(io.BytesIO(data), len(data)) for data in (GOOD, EVIL))
FILE = File("models/m/model.gguf", "model", 0o644, len(GOOD), sha256(GOOD), (Chunk(sha256(GOOD), len(GOOD)),), SEAL)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> SimVerity:
    return SimVerity(monkeypatch)


def stored(folder: Path, data: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path


def test_unattacked_signed_seal_gives_the_highest_level(kernel: SimVerity, tmp_path: Path) -> None:
    path = stored(tmp_path, GOOD)
    seal(path, SEAL)
    with open_verified(FILE, path) as opened:
        assert opened.level == E4


def test_attacked_by_other_bytes_with_a_seal_of_their_own(kernel: SimVerity, tmp_path: Path) -> None:
    path = stored(tmp_path, EVIL)
    assert seal(path, EVIL_SEAL).is_sealed
    refused(ROW, lambda: open_verified(FILE, path), "contents.file-changed", FILE.path)


def test_attacked_by_a_file_system_that_answers_with_the_signed_seal_by_itself(
    kernel: SimVerity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(tmp_path, EVIL)
    status = path.stat()
    kernel.sealed[(status.st_dev, status.st_ino)] = SEAL
    monkeypatch.setattr(seals, "filesystem_kind", lambda _descriptor: None)
    refused(ROW, lambda: open_verified(FILE, path), "contents.file-changed", FILE.path)


def test_attacked_file_without_a_signed_seal_is_compared_byte_by_byte(kernel: SimVerity, tmp_path: Path) -> None:
    path = stored(tmp_path, GOOD)
    seal(path, SEAL)
    with open_verified(replace(FILE, fsverity=None), path, available_bytes=PLENTY) as opened:
        assert opened.level == E2


def test_unguarded_every_file_counts_as_sealed(kernel: SimVerity, tmp_path: Path) -> None:
    path = stored(tmp_path, EVIL)
    with guard_off(ROW.guard, lambda *_: True), open_verified(FILE, path) as opened:
        assert opened.level == E4
        assert Path(opened.path_for_child).read_bytes() == EVIL
