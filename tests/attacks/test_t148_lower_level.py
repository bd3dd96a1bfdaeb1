"""T148: a model is served at a lower level than the site demands."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from appliance.host.models.levels import E1, E2, E4, LADDER, is_enough
from appliance.host.models.seal import seal
from appliance.host.models.served_file import MARGIN_BYTES, open_verified
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from bundles.fsverity_digest import digest_of
from signing.digest import sha256
from tests.appliance.sim_verity import SimVerity
from tests.attacks.harness import guard_off, refused, row

ROW = row(148)
PLENTY, LITTLE = 1 << 40, MARGIN_BYTES
DATA = b"weights " * 1000
SEAL = digest_of(io.BytesIO(DATA), len(DATA))
FILE = File("models/m/model.gguf", "model", 0o644, len(DATA), sha256(DATA), (Chunk(sha256(DATA), len(DATA)),), SEAL)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    SimVerity(monkeypatch)
    found = tmp_path / "model.gguf"
    found.write_bytes(DATA)
    return found


@pytest.mark.parametrize(
    ("minimum", "memory", "level"), [(E1, LITTLE, E1), (E1, PLENTY, E2), (E2, PLENTY, E2), ("", LITTLE, E1)]
)
def test_unattacked_level_that_suffices_is_served(path: Path, minimum: str, memory: int, level: str) -> None:
    with open_verified(FILE, path, available_bytes=memory, min_level=minimum) as opened:
        assert opened.level == level


@pytest.mark.parametrize("minimum", ["", *LADDER])
def test_unattacked_sealed_file_suffices_for_every_minimum(path: Path, minimum: str) -> None:
    seal(path, SEAL)
    with open_verified(FILE, path, available_bytes=LITTLE, min_level=minimum) as opened:
        assert opened.level == E4


@pytest.mark.parametrize("memory", [PLENTY, LITTLE])
def test_attacked_by_a_copy_without_the_seal_nothing_is_read(
    path: Path, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal(path, SEAL)
    copy = path.with_name("copy")
    copy.write_bytes(DATA)
    os.replace(copy, path)

    def read(*_: object) -> int:
        raise AssertionError("a byte was read")

    monkeypatch.setattr(os, "preadv", read)
    act = lambda: open_verified(FILE, path, available_bytes=memory, min_level=E4)  # noqa: E731
    error = refused(ROW, act, "model.level", FILE.path)
    assert "min_level" in error.hint


def test_attacked_by_taking_the_memory_away(path: Path) -> None:
    act = lambda: open_verified(FILE, path, available_bytes=LITTLE, min_level=E2)  # noqa: E731
    refused(ROW, act, "model.level", FILE.path)


def test_unguarded_the_lower_level_is_served(path: Path) -> None:
    with (
        guard_off(ROW.guard, lambda *_: True),
        open_verified(FILE, path, available_bytes=LITTLE, min_level=E4) as opened,
    ):
        assert opened.level == E1
    assert not is_enough(E1, E2)
