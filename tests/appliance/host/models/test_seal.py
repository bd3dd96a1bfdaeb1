"""Seals of fs-verity: what is set, what is measured, and what a host without them says."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from appliance.host.models import seal as seals
from appliance.host.models.seal import (
    BUSY,
    FAILED,
    NO_FEATURE,
    NOT_OWNED,
    OTHER_BLOCKS,
    OTHER_SEAL,
    SEALED,
    SealResult,
    describe_missing_seal,
    measure,
    seal,
    seal_ability,
)
from bundles.fsverity_digest import digest_of
from tests.appliance.sim_verity import SimVerity

DATA = b"weights" * 10_000
DIGEST = digest_of(io.BytesIO(DATA), len(DATA))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> SimVerity:
    return SimVerity(monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(DATA)
    path.chmod(0o444)
    return path


def measured(path: Path) -> str | None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return measure(descriptor)
    finally:
        os.close(descriptor)


def test_seal_is_the_digest_that_was_computed_from_the_bytes(kernel: SimVerity, model: Path) -> None:
    assert measured(model) is None
    assert seal(model, DIGEST) == SealResult(SEALED)
    assert measured(model) == DIGEST


def test_sealed_file_is_left_alone(kernel: SimVerity, model: Path) -> None:
    seal(model, DIGEST)
    assert seal(model, DIGEST).is_sealed
    assert kernel.enabled == 1


def test_seal_of_other_bytes_does_not_count(kernel: SimVerity, model: Path) -> None:
    model.chmod(0o644)
    model.write_bytes(DATA[:-1] + b"X")
    assert seal(model, DIGEST).outcome == OTHER_SEAL


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (errno.EOPNOTSUPP, NO_FEATURE),
        (errno.ENOTTY, NO_FEATURE),
        (errno.EINVAL, OTHER_BLOCKS),
        (errno.EACCES, NOT_OWNED),
        (errno.EROFS, NOT_OWNED),
        (errno.ETXTBSY, BUSY),
        (errno.EIO, FAILED),
    ],
)
def test_refusal_of_the_kernel_is_an_outcome_with_a_remedy(
    kernel: SimVerity, model: Path, number: int, outcome: str
) -> None:
    kernel.refusal = number
    found = seal(model, DIGEST)
    assert (found.outcome, found.detail) == (outcome, os.strerror(number))
    text = describe_missing_seal({"models/m/model.gguf": found})
    assert text.startswith("not sealed: models/m/model.gguf (")
    assert len(text.partition("); ")[2]) > 20


def test_what_is_sealed_needs_no_words() -> None:
    assert describe_missing_seal({"a": SealResult(SEALED)}) == ""


def test_mode_of_a_file_stays_as_it_was_where_its_owner_seals_it(
    kernel: SimVerity, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    real = os.fchmod

    def change(descriptor: int, mode: int) -> None:
        seen.append(mode)
        real(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", change)
    assert seal(model, DIGEST).is_sealed
    assert (seen, model.stat().st_mode & 0o777) == ([0o644, 0o444], 0o444)


def test_file_system_that_answers_by_itself_keeps_no_seal(
    kernel: SimVerity, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal(model, DIGEST)
    monkeypatch.setattr(seals, "filesystem_kind", lambda _descriptor: None)
    assert measured(model) is None
    assert seal(model, DIGEST).outcome == NO_FEATURE


def test_link_is_not_followed_and_a_pipe_is_not_sealed(kernel: SimVerity, model: Path) -> None:
    link, pipe = model.with_name("link"), model.with_name("pipe")
    link.symlink_to(model)
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="symbolic links"):
        seal(link, DIGEST)
    assert seal(pipe, DIGEST).outcome == FAILED


class Blocks:
    """What statvfs(3) gives of a file system with blocks of another size."""

    f_frsize = 1024


def test_ext4_of_small_blocks_is_refused_with_a_warning_never_to_turn_the_feature_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seals, "filesystem_kind", lambda _descriptor: "ext4")
    monkeypatch.setattr(seals, "can_seal", lambda _folder: True)
    assert seal_ability(tmp_path).is_sealed
    monkeypatch.setattr(os, "fstatvfs", lambda _descriptor: Blocks)
    found = seal_ability(tmp_path)
    assert found == SealResult(OTHER_BLOCKS, "ext4 with blocks of 1024 bytes")
    assert "Never give this one the feature verity" in seals.seal_remedy(found)


def test_folder_without_the_feature_names_the_command_that_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seals, "filesystem_kind", lambda _descriptor: "ext4")
    monkeypatch.setattr(seals, "can_seal", lambda _folder: False)
    found = seal_ability(tmp_path)
    assert found.outcome == NO_FEATURE
    assert "tune2fs -O verity" in seals.seal_remedy(found)


def test_real_kernel_answers_without_an_error(model: Path) -> None:
    # Sealed where this kernel and file system can, else refused for a stated reason.
    assert seal(model, DIGEST).outcome in (SEALED, NO_FEATURE, OTHER_BLOCKS)
