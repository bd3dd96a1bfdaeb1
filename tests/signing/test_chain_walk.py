"""The walk step by step: which files it asks for, how long they may be, and what it says of each that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from signing import chain
from signing.chain import MAX_ROTATIONS, Walked, walk
from signing.digest import sha256
from signing.errors import NotTrustedError
from signing.floors import Floors
from signing.keys import key_to_json
from signing.roles import MAX_BYTES
from tests.sim.tuf import USUAL, Signed, TufRepository, entry, key, keys, stated
from tests.toy import NOW


@pytest.fixture
def repository() -> TufRepository:
    made = TufRepository()
    made.publish({"bundles/a/1/manifest.json": entry(b"1")})
    return made


def refused(act: Callable[[], object], code: str, subject: str) -> NotTrustedError:
    with pytest.raises(NotTrustedError) as caught:
        act()
    assert (caught.value.code, caught.value.subject) == (code, subject)
    return caught.value


def spell(version: int) -> Callable[[Signed], None]:
    return lambda signed: signed.update(version=version)


def lasting(moment: str) -> Callable[[Signed], None]:
    return lambda signed: signed.update(expires=moment)


def test_every_file_is_asked_for_by_its_name_and_cap_in_the_order_of_the_workflow(repository: TufRepository) -> None:
    repository.rotate(USUAL)
    asked: list[tuple[str, int]] = []

    def read(name: str, most: int) -> bytes | None:
        asked.append((name, most))
        return repository.read(name, most)

    walked = walk(repository.pinned, read, Floors())
    assert asked == [
        ("1.root.json", MAX_BYTES["root"]),
        ("2.root.json", MAX_BYTES["root"]),
        ("3.root.json", MAX_BYTES["root"]),
        ("timestamp.json", MAX_BYTES["timestamp"]),
        ("3.snapshot.json", MAX_BYTES["snapshot"]),
        ("3.targets.json", MAX_BYTES["targets"]),
    ]
    assert walked.floors == Floors(2, 3, 3, 3, stated(NOW))
    assert walked.root_bytes == repository.files["2.root.json"]
    assert walked.files == repository.files  # what was there, and nothing for what was not
    assert walked.passed_over == ()
    assert {one.spki for one in walked.signers} == {one.public.spki for one in USUAL.targets[:2]}


def test_without_a_rotation_the_newest_root_is_the_pinned_one(repository: TufRepository) -> None:
    assert repository.walk().root_bytes == repository.pinned
    del repository.files["1.root.json"]  # copies are not needed
    assert repository.walk().root.version == 1


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.targets.json"])
def test_missing_file_is_named(repository: TufRepository, name: str) -> None:
    del repository.files[name]
    refused(repository.walk, "metadata.missing", name)


@pytest.mark.parametrize(
    ("name", "role"), [("timestamp.json", "timestamp"), ("2.snapshot.json", "snapshot"), ("2.targets.json", "targets")]
)
def test_file_longer_than_its_cap_is_refused_unread(repository: TufRepository, name: str, role: str) -> None:
    repository.files[name] = b"x" * (MAX_BYTES[role] + 1)
    refused(repository.walk, "metadata.too-long", name)
    repository.files[name] = b" " * MAX_BYTES[role]
    code = "json.refused" if role == "timestamp" else "metadata.mixed"
    refused(repository.walk, code, name)


@pytest.mark.parametrize("name", ["2.snapshot.json", "2.targets.json"])
def test_named_file_is_the_very_bytes(repository: TufRepository, name: str) -> None:
    data = repository.files[name]
    for other in (data + b" ", data[:-1], data[:-1] + b" ", b""):
        assert other != data
        repository.files[name] = other
        refused(repository.walk, "metadata.mixed", name)


@pytest.mark.parametrize("field", ["length", "sha256"])
@pytest.mark.parametrize("points_to", ["snapshot.json", "targets.json"])
def test_length_and_digest_must_both_be_right(repository: TufRepository, field: str, points_to: str) -> None:
    def change(signed: Signed) -> None:
        meta = signed["meta"][points_to]
        if field == "length":
            meta["length"] += 1
        else:
            meta["hashes"]["sha256"] = "0" * 64

    if points_to == "snapshot.json":
        repository.edit("timestamp.json", change)
        refused(repository.walk, "metadata.mixed", "2.snapshot.json")
    else:
        rename_snapshot(repository, change)
        refused(repository.walk, "metadata.mixed", "2.targets.json")


def rename_snapshot(repository: TufRepository, change: Callable[[Signed], object]) -> None:
    """Change the snapshot, and let the timestamp name what it became."""
    repository.edit("2.snapshot.json", change)
    data = repository.files["2.snapshot.json"]
    meta = {"length": len(data), "hashes": {"sha256": sha256(data)}}
    repository.edit("timestamp.json", lambda signed: signed["meta"]["snapshot.json"].update(meta))


def test_version_inside_a_file_is_the_one_that_names_it(repository: TufRepository) -> None:
    rename_snapshot(repository, spell(3))
    error = refused(repository.walk, "metadata.version", "2.snapshot.json")
    assert (error.expected, error.found) == ("version 2", "version 3")
    other = TufRepository()
    other.put_targets(other.files["1.targets.json"], 2)
    refused(other.walk, "metadata.version", "2.targets.json")


def test_root_of_another_version_than_its_name_is_refused(repository: TufRepository) -> None:
    repository.rotate(USUAL)
    for version in (1, 3):
        repository.edit("2.root.json", spell(version))
        refused(repository.walk, "metadata.version", "2.root.json")


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_each_role_has_its_own_floor_and_error(repository: TufRepository, role: str) -> None:
    names = {
        "root": "root.json",
        "timestamp": "timestamp.json",
        "snapshot": "2.snapshot.json",
        "targets": "2.targets.json",
    }
    version = 1 if role == "root" else 2
    at = replace(Floors(), **{role: version})  # type: ignore[arg-type]
    repository.walk(at)
    above = replace(Floors(), **{role: version + 1})  # type: ignore[arg-type]
    refused(lambda: repository.walk(above), "version.rollback", names[role])


def test_on_first_contact_the_builders_versions_are_measured_by_the_peoples(repository: TufRepository) -> None:
    repository.put_snapshot(10_002)
    assert repository.walk().floors.timestamp == 10_002
    repository.put_snapshot(10_003)
    refused(repository.walk, "version.fast-forward", "timestamp.json")
    at = Floors(timestamp=10_003)
    error = refused(lambda: repository.walk(at), "version.fast-forward", "10003.snapshot.json")
    assert "at most 10002" in error.expected
    assert repository.walk(replace(at, snapshot=10_003)).floors.snapshot == 10_003


def test_builder_may_be_behind_the_people_on_first_contact() -> None:
    made = TufRepository()
    made.targets_version = 49_999
    made.files["49999.targets.json"] = made.files["1.targets.json"]
    made.publish({})
    walked = made.walk()
    assert (walked.floors.targets, walked.floors.snapshot, walked.floors.timestamp) == (50_000, 2, 2)
    refused(lambda: walk(made.pinned, made.read, Floors(targets=1)), "version.fast-forward", "50000.targets.json")


@pytest.mark.parametrize(
    ("name", "role"), [("1.root.json", "root"), ("2.targets.json", "targets"), ("timestamp.json", "timestamp")]
)
def test_first_expiry_is_told_with_its_role(repository: TufRepository, name: str, role: str) -> None:
    repository.edit(name, lasting("2026-01-03T00:00:00Z"))
    walked = repository.walk()
    assert walked.expires == ("2026-01-03T00:00:00Z", role)
    assert walked.is_expired is False


def test_first_expiry_may_be_the_snapshots(repository: TufRepository) -> None:
    rename_snapshot(repository, lasting("2026-01-03T00:00:00Z"))
    assert repository.walk().expires == ("2026-01-03T00:00:00Z", "snapshot")


@pytest.mark.parametrize(("expires", "is_expired"), [("03Z", True), ("04Z", True), ("05Z", True), ("06Z", False)])
def test_expiry_is_measured_by_the_proved_time(repository: TufRepository, expires: str, is_expired: bool) -> None:
    repository.edit("timestamp.json", lasting(f"2026-01-02T03:04:{expires}"))
    assert stated(NOW) == "2026-01-02T03:04:05Z"
    assert repository.walk().is_expired is is_expired


def test_proved_time_is_the_later_of_root_and_targets(repository: TufRepository) -> None:
    later = stated(NOW + timedelta(days=1))
    repository.edit("1.root.json", lambda signed: signed.update({"x-appliance-issued": later}))
    assert repository.walk().floors.time == later
    much = stated(NOW + timedelta(days=2))
    repository.edit("2.targets.json", lambda signed: signed.update({"x-appliance-issued": much}))
    assert repository.walk().floors.time == much
    assert repository.walk(Floors(time="2030-01-01T00:00:00Z")).floors.time == "2030-01-01T00:00:00Z"


def test_first_fault_is_told_where_no_source_is_good(repository: TufRepository) -> None:
    def nothing(_name: str, _most: int) -> None:
        return None

    old = TufRepository()
    floors = Floors(targets=2)
    refused(lambda: walk(repository.pinned, nothing, floors, [old.read]), "metadata.missing", "timestamp.json")
    refused(lambda: walk(repository.pinned, old.read, floors, [nothing]), "version.rollback", "1.targets.json")
    faults = walk(repository.pinned, nothing, floors, [old.read, repository.read]).passed_over
    assert [error.code for error in faults] == ["metadata.missing", "version.rollback"]


def test_newest_root_then_targets_then_snapshot_wins(repository: TufRepository) -> None:
    def read_all(first: TufRepository, second: TufRepository) -> list[Walked]:
        return [
            walk(repository.pinned, one.read, Floors(), [other.read])
            for one, other in ((first, second), (second, first))
        ]

    by_snapshot = TufRepository()
    by_snapshot.publish({})
    by_snapshot.put_snapshot(9)
    assert {one.floors.snapshot for one in read_all(repository, by_snapshot)} == {9}
    by_targets = TufRepository()
    by_targets.publish({})
    by_targets.publish({})
    assert {one.targets.version for one in read_all(by_snapshot, by_targets)} == {3}
    assert {one.floors.snapshot for one in read_all(by_snapshot, by_targets)} == {3}
    by_timestamp = TufRepository()
    by_timestamp.publish({})
    by_timestamp.edit("timestamp.json", spell(5))
    assert {one.floors.timestamp for one in read_all(repository, by_timestamp)} == {5}
    by_root = TufRepository()
    by_root.rotate(USUAL)
    assert {one.root.version for one in read_all(by_root, by_targets)} == {2}


def test_rotation_needs_the_thresholds_of_both_roots() -> None:
    people = replace(USUAL, root=keys("walk-root", 3))
    for by, code in (
        ((*USUAL.root[:2], *people.root[:1]), "signature.threshold"),
        ((*USUAL.root[:1], *people.root[:2]), "signature.threshold"),
        ((*USUAL.root[:2], *people.root[:2], key("nobody")), "signature.stranger"),
        ((*USUAL.root[:2], *people.root[:2], *USUAL.targets[:1]), "signature.stranger"),
    ):
        made = TufRepository()
        made.rotate(people, by=by)
        refused(made.walk, code, "2.root.json")
    made = TufRepository()
    made.rotate(people)
    assert made.walk().root.version == 2


def test_steps_are_taken_one_by_one_and_end_at_the_first_gap(repository: TufRepository) -> None:
    for _ in range(3):
        repository.rotate(USUAL)
    del repository.files["3.root.json"]
    assert repository.walk().root.version == 2
    refused(lambda: repository.walk(Floors(root=3)), "version.rollback", "root.json")


def test_rotations_have_an_end(repository: TufRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ROTATIONS == 1024
    monkeypatch.setattr(chain, "MAX_ROTATIONS", 3)
    for _ in range(2):
        repository.rotate(USUAL)
    assert repository.walk().root.version == 3
    repository.rotate(USUAL)
    error = refused(repository.walk, "root.too-many", "root.json")
    assert error.expected == "at most 3 rotations"


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_replaced_key_of_either_builders_role_resets_both_floors(repository: TufRepository, role: str) -> None:
    floors = replace(repository.walk().floors, timestamp=9_000, snapshot=9_000)
    refused(lambda: repository.walk(floors), "version.rollback", "timestamp.json")
    repository.rotate(USUAL)
    refused(lambda: repository.walk(floors), "version.rollback", "timestamp.json")
    second = key("second-builder")

    def give(signed: Signed) -> None:
        signed["keys"][second.public.key_id] = key_to_json(second.public)
        signed["roles"][role]["keyids"].append(second.public.key_id)

    repository.edit("2.root.json", give)
    after = repository.walk(floors).floors
    assert (after.root, after.timestamp, after.snapshot) == (2, 3, 3)
    refused(lambda: repository.walk(replace(floors, root=2)), "version.rollback", "timestamp.json")


def test_replaced_key_counts_whichever_of_the_unknown_roots_replaced_it(repository: TufRepository) -> None:
    floors = replace(repository.walk().floors, timestamp=9_000, snapshot=9_000)
    repository.rotate(replace(USUAL, builder=key("second-builder")))
    repository.rotate(repository.people)
    assert repository.walk(floors).floors.timestamp == 4
    refused(lambda: repository.walk(replace(floors, root=2)), "version.rollback", "timestamp.json")


def test_copies_of_earlier_roots_are_roots_of_their_version(repository: TufRepository) -> None:
    repository.rotate(USUAL)
    repository.rotate(USUAL)
    third = repository.files["3.root.json"]
    assert walk(third, repository.read, Floors()).root.version == 3
    for name in ("1.root.json", "2.root.json"):
        kept = dict(repository.files)
        repository.files[name] = b"{}"
        refused(lambda: walk(third, repository.read, Floors()), "metadata.refused", name)
        repository.files[name] = third
        refused(lambda: walk(third, repository.read, Floors()), "metadata.version", name)
        repository.files = kept
    del repository.files["1.root.json"]
    assert walk(third, repository.read, Floors()).root.version == 3
    del repository.files["2.root.json"]
    assert walk(third, repository.read, Floors()).root.version == 3


def test_another_root_of_the_pinned_version_is_told_apart_even_where_earlier_copies_are_missing() -> None:
    made = TufRepository()
    made.rotate(USUAL)
    pinned = made.files["2.root.json"]
    made.edit("2.root.json", lasting("2099-01-01T00:00:00Z"), by=USUAL.root[:2])
    del made.files["1.root.json"]
    refused(lambda: walk(pinned, made.read, Floors()), "root.differs", "2.root.json")
    made.files["2.root.json"] = pinned
    assert walk(pinned, made.read, Floors()).root.version == 2


def test_pinned_root_must_hold_its_own_threshold() -> None:
    made = TufRepository()
    for by, code in (
        (USUAL.root[:1], "signature.threshold"),
        ((), "signature.threshold"),
        (USUAL.targets[:2], "signature.stranger"),
    ):
        made.edit("1.root.json", lambda _: None, by=by)
        refused(made.walk, code, "pinned root")
    refused(lambda: walk(b"{}", made.read, Floors()), "metadata.refused", "pinned root")
    made.edit("1.root.json", spell(2))
    refused(lambda: walk(made.pinned, made.read, Floors()), "metadata.version", "1.root.json")


def test_copies_are_looked_for_as_far_back_as_rotations_are_followed() -> None:
    """A root whose version is huge would else be compared with more copies than there is time for."""
    made, asked = TufRepository(), list[str]()

    def read(name: str, most: int) -> bytes | None:
        asked.append(name)
        return made.read(name, most)

    for version, first in ((1 << 62, (1 << 62) - 1024), (1025, 1), (1024, 1)):
        made.edit("1.root.json", spell(version))
        pinned = made.files.pop("1.root.json")
        asked.clear()
        assert walk(pinned, read, Floors()).root.version == version
        roots = [name for name in asked if name.endswith("root.json")]
        assert roots == [f"{number}.root.json" for number in (*range(version, first - 1, -1), version + 1)]
        made.files["1.root.json"] = pinned
