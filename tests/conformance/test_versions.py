"""Our client against versions, expiry and bytes that do not fit: nothing older, nothing mixed, nothing expired."""

from __future__ import annotations

import json

import pytest

from signing.roles import MAX_BYTES
from tests.conformance.conftest import Client, Server
from tests.conformance.publisher import EVERY, PAST, Publisher, signer

FIRST = {"root": 1, "targets": 1, "snapshot": 1, "timestamp": 1}


@pytest.fixture(params=[False, True], ids=["versions only", "with hashes"])
def either(request: pytest.FixtureRequest, server: Server, client: Client) -> Publisher:
    """A repository whose pointers state lengths and hashes, or do not; the client trusts its first root."""
    server.publisher = Publisher(has_hashes=request.param)
    assert client.init(server.publisher.files["metadata/1.root.json"]) == 0
    return server.publisher


def test_timestamp_rollback(client: Client, either: Publisher) -> None:
    either.publish("timestamp")
    assert client.refresh() == 0
    either.timestamp.version = 1
    either.publish("timestamp", bump=False)
    either.asked.clear()
    assert client.refresh() == 1
    assert client.versions()["timestamp"] == 2
    assert either.asked[-1] == "metadata/timestamp.json"


def test_snapshot_rollback_is_seen_in_the_timestamp(client: Client, either: Publisher) -> None:
    either.publish("snapshot", "timestamp")
    assert client.refresh() == 0
    either.snapshot.version = 1
    either.publish("snapshot", bump=False)
    either.publish("timestamp")
    assert client.refresh() == 1
    assert client.versions() == {**FIRST, "snapshot": 2, "timestamp": 2}
    assert either.asked[-1] == "metadata/timestamp.json"


