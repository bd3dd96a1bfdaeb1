"""What may lie beside the signed part of a file, and how long a file may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from signing.roles import (
    MAX_BYTES,
    Targets,
    parse_pointer,
    parse_root,
    parse_targets,
    read_pointer,
)
from signing.strictjson import load, to_file
from tests.signing.roles.changes import (
    MADE,
    READERS,
    ROOT,
    Change,
    drop,
    put,
    refused,
)


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


def test_what_a_file_names_is_read_without_its_signatures() -> None:
    data = MADE.files["timestamp.json"]
    role = ROOT.roles["timestamp"]
    named = parse_pointer(data, role, "timestamp", "snapshot.json", "file").file
    value = load(data, "timestamp")
    value["signatures"] = []
    assert read_pointer(to_file(value), "timestamp", "snapshot.json", "file") == named
    for kind, points_to in (("snapshot", "snapshot.json"), ("timestamp", "targets.json")):
        refused(lambda kind=kind, points_to=points_to: read_pointer(data, kind, points_to, "file"))  # type: ignore[misc]
