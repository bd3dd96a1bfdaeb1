"""Several sources of metadata, and what a rotation resets."""

from __future__ import annotations

import dataclasses

import pytest

from signing.chain import ReadMetadata, walk
from signing.errors import NotTrustedError
from signing.floors import Floors
from tests.sim.tuf import USUAL, TufRepository, entry, key

Files = dict[str, bytes]


def reader(files: Files) -> ReadMetadata:
    return lambda name, _most: files.get(name)


@pytest.fixture
def two() -> tuple[TufRepository, Files, Files]:
    """A repository, its files of yesterday, and its files of today."""
    repository = TufRepository()
    repository.publish({"bundles/a/1/manifest.json": entry(b"1")})
    older = dict(repository.files)
    repository.publish({"bundles/a/2/manifest.json": entry(b"2")})
    return repository, older, dict(repository.files)


@pytest.mark.parametrize("stored_first", [True, False])
def test_the_newest_of_store_and_stick_wins_and_the_older_one_is_a_notice(
    two: tuple[TufRepository, Files, Files], stored_first: bool
) -> None:
    repository, older, newer = two
    first, second = (newer, older) if stored_first else (older, newer)
    walked = walk(repository.pinned, reader(first), Floors(), [reader(second)])
    assert "bundles/a/2/manifest.json" in walked.targets.entries
    floors = walked.floors
    again = walk(repository.pinned, reader(first), floors, [reader(second)])
    assert [error.code for error in again.passed_over] == ["version.rollback"]


def test_it_is_refused_only_when_no_source_reaches_the_floors(two: tuple[TufRepository, Files, Files]) -> None:
    repository, older, newer = two
    floors = walk(repository.pinned, reader(newer), Floors()).floors
    with pytest.raises(NotTrustedError) as caught:
        walk(repository.pinned, reader(older), floors, [reader(older), reader({})])
    assert caught.value.code == "version.rollback"


def test_a_forged_source_decides_nothing_beside_a_good_one(two: tuple[TufRepository, Files, Files]) -> None:
    repository, older, newer = two
    forged = {**newer, "timestamp.json": newer["timestamp.json"].replace(b"2031", b"2099")}
    assert forged != newer
    walked = walk(repository.pinned, reader(forged), Floors(), [reader(older)])
    assert "bundles/a/2/manifest.json" not in walked.targets.entries
    assert len(walked.passed_over) == 1


def test_a_newer_root_beats_newer_targets_under_the_root_before_it() -> None:
    repository = TufRepository()
    repository.publish({})
    rotated = TufRepository()
    rotated.rotate(dataclasses.replace(USUAL, builder=key("second-builder")))
    for _ in range(5):
        repository.publish({})
    repository.pinned = rotated.pinned
    repository.files["1.root.json"] = rotated.pinned
    walked = walk(rotated.pinned, reader(repository.files), Floors(), [reader(rotated.files)])
    assert walked.root.version == 2


def fast_forwarded() -> tuple[TufRepository, Floors]:
    """A repository whose builder's key was stolen, and the floors of a host that has seen what the thief did."""
    repository = TufRepository()
    floors = repository.walk().floors
    repository.put_snapshot(9_000)
    return repository, repository.walk(floors).floors


def test_a_root_that_replaces_the_builders_key_resets_its_two_floors_once() -> None:
    repository, floors = fast_forwarded()
    assert (floors.timestamp, floors.snapshot) == (9_000, 9_000)
    repository.snapshot_version = 1
    repository.rotate(dataclasses.replace(USUAL, builder=key("second-builder")))
    after = repository.walk(floors).floors
    assert (after.root, after.timestamp, after.snapshot) == (2, 2, 2)
    kept = floors.raised(after)  # what a host stores
    assert kept == after
    older = dict(repository.files)
    repository.publish({})
    newest = repository.walk(kept).floors
    repository.files = older
    with pytest.raises(NotTrustedError) as caught:
        repository.walk(newest)  # the rotation is old news now: it resets nothing again
    assert caught.value.code == "version.rollback"


def test_a_root_that_keeps_the_builders_key_resets_nothing() -> None:
    repository, floors = fast_forwarded()
    repository.snapshot_version = 1
    repository.rotate(dataclasses.replace(USUAL, targets=USUAL.targets[:2]))
    with pytest.raises(NotTrustedError) as caught:
        repository.walk(floors)
    assert caught.value.code == "version.rollback"


def test_a_rotation_never_resets_targets_or_time() -> None:
    repository, floors = fast_forwarded()
    repository.snapshot_version = 1
    repository.rotate(dataclasses.replace(USUAL, builder=key("second-builder")))
    with pytest.raises(NotTrustedError) as caught:
        repository.walk(dataclasses.replace(floors, targets=99))
    assert (caught.value.code, caught.value.subject) == ("version.rollback", repository.targets_name)
    assert floors.after_rotation() == dataclasses.replace(floors, timestamp=0, snapshot=0)