def test_targets_rollback_is_seen_in_the_snapshot(client: Client, either: Publisher) -> None:
    either.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    either.targets.version = 1
    either.publish("targets", bump=False)
    either.publish("snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.versions() == {**FIRST, "targets": 2, "snapshot": 2, "timestamp": 3}
    assert either.asked[-1] == "metadata/3.snapshot.json"


@pytest.mark.parametrize("version", [1, 3])
def test_root_of_another_version_than_its_name(client: Client, publisher: Publisher, version: int) -> None:
    publisher.root.version = version
    publisher.put("root", 2, publisher.sign("root", publisher.root))
    assert client.refresh() == 1
    assert client.versions() == {"root": 1}


def test_timestamp_of_the_version_that_is_kept_changes_nothing_whatever_is_in_it(
    client: Client, publisher: Publisher
) -> None:
    assert client.refresh() == 0
    publisher.timestamp.snapshot_meta.version = 100
    publisher.publish("timestamp", bump=False)
    publisher.asked.clear()
    assert client.refresh() == 0
    assert client.versions() == FIRST
    assert publisher.asked[-1] == "metadata/timestamp.json"
    kept = json.loads((client.metadata / "timestamp.json").read_bytes())
    assert kept["signed"]["meta"]["snapshot.json"]["version"] == 1


@pytest.mark.parametrize(("role", "kept"), [("snapshot", {"root", "timestamp"}), ("targets", {*EVERY} - {"targets"})])
def test_file_of_another_version_than_named(client: Client, publisher: Publisher, role: str, kept: set[str]) -> None:
    getattr(publisher, role).version = 2
    publisher.put(role, 1, publisher.sign(role, getattr(publisher, role)))
    assert client.refresh() == 1
    assert set(client.versions()) == kept


def test_new_targets_that_no_snapshot_names_are_not_asked_for(client: Client, publisher: Publisher) -> None:
    assert client.refresh() == 0
    publisher.publish("targets")
    assert client.refresh() == 0
    assert client.versions() == FIRST


def test_refresh_goes_on_where_it_was_broken_off(client: Client, publisher: Publisher) -> None:
    snapshot = publisher.files.pop("metadata/1.snapshot.json")
    assert client.refresh() == 1
    assert client.versions() == {"root": 1, "timestamp": 1}
    publisher.files["metadata/1.snapshot.json"] = snapshot
    assert client.refresh() == 0
    assert client.versions() == FIRST


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_fast_forward_is_recovered_from_by_new_keys(client: Client, either: Publisher, role: str) -> None:
    getattr(either, role).version = 99_998
    either.publish(*(("snapshot", "timestamp") if role == "snapshot" else ("timestamp",)))
    assert client.refresh() == 0
    assert client.versions()[role] == 99_999
    getattr(either, role).version = 0
    either.publish("snapshot", "timestamp")
    assert client.refresh() == 1
    either.replace("timestamp", signer("timestamp-2"))
    either.replace("snapshot", signer("snapshot-2"))
    either.publish("root", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.versions()[role] == 2


def test_fast_forward_of_targets_is_recovered_from_by_a_new_snapshot_key(client: Client, either: Publisher) -> None:
    either.targets.version = 99_998
    either.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    either.targets.version = 0
    either.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.versions()["targets"] == 99_999
    either.replace("snapshot", signer("snapshot-2"))
    either.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.versions()["targets"] == 2


def test_expired_root_is_kept_and_nothing_after_it_is_asked_for(ours: Client, publisher: Publisher) -> None:
    # python-tuf fetches the timestamp before it judges the root.
    assert ours.refresh() == 0
    publisher.root.expires = PAST
    publisher.publish(*EVERY)
    assert ours.refresh() == 1
    assert ours.versions() == {**FIRST, "root": 2}
    assert publisher.asked[-1] == "metadata/3.root.json"


def test_expired_root_on_the_way_does_not_matter(client: Client, publisher: Publisher) -> None:
    later, publisher.root.expires = publisher.root.expires, PAST
    publisher.publish("root")
    publisher.root.expires = later
    publisher.publish("root")
    assert client.refresh() == 0
    assert client.versions()["root"] == 3


@pytest.mark.parametrize(
    ("role", "kept"),
    [
        ("timestamp", FIRST),
        ("snapshot", {**FIRST, "timestamp": 2}),
        ("targets", {**FIRST, "timestamp": 2, "snapshot": 2}),
    ],
)
def test_expired_file_is_not_kept(client: Client, publisher: Publisher, role: str, kept: dict[str, int]) -> None:
    assert client.refresh() == 0
    getattr(publisher, role).expires = PAST
    publisher.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.versions() == kept


def test_what_has_expired_in_the_store_is_still_the_floor_and_no_obstacle(client: Client, publisher: Publisher) -> None:
    assert client.refresh() == 0
    later = publisher.timestamp.expires
    publisher.timestamp.expires = PAST
    expired = publisher.sign("timestamp", publisher.timestamp)
    (client.metadata / "timestamp.json").write_bytes(expired)
    publisher.files["metadata/timestamp.json"] = expired
    assert client.refresh() == 1, "the same timestamp again, and it has expired"
    publisher.timestamp.expires = later
    publisher.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.versions() == dict.fromkeys(EVERY, 2) | {"root": 1}


@pytest.mark.parametrize("wrong", ["hash", "length"])
@pytest.mark.parametrize(("role", "kept"), [("snapshot", {"root", "timestamp"}), ("targets", {*EVERY} - {"targets"})])
def test_file_of_another_hash_or_length_than_named(
    server: Server, client: Client, role: str, kept: set[str], wrong: str
) -> None:
    publisher = server.publisher = Publisher(has_hashes=True)
    meta = publisher.timestamp.snapshot_meta if role == "snapshot" else publisher.snapshot.meta["targets.json"]
    assert meta.hashes is not None
    assert meta.length is not None
    if wrong == "hash":
        meta.hashes["sha256"] = "0" * 64
    else:
        meta.length -= 1
    publisher.publish(*(("timestamp",) if role == "snapshot" else ("snapshot", "timestamp")), bump=False)
    assert client.init(publisher.files["metadata/1.root.json"]) == 0
    assert client.refresh() == 1
    assert set(client.versions()) == kept


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("2.root.json", {"root"}),
        ("timestamp.json", {"root"}),
        ("1.snapshot.json", {"root", "timestamp"}),
        ("1.targets.json", {*EVERY} - {"targets"}),
    ],
)
@pytest.mark.parametrize("fault", ["too long", "missing", "not JSON", "empty"])
def test_file_that_cannot_be_one(client: Client, publisher: Publisher, name: str, kept: set[str], fault: str) -> None:
    path = f"metadata/{name}"
    role = name.removesuffix(".json").rpartition(".")[2]
    if fault == "missing":
        publisher.files.pop(path, None)
    else:
        data = {"not JSON": b"{", "empty": b""}.get(fault)
        publisher.files[path] = publisher.files["metadata/1.root.json"] if data is None else data
        if fault == "too long":
            publisher.files[path] += b" " * MAX_BYTES[role]
    is_end_of_roots = fault == "missing" and role == "root"
    assert client.refresh() == (0 if is_end_of_roots else 1)
    assert set(client.versions()) == (set(EVERY) if is_end_of_roots else kept)


def test_repository_without_consistent_snapshots(client: Client, publisher: Publisher) -> None:
    publisher.files = {name: data for name, data in publisher.files.items() if name.endswith(".root.json")}
    publisher.root.consistent_snapshot = False
    publisher.add_target("a/b.txt", b"b")
    publisher.publish(*EVERY)
    assert client.download("a/b.txt") == 0
    assert client.downloaded() == [b"b"]
    assert publisher.asked[-3:] == ["metadata/snapshot.json", "metadata/targets.json", "targets/a/b.txt"]


def test_new_keys_of_the_builder_make_the_store_forget_what_the_old_ones_signed(
    ours: Client, publisher: Publisher
) -> None:
    # python-tuf leaves the files where they are and does not use them.
    assert ours.refresh() == 0
    publisher.replace("timestamp", signer("timestamp-2"))
    publisher.publish("root")
    assert ours.refresh() == 1
    assert ours.versions() == {"root": 2, "targets": 1}
