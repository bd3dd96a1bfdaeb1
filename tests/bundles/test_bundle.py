"""A bundle is believed whole or refused by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bundles.bundle import open_bundle
from bundles.chunks.check import check_all
from bundles.contents.contents import FORMAT_1_KINDS
from bundles.oci.layout import Layout, blob_path
from bundles.stick.writing.writer import write_stick
from signing.errors import ApplianceError, DamagedError, NotTrustedError, UsageError
from signing.floors import Floors
from tests.toy import NOW, build_toy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    workspace, bundle = build_toy(tmp_path_factory.mktemp("workspace"))
    return workspace.root_file.read_bytes(), bundle


@pytest.fixture
def stick(made: tuple[bytes, Path], tmp_path: Path) -> tuple[bytes, Path]:
    shutil.copytree(made[1], tmp_path / "stick")
    return made[0], tmp_path / "stick"


def check(root: bytes, path: Path) -> None:
    found = open_bundle(path, root, Floors(), NOW)
    check_all(Layout(path), found)


def test_bundle_that_was_just_built_verifies(made: tuple[bytes, Path]) -> None:
    check(*made)


def test_evidence_names_signers_threshold_and_the_development_profile(made: tuple[bytes, Path]) -> None:
    evidence = open_bundle(made[1], made[0], Floors(), NOW).evidence
    assert (len(evidence.signers), evidence.threshold, evidence.is_development) == (1, 1, True)
    assert evidence.floors.targets == 2
    assert not evidence.is_expired


@pytest.mark.parametrize("kind", FORMAT_1_KINDS)
def test_one_flipped_byte_in_a_file_of_every_kind_is_damaged_and_named(stick: tuple[bytes, Path], kind: str) -> None:
    root, path = stick
    file = open_bundle(path, root, Floors(), NOW).value.contents.of_kind(kind)[0]
    blob = path / blob_path(file.chunks[-1].sha256)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    with pytest.raises(DamagedError) as caught:
        check(root, path)
    assert caught.value.subject == file.path
    assert caught.value.exit_code == 3


def test_all_damaged_files_are_named_at_once(stick: tuple[bytes, Path]) -> None:
    root, path = stick
    contents = open_bundle(path, root, Floors(), NOW).value.contents
    for kind in ("wheel", "playbook"):
        (path / blob_path(contents.of_kind(kind)[0].chunks[0].sha256)).unlink()
    with pytest.raises(DamagedError) as caught:
        check(root, path)
    assert len(caught.value.others) == 1


HOSTILE: dict[str, Callable[[Path], object]] = {
    "a planted file among the blobs": lambda path: (path / "blobs/sha256/evil").write_bytes(b"x"),
    "a planted metadata file": lambda path: (path / "metadata/evil.json").write_bytes(b"x"),
    "a planted target": lambda path: (path / "targets/bundles/evil").write_bytes(b"x"),
    "a planted attestation": lambda path: _plant(path / "attestations/git/config"),
    "a link instead of a blob": lambda path: _link(next((path / "blobs/sha256").iterdir())),
    "a FIFO among the blobs": lambda path: os.mkfifo(path / "blobs/sha256/fifo"),
    "a changed byte in targets": lambda path: _flip(path / "metadata/2.targets.json"),
    "a changed byte in snapshot": lambda path: _flip(path / "metadata/2.snapshot.json"),
    "a changed byte in timestamp": lambda path: _flip(path / "metadata/timestamp.json"),
    "no timestamp": lambda path: (path / "metadata/timestamp.json").unlink(),
}


def _plant(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")


def _link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("attack", HOSTILE.values(), ids=HOSTILE)
def test_hostile_medium_is_not_trusted(stick: tuple[bytes, Path], attack: Callable[[Path], object]) -> None:
    root, path = stick
    attack(path)
    with pytest.raises(NotTrustedError):
        check(root, path)


def test_blob_longer_than_signed_is_not_trusted(stick: tuple[bytes, Path]) -> None:
    root, path = stick
    file = open_bundle(path, root, Floors(), NOW).value.contents.of_kind("wheel")[0]
    with (path / blob_path(file.chunks[0].sha256)).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(NotTrustedError):
        check(root, path)


def test_bundle_of_another_workspace_is_refused(made: tuple[bytes, Path], tmp_path: Path) -> None:
    _, other = build_toy(tmp_path / "other")
    with pytest.raises(NotTrustedError) as caught:
        check(made[0], other)
    assert caught.value.code == "root.differs"


def test_folder_without_a_bundle_is_a_usage_error(made: tuple[bytes, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        check(made[0], tmp_path)


def test_older_metadata_than_the_floors_is_a_rollback(made: tuple[bytes, Path]) -> None:
    with pytest.raises(NotTrustedError) as caught:
        open_bundle(made[1], made[0], Floors(targets=3), NOW)
    assert caught.value.code == "version.rollback"


def test_mixed_files_of_two_versions_are_refused(tmp_path: Path) -> None:
    workspace_path = tmp_path / "second"
    _, first = build_toy(workspace_path)
    workspace, second = build_toy(workspace_path, "1.0.1", note="another note")
    shutil.copy(first / "index.json", second / "index.json")
    with pytest.raises(ApplianceError) as caught:
        check(workspace.root_file.read_bytes(), second)
    assert caught.value.exit_code in (3, 4)


def test_stick_write_repairs_a_damaged_blob_and_leaves_right_ones_alone(
    made: tuple[bytes, Path], tmp_path: Path
) -> None:
    root, path = made
    found = open_bundle(path, root, Floors(), NOW)
    first = write_stick(Layout(path), found, tmp_path / "stick")
    assert first.blobs == len(found.value.blobs)
    blobs = sorted((tmp_path / "stick/blobs/sha256").iterdir())
    before = [(blob.stat().st_ino, blob.stat().st_mtime_ns) for blob in blobs]
    _flip(blobs[0])
    again = write_stick(Layout(path), found, tmp_path / "stick")
    after = [(blob.stat().st_ino, blob.stat().st_mtime_ns) for blob in blobs]
    assert again.blobs == 1
    assert before[1:] == after[1:]
    check(root, tmp_path / "stick")


def test_building_again_writes_nothing(tmp_path: Path) -> None:
    _, path = build_toy(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    build_toy(tmp_path)
    assert before == {file: file.stat().st_mtime_ns for file in path.rglob("*")}


def test_same_files_give_the_same_manifest_in_another_workspace(tmp_path: Path) -> None:
    _, one = build_toy(tmp_path / "one")
    _, two = build_toy(tmp_path / "elsewhere" / "two")
    assert (one / "index.json").read_bytes() == (two / "index.json").read_bytes()
