"""What root may state, and what every role states: versions, times, keys, thresholds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from signing.digest import sha256
from signing.keys import key_to_json
from signing.roles import (
    REVOKED_KEYS,
    FileMeta,
    TargetEntry,
)
from signing.strictjson import MAX_INT
from tests.signing.roles.changes import MADE, NAME, READERS, ROOT, Change, drop, put, refused, root, targets, timestamp
from tests.sim.tuf import STRANGERS, USUAL, Signed, stated
from tests.toy import NOW


def test_files_as_they_are_written_are_read() -> None:
    assert root(lambda _: None) == ROOT
    assert (ROOT.version, ROOT.issued, ROOT.profile, set(ROOT.roles)) == (
        1,
        stated(NOW),
        "",
        {"root", "timestamp", "snapshot", "targets"},
    )
    assert {name: (len(role.keys), role.threshold) for name, role in ROOT.roles.items()} == {
        "root": (3, 2),
        "targets": (3, 2),
        "snapshot": (1, 1),
        "timestamp": (1, 1),
    }
    data = MADE.files["2.snapshot.json"]
    assert timestamp(lambda _: None).file == FileMeta(2, len(data), sha256(data))
    assert targets(lambda _: None).entries == {NAME: TargetEntry(1, sha256(b"1"), "current", ())}
    for reader in READERS.values():
        assert reader(put("expires", value="2030-01-01T00:00:00Z")).expires == "2030-01-01T00:00:00Z"
        assert reader(put("version", value=7)).version == 7
    for stating in (root, targets):
        assert stating(put("x-appliance-issued", value="2030-01-01T00:00:00Z")).issued == "2030-01-01T00:00:00Z"


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("version", [1, 2, 10_000, MAX_INT])
def test_versions_begin_at_one(reader: Callable[[Change], Any], version: int) -> None:
    assert reader(put("version", value=version)).version == version


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("version", [0, -1, True, "1", None, [1]])
def test_other_versions_are_refused(reader: Callable[[Change], Any], version: object) -> None:
    refused(lambda: reader(put("version", value=version)))
    refused(lambda: reader(drop("version")))


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("spec", ["1.0.0", "1.0.34", "1.0.9999"])
def test_specification_is_one_point_nought(reader: Callable[[Change], Any], spec: str) -> None:
    reader(put("spec_version", value=spec))


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("spec", ["1.1.0", "2.0.0", "1.0", "1.0.", "1.0.12345", "1.0.3\n", "x1.0.3", "1x0.3", 1, None])
def test_other_specifications_are_refused(reader: Callable[[Change], Any], spec: object) -> None:
    refused(lambda: reader(put("spec_version", value=spec)))


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("kind", ["root", "timestamp", "snapshot", "targets", "mirrors", "", None, 1])
def test_file_of_another_role_is_refused(reader: Callable[[Change], Any], kind: object) -> None:
    own = next(name for name, value in READERS.items() if value is reader)
    if kind != own:
        refused(lambda: reader(put("_type", value=kind)))


TIMES = [
    "2026-1-02T03:04:05Z",
    "2026-01-02 03:04:05Z",
    "2026-01-02T03:04:05",
    "2026-01-02T03:04:05+00:00",
    "2026-01-02T03:04:05.5Z",
    "2026-01-02T03:04:05Z\n",
    " 2026-01-02T03:04:05Z",
    "22026-01-02T03:04:05Z",
    "2026-20-02T03:04:05Z",
    "2026-01-42T03:04:05Z",
    "2026-01-02T33:04:05Z",
    "2026-01-02T03:64:05Z",
    "2026-01-02T03:04:75Z",
    "٢026-01-02T03:04:05Z",
    "2026-00-02T03:04:05Z",
    "2026-13-02T03:04:05Z",
    "2026-01-00T03:04:05Z",
    "2026-02-29T03:04:05Z",
    "2026-04-31T03:04:05Z",
    "2026-01-02T24:00:00Z",
    "2026-12-31T23:59:60Z",
    "0000-01-01T00:00:00Z",
    "2026-01-02T03:04:05z",
    "2026-01-02X03:04:05Z",
    "2026-01-02t03:04:05z",
    "",
    None,
    20260102,
]


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("text", TIMES)
def test_times_have_one_spelling(reader: Callable[[Change], Any], text: object) -> None:
    refused(lambda: reader(put("expires", value=text)))
    if reader is not timestamp:
        refused(lambda: reader(put("x-appliance-issued", value=text)))


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2028-02-29T09:09:09Z"])
def test_times_are_texts_that_sort(text: str) -> None:
    assert targets(put("expires", value=text)).expires == text


def test_issue_time_is_required_of_those_who_sign_by_threshold() -> None:
    for reader in (root, targets):
        refused(lambda reader=reader: reader(drop("x-appliance-issued")))  # type: ignore[misc]
    timestamp(lambda _: None)


@pytest.mark.parametrize("ids", [[], ["0" * 64], ["0" * 64, "1" * 64]])
def test_root_lists_the_keys_that_it_revokes(ids: list[str]) -> None:
    assert root(put(REVOKED_KEYS, value=ids)).revoked == tuple(ids)
    assert root(lambda _: None).revoked == ()


@pytest.mark.parametrize("ids", [None, "0" * 64, {}, [0], [[]], ["1" * 64, "0" * 64], ["0" * 64, "0" * 64]])
def test_other_lists_of_revoked_keys_are_refused(ids: object) -> None:
    refused(lambda: root(put(REVOKED_KEYS, value=ids)))


@pytest.mark.parametrize("key_id", ["0" * 63, "A" * 64])
def test_revoked_key_is_a_key_id(key_id: str) -> None:
    refused(lambda: root(put(REVOKED_KEYS, value=[key_id])), code="digest.malformed")


def test_root_that_revokes_a_key_of_its_own_is_refused() -> None:
    refused(lambda: root(put(REVOKED_KEYS, value=[MADE.people.targets[2].public.key_id])))


@pytest.mark.parametrize("value", [False, None, 1, "true", []])
def test_root_says_that_snapshots_are_consistent(value: object) -> None:
    refused(lambda: root(put("consistent_snapshot", value=value)))
    refused(lambda: root(drop("consistent_snapshot")))


@pytest.mark.parametrize("profile", ["", "development"])
def test_root_has_no_profile_or_that_of_development(profile: str) -> None:
    assert root(put("x-appliance-profile", value=profile)).profile == profile
    assert root(drop("x-appliance-profile")).profile == ""


@pytest.mark.parametrize("profile", ["production", "Development", None, 0, False, ["development"], {}])
def test_other_profiles_are_refused(profile: object) -> None:
    refused(lambda: root(put("x-appliance-profile", value=profile)))


@pytest.mark.parametrize(
    "change",
    [
        drop("keys"),
        put("keys", value=[]),
        put("keys", value=1),
        drop("roles"),
        put("roles", value=[]),
        put("roles", value=1),
        put("roles", value=["root", "timestamp", "snapshot", "targets"]),
        drop("roles", "snapshot"),
        put("roles", "mirrors", value={"keyids": [], "threshold": 1}),
    ],
)
def test_root_has_keys_and_exactly_the_four_roles(change: Change) -> None:
    refused(lambda: root(change))


ROLE = ("roles", "targets")


@pytest.mark.parametrize(
    "change",
    [
        put(*ROLE, value=[]),
        put(*ROLE, value=1),
        put(*ROLE, value=["keyids", "threshold"]),
        put(*ROLE, "x", value=1),
        drop(*ROLE, "threshold"),
        drop(*ROLE, "keyids"),
        put(*ROLE, "keyids", value={}),
        put(*ROLE, "keyids", value=1),
        put(*ROLE, "keyids", value="ab"),
        put(*ROLE, "keyids", value=[]),
        put(*ROLE, "keyids", 0, value="0" * 64),
        put(*ROLE, "keyids", 0, value=0),
        put(*ROLE, "keyids", 0, value=["a"]),
        put(*ROLE, "keyids", 0, value=None),
        lambda signed: signed["roles"]["targets"]["keyids"].append(signed["roles"]["targets"]["keyids"][0]),
        put(*ROLE, "threshold", value=0),
        put(*ROLE, "threshold", value=-1),
        put(*ROLE, "threshold", value=4),
        put(*ROLE, "threshold", value=MAX_INT),
        put(*ROLE, "threshold", value=True),
        put(*ROLE, "threshold", value="2"),
        put(*ROLE, "threshold", value=None),
    ],
)
def test_role_is_distinct_known_keys_and_a_threshold_that_they_can_reach(change: Change) -> None:
    refused(lambda: root(change), "file role targets")


def test_every_key_may_have_to_sign() -> None:
    assert root(put(*ROLE, "threshold", value=3)).roles["targets"].threshold == 3
    assert root(put(*ROLE, "threshold", value=1)).roles["targets"].threshold == 1


def test_key_id_that_is_not_its_keys_digest_is_refused() -> None:
    def rename(signed: Signed) -> None:
        own = signed["roles"]["targets"]["keyids"][0]
        signed["keys"]["f" * 64] = signed["keys"].pop(own)
        signed["roles"]["targets"]["keyids"][0] = "f" * 64

    refused(lambda: root(rename))


def test_key_that_no_role_uses_is_read_all_the_same() -> None:
    other = STRANGERS.root[0].public
    assert root(put("keys", other.key_id, value=key_to_json(other))) == ROOT
    refused(lambda: root(put("keys", other.key_id, value={})), code="key.refused")


@pytest.mark.parametrize("office", ["root", "targets"])
@pytest.mark.parametrize("builders", ["snapshot", "timestamp"])
def test_builders_key_is_in_neither_office_of_the_people(office: str, builders: str) -> None:
    def give(signed: Signed) -> None:
        signed["roles"][builders] = {"keyids": [USUAL.targets[2].public.key_id], "threshold": 1}
        if office == "root":
            signed["roles"][builders] = {"keyids": [USUAL.root[2].public.key_id], "threshold": 1}

    refused(lambda: root(give))
