"""What the four roles' files may say: every field, its limits, and the counting of signatures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from appliance.keys.metadata import sign
from appliance.keys.signers.pem import PemKey
from signing.digest import sha256
from signing.errors import NotTrustedError
from signing.keys import key_to_json
from signing.roles import (
    MAX_BYTES,
    FileMeta,
    Pointer,
    Role,
    Root,
    TargetEntry,
    Targets,
    check_signatures,
    parse_pointer,
    parse_root,
    parse_targets,
)
from signing.strictjson import MAX_INT, load, to_file
from tests.sim.tuf import STRANGERS, USUAL, Signed, TufRepository, entry, key, stated
from tests.toy import NOW

MADE = TufRepository()
MADE.publish({"bundles/a/1/manifest.json": entry(b"1")})
ROOT, ENVELOPE = parse_root(MADE.pinned, "root")
Change = Callable[[Signed], object]


def put(*path: str | int, value: Any) -> Change:
    """A change that puts a value at a place."""

    def change(signed: Any) -> None:
        for part in path[:-1]:
            signed = signed[part]
        signed[path[-1]] = value

    return change


def drop(*path: str) -> Change:
    """A change that takes a field away."""

    def change(signed: Any) -> None:
        for part in path[:-1]:
            signed = signed[part]
        del signed[path[-1]]

    return change


def changed(name: str, change: Change) -> bytes:
    """A file of the repository, changed and signed again by its own people."""
    value = MADE.signed(name)
    change(value)
    return sign(value, MADE.signers(name.removesuffix(".json").rpartition(".")[2]))


def root(change: Change) -> Root:
    return parse_root(changed("1.root.json", change), "file")[0]


def timestamp(change: Change) -> Pointer:
    return parse_pointer(
        changed("timestamp.json", change), ROOT.roles["timestamp"], "timestamp", "snapshot.json", "file"
    )


def targets(change: Change) -> Targets:
    return parse_targets(changed("2.targets.json", change), ROOT.roles["targets"], "file")[0]


READERS: dict[str, Callable[[Change], Any]] = {"root": root, "timestamp": timestamp, "targets": targets}
NAME = "bundles/a/1/manifest.json"
META = ("meta", "snapshot.json")
ENTRY = ("targets", NAME)


def refused(act: Callable[[], object], subject: str = "file", code: str = "metadata.refused") -> NotTrustedError:
    with pytest.raises(NotTrustedError) as caught:
        act()
    assert (caught.value.code, caught.value.subject) == (code, subject)
    return caught.value


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


@pytest.mark.parametrize(
    "change",
    [
        drop("meta"),
        put("meta", value=[]),
        put("meta", value=1),
        put("meta", value=["snapshot.json"]),
        put("meta", value={}),
        put("meta", "other.json", value={}),
        put(*META, value=[]),
        put(*META, value=1),
        put(*META, value=["version", "length", "hashes"]),
        put(*META, "x", value=1),
        drop(*META, "version"),
        drop(*META, "length"),
        drop(*META, "hashes"),
        put(*META, "version", value=0),
        put(*META, "version", value=True),
        put(*META, "length", value=-1),
        put(*META, "length", value="1"),
        put(*META, "length", value=None),
        put(*META, "hashes", value=[]),
        put(*META, "hashes", value=1),
        put(*META, "hashes", value=["sha256"]),
        put(*META, "hashes", value={}),
        put(*META, "hashes", "sha512", value="0" * 128),
        put(*META, "hashes", value={"sha512": "0" * 128}),
        lambda signed: signed["meta"].update({"targets.json": signed["meta"].pop("snapshot.json")}),
    ],
)
def test_pointer_names_one_file_by_version_length_and_sha256(change: Change) -> None:
    refused(lambda: timestamp(change))


def test_pointers_limits_are_taken() -> None:
    assert timestamp(put(*META, "version", value=1)).file.version == 1
    assert timestamp(put(*META, "length", value=0)).file.length == 0
    refused(lambda: timestamp(put(*META, "hashes", "sha256", value="A" * 64)), code="digest.malformed")


def test_pointers_own_version_and_its_files_are_not_confused() -> None:
    pointer = timestamp(lambda signed: (put("version", value=5)(signed), put(*META, "version", value=9)(signed)))
    assert (pointer.version, pointer.file.version) == (5, 9)


@pytest.mark.parametrize("value", [None, {}, {"keys": {}, "roles": []}, []])
def test_delegations_are_refused_even_empty_ones(value: object) -> None:
    refused(lambda: targets(put("delegations", value=value)))


@pytest.mark.parametrize("value", [[], None, "x", 1])
def test_targets_are_an_object(value: object) -> None:
    refused(lambda: targets(put("targets", value=value)))
    refused(lambda: targets(drop("targets")))


@pytest.mark.parametrize(
    "change",
    [
        put(*ENTRY, value=[]),
        put(*ENTRY, value=1),
        put(*ENTRY, value=["length", "hashes", "custom"]),
        put(*ENTRY, "x", value=1),
        drop(*ENTRY, "length"),
        drop(*ENTRY, "hashes"),
        drop(*ENTRY, "custom"),
        put(*ENTRY, "custom", value=[]),
        put(*ENTRY, "custom", value=1),
        put(*ENTRY, "custom", value=["status", "statements"]),
        put(*ENTRY, "custom", "x", value=1),
        drop(*ENTRY, "custom", "status"),
        drop(*ENTRY, "custom", "statements"),
        put(*ENTRY, "custom", "status", value="revokedx"),
        put(*ENTRY, "custom", "status", value=""),
        put(*ENTRY, "custom", "status", value=None),
        put(*ENTRY, "custom", "status", value=["current"]),
        put(*ENTRY, "custom", "status", value={}),
        put(*ENTRY, "custom", "statements", value={}),
        put(*ENTRY, "custom", "statements", value="sbom"),
        put(*ENTRY, "custom", "statements", value=1),
        put(*ENTRY, "custom", "statements", value=["sbom", 1]),
        put(*ENTRY, "custom", "statements", value=[None]),
        put(*ENTRY, "length", value=-1),
        put(*ENTRY, "length", value=(4 << 20) + 1),
        put(*ENTRY, "length", value=True),
        put(*ENTRY, "length", value="1"),
        put(*ENTRY, "hashes", value={}),
        put(*ENTRY, "hashes", value=[]),
        put(*ENTRY, "hashes", "md5", value="0" * 32),
    ],
)
def test_entry_of_another_form_is_refused_and_its_target_named(change: Change) -> None:
    refused(lambda: targets(change), f"file {NAME}")


def test_entrys_limits_are_taken() -> None:
    for length in (0, 4 << 20):
        assert targets(put(*ENTRY, "length", value=length)).entries[NAME].length == length
    for status in ("current", "allowed", "revoked"):
        assert targets(put(*ENTRY, "custom", "status", value=status)).entries[NAME].status == status
    made = targets(put(*ENTRY, "custom", "statements", value=["b", "a"]))
    assert made.entries[NAME].statements == ("b", "a")
    refused(lambda: targets(put(*ENTRY, "hashes", "sha256", value="0")), f"file {NAME}", "digest.malformed")
    assert targets(put("targets", value={})).entries == {}


def outside(change: Callable[[Any], object]) -> bytes:
    """A targets file whose signatures, or what lies beside them, were changed after signing."""
    value = load(MADE.files["2.targets.json"], "targets")
    change(value)
    return to_file(value)


def read_outside(change: Callable[[Any], object]) -> tuple[Targets, tuple[Any, ...]]:
    return parse_targets(outside(change), ROOT.roles["targets"], "file")


@pytest.mark.parametrize(
    "change",
    [
        drop("signatures"),
        drop("signed"),
        put("more", value=1),
        put("signed", value=[]),
        put("signed", value=None),
        put("signatures", value={}),
        put("signatures", value=None),
        put("signatures", 0, value=[]),
        put("signatures", 0, value=1),
        put("signatures", 0, value=["keyid", "sig"]),
        put("signatures", 0, value="sig"),
        put("signatures", 0, "x", value=1),
        drop("signatures", 0, "sig"),  # type: ignore[arg-type]
        drop("signatures", 0, "keyid"),  # type: ignore[arg-type]
        put("signatures", 0, "sig", value=""),
        put("signatures", 0, "sig", value="0"),
        put("signatures", 0, "sig", value="000"),
        put("signatures", 0, "sig", value="AB"),
        put("signatures", 0, "sig", value="0x"),
        put("signatures", 0, "sig", value="00\n"),
        put("signatures", 0, "sig", value="ab" * 81),
        put("signatures", 0, "sig", value=None),
        put("signatures", 0, "sig", value=["ab"]),
        put("signatures", 0, "sig", value=0),
    ],
)
def test_envelope_of_another_form_is_refused(change: Change) -> None:
    refused(lambda: read_outside(change))


@pytest.mark.parametrize("value", [[], 1, None, "signed", "x" * 20])
def test_envelope_is_an_object(value: object) -> None:
    refused(lambda: parse_root(to_file(value), "file"))


@pytest.mark.parametrize("key_id", ["", "0" * 63, None, 0, ["a"]])
def test_key_id_of_a_signature_is_a_digest(key_id: object) -> None:
    refused(lambda: read_outside(put("signatures", 0, "keyid", value=key_id)), code="digest.malformed")


@pytest.mark.parametrize("length", [1, 80])
def test_signature_of_any_length_up_to_eighty_bytes_is_looked_at(length: int) -> None:
    refused(lambda: read_outside(put("signatures", 0, "sig", value="ab" * length)), code="signature.invalid")


@pytest.mark.parametrize(("count", "code"), [(64, "signature.stranger"), (65, "metadata.refused")])
def test_at_most_sixty_four_signatures_are_looked_at(count: int, code: str) -> None:
    many = [{"keyid": f"{number:064x}", "sig": "00"} for number in range(count)]
    refused(lambda: read_outside(put("signatures", value=many)), code=code)


@pytest.mark.parametrize(
    ("role", "most"), [("root", 256 << 10), ("timestamp", 16 << 10), ("snapshot", 64 << 10), ("targets", 4 << 20)]
)
def test_file_may_be_as_long_as_its_roles_cap(role: str, most: int) -> None:
    def read(data: bytes) -> object:
        if role == "root":
            return parse_root(data, "file")
        if role == "targets":
            return parse_targets(data, ROOT.roles["targets"], "file")
        return parse_pointer(data, ROOT.roles[role], role, "snapshot.json", "file")

    assert MAX_BYTES[role] == most
    for length, expected in ((most, "strict JSON"), (most + 1, f"at most {most} bytes")):
        error = refused(lambda length=length: read(b" " * length), code="json.refused")  # type: ignore[misc]
        assert error.expected == expected


def test_unknown_fields_are_signed_and_otherwise_let_alone() -> None:
    for reader in READERS.values():
        reader(put("x-more", value={"a": [1, None, "é"]}))


def by(*signers: PemKey, others: tuple[Role, ...] = (), role: Role | None = None) -> list[str]:
    data = sign(MADE.signed("2.targets.json"), signers)
    envelope = parse_root(MADE.pinned, "root")[1]
    value = load(data, "x")
    pairs = tuple((one["keyid"], bytes.fromhex(one["sig"])) for one in value["signatures"])
    envelope = replace(envelope, signed=value["signed"], signatures=pairs)
    found = check_signatures(envelope, role or ROOT.roles["targets"], "file", others)
    return [one.fingerprint for one in found]


def test_distinct_keys_of_the_role_are_counted_in_the_order_of_the_file() -> None:
    for signers in (USUAL.targets[:2], USUAL.targets[1:], USUAL.targets):
        ordered = sorted(signers, key=lambda one: one.public.key_id)
        assert by(*signers) == [one.public.fingerprint for one in ordered]


def test_fewer_than_the_threshold_are_refused_whoever_else_signed() -> None:
    for signers in ((), USUAL.targets[:1]):
        error = refused(lambda signers=signers: by(*signers), code="signature.threshold")  # type: ignore[misc]
        assert error.found == f"{len(signers)} of 2"
    others = (ROOT.roles["root"],)
    refused(lambda: by(USUAL.targets[0], *USUAL.root, others=others), code="signature.threshold")
    assert len(by(*USUAL.targets[:2], *USUAL.root, others=others)) == 2


def test_stranger_is_refused_even_beside_enough_others() -> None:
    refused(lambda: by(*USUAL.targets, key("nobody")), code="signature.stranger")
    refused(lambda: by(*USUAL.targets, USUAL.root[0]), code="signature.stranger")
    refused(lambda: by(*USUAL.targets, USUAL.root[0], others=(ROOT.roles["snapshot"],)), code="signature.stranger")


def test_one_key_under_two_ids_counts_once() -> None:
    """No root says that, because an id is the digest of its key: this is the second lock."""
    own = ROOT.roles["targets"].keys
    twice = Role({**own, "f" * 64: USUAL.targets[0].public}, 2)
    value = load(sign(MADE.signed("2.targets.json"), USUAL.targets[:1]), "x")
    [(key_id, signature)] = [(one["keyid"], bytes.fromhex(one["sig"])) for one in value["signatures"]]
    envelope = replace(ENVELOPE, signed=value["signed"], signatures=((key_id, signature), ("f" * 64, signature)))
    refused(lambda: check_signatures(envelope, twice, "file"), code="signature.threshold")
    with pytest.raises(NotTrustedError):
        root(lambda signed: signed["roles"]["targets"].update(keyids=[*own, "f" * 64]))


def test_every_signature_in_a_file_must_hold() -> None:
    def spoil(value: Any) -> None:
        value["signatures"][0]["sig"] = value["signatures"][1]["sig"]

    data = sign(MADE.signed("2.targets.json"), USUAL.targets)
    value = load(data, "x")
    spoil(value)
    refused(lambda: parse_targets(to_file(value), ROOT.roles["targets"], "file"), code="signature.invalid")
    value["signatures"][0] = value["signatures"][1]
    refused(lambda: parse_targets(to_file(value), ROOT.roles["targets"], "file"))


def test_refusals_show_no_more_than_a_line() -> None:
    long = "x" * 100_000
    for change in (put("version", value=long), put("expires", value=long), put("x-appliance-profile", value=long)):
        assert len(refused(lambda change=change: root(change)).found) <= 60  # type: ignore[misc]


def test_file_is_covered_by_its_length_and_its_digest_together() -> None:
    data = b"bytes"
    assert FileMeta(1, 5, sha256(data)).covers(data)
    for meta in (FileMeta(1, 4, sha256(data)), FileMeta(1, 5, sha256(b"other")), FileMeta(1, 6, sha256(b""))):
        assert not meta.covers(data)


def test_thousands_of_targets_are_not_spelled_out_in_a_traceback() -> None:
    assert NAME not in repr(targets(lambda _: None))
