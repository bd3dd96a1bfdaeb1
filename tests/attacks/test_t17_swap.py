"""T17: a model is swapped after it was verified and before it is served."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.models.seal import seal
from appliance.host.models.served_file import E1, E2, E4, MARGIN_BYTES, ServedFile, open_verified
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from bundles.fsverity_digest import digest_of
from signing.digest import sha256
from tests.appliance.sim_verity import SimVerity
from tests.attacks.harness import guard_off, refused, row

ROW = row(17)
PLENTY, LITTLE = 1 << 40, MARGIN_BYTES
GOOD, EVIL = b"good weights " * 1000, b"evil weights " * 1000


@pytest.fixture
def model(tmp_path: Path) -> tuple[File, Path]:
    path = tmp_path / "model.gguf"
    path.write_bytes(GOOD)
    chunks = tuple(Chunk(sha256(GOOD[at : at + 5000]), len(GOOD[at : at + 5000])) for at in range(0, len(GOOD), 5000))
    return File("models/m/model.gguf", "model", 0o644, len(GOOD), sha256(GOOD), chunks), path


def served(opened: ServedFile) -> bytes:
    """What an engine that is given the descriptor reads, later."""
    return Path(opened.path_for_child).read_bytes()


def rename_over(path: Path) -> None:
    other = path.with_name("evil")
    other.write_bytes(EVIL)
    os.replace(other, path)


@pytest.mark.parametrize(("memory", "level"), [(PLENTY, E2), (LITTLE, E1)])
def test_unattacked_model_is_served_as_it_was_signed(model: tuple[File, Path], memory: int, level: str) -> None:
    with open_verified(*model, available_bytes=memory) as opened:
        assert (served(opened), opened.level) == (GOOD, level)


@pytest.mark.parametrize("memory", [PLENTY, LITTLE])
def test_attacked_before_it_is_opened(model: tuple[File, Path], memory: int) -> None:
    rename_over(model[1])
    refused(ROW, lambda: open_verified(*model, available_bytes=memory), "contents.file-changed", model[0].path)


@pytest.mark.parametrize("memory", [PLENTY, LITTLE])
def test_attacked_by_another_file_under_its_name_nothing_changes(model: tuple[File, Path], memory: int) -> None:
    with open_verified(*model, available_bytes=memory) as opened:
        rename_over(model[1])
        assert served(opened) == GOOD


def test_attacked_by_writing_into_it_the_sealed_copy_does_not_change(model: tuple[File, Path]) -> None:
    with open_verified(*model, available_bytes=PLENTY) as opened:
        model[1].write_bytes(EVIL)
        assert served(opened) == GOOD


@pytest.fixture
def sealed(model: tuple[File, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[File, Path]:
    """The model with its signed seal."""
    SimVerity(monkeypatch)
    digest = digest_of(io.BytesIO(GOOD), len(GOOD))
    assert seal(model[1], digest).is_sealed
    return replace(model[0], fsverity=digest), model[1]


@pytest.mark.parametrize("memory", [PLENTY, LITTLE])
def test_unattacked_sealed_model_is_served_from_the_disk_and_none_of_it_is_read(
    sealed: tuple[File, Path], memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> int:
        raise AssertionError("a byte was read")

    monkeypatch.setattr(os, "preadv", read)
    with open_verified(*sealed, available_bytes=memory) as opened:
        assert opened.level == E4
        assert served(opened) == GOOD


def test_attacked_before_it_is_opened_by_a_file_with_a_seal_of_its_own(sealed: tuple[File, Path]) -> None:
    other = sealed[1].with_name("evil")
    other.write_bytes(EVIL)
    assert seal(other, digest_of(io.BytesIO(EVIL), len(EVIL))).is_sealed
    os.replace(other, sealed[1])
    refused(ROW, lambda: open_verified(*sealed), "contents.file-changed", sealed[0].path)


def test_attacked_after_its_seal_was_measured_the_descriptor_is_served(sealed: tuple[File, Path]) -> None:
    with open_verified(*sealed) as opened:
        rename_over(sealed[1])
        assert (served(opened), opened.level) == (GOOD, E4)


def test_unguarded_what_is_written_into_the_file_is_served(model: tuple[File, Path]) -> None:
    with guard_off(ROW.guard, lambda *_: None), open_verified(*model, available_bytes=PLENTY) as opened:
        assert opened.level == E1  # and reports it: a lower level is never claimed to be a higher one
        model[1].write_bytes(EVIL)
        assert served(opened) == EVIL
