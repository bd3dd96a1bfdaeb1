"""T5: files of two releases, each signed, put together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from signing.chain import ReadMetadata
from signing.roles import FileMeta
from tests.attacks.harness import Stick, command, guard_off, make_stick, refused, row
from tests.sim.tuf import TufRepository

ROW = row(5)


def with_targets_of_another_release(stick: Stick) -> None:
    """Targets of the same version by the same people, from a repository in which the bundle is only `allowed`."""
    other = TufRepository()
    entries = stick.repository.signed(stick.repository.targets_name)["targets"]
    for value in entries.values():
        value["custom"]["status"] = "allowed"
    other.publish(entries)
    stick.repository.files[stick.repository.targets_name] = other.files[other.targets_name]
    stick.save()


def with_blobs_of_another_release(stick: Stick, toy: Path, folder: Path) -> None:
    """Index and blobs of a bundle of the same name and version with other contents."""
    other = make_stick(toy, folder, "other")
    other.forge(lambda contents: contents.update(source_date_epoch=1))
    shutil.copytree(other.path / "blobs", stick.path / "blobs", dirs_exist_ok=True)
    shutil.copy(other.path / "index.json", stick.path / "index.json")


def test_unattacked_release_whose_files_belong_together_verifies(stick: Stick) -> None:
    assert stick.verify().evidence.status == "current"


def test_attacked_with_targets_of_another_release(stick: Stick) -> None:
    with_targets_of_another_release(stick)
    refused(ROW, stick.verify, "metadata.mixed", "2.targets.json")
    assert stick.command().code == 4


def test_attacked_with_a_snapshot_of_another_release(stick: Stick) -> None:
    older = stick.repository.files["2.snapshot.json"]
    stick.publish()
    stick.repository.files["3.snapshot.json"] = older
    stick.save()
    refused(ROW, stick.verify, "metadata.mixed", "3.snapshot.json")


def test_attacked_with_blobs_of_another_release(stick: Stick, toy: Path, tmp_path: Path) -> None:
    with_blobs_of_another_release(stick, toy, tmp_path)
    refused(ROW, stick.verify, "bundle.mixed", "index.json")
    assert stick.command().code == 4


@pytest.mark.parametrize("is_first", [True, False])
def test_attacked_on_one_of_two_sticks(stick: Stick, toy: Path, tmp_path: Path, is_first: bool) -> None:
    other = Stick(tmp_path / "second", stick.repository, stick.root_file)
    shutil.copytree(stick.path, other.path)
    with_blobs_of_another_release(other, toy, tmp_path)
    paths = (other.path, stick.path) if is_first else (stick.path, other.path)
    answer = command("verify", *paths, "--trust", stick.root_file)
    assert (answer.code, "(bundle.mixed)" in answer.talk) == (4, True), answer.talk


def test_attacked_on_two_sticks_with_targets_of_two_releases(stick: Stick, tmp_path: Path) -> None:
    shutil.copytree(stick.path, tmp_path / "second")
    with_targets_of_another_release(stick)
    answer = command("verify", tmp_path / "second", stick.path, "--trust", stick.root_file)
    assert (answer.code, "(metadata.mixed)" in answer.talk) == (4, True), answer.talk


def test_unguarded_the_other_releases_targets_decide(stick: Stick) -> None:
    def read_any(read: ReadMetadata, name: str, _meta: FileMeta, _role: str) -> bytes:
        return read(name, 1 << 20) or b""

    with_targets_of_another_release(stick)
    with guard_off(ROW.guard, read_any):
        assert stick.verify().evidence.status == "allowed"
