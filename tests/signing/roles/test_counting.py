"""Which signatures of a file count: distinct keys of the role, each valid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from appliance.keys.signers.pem import PemKey
from appliance.keys.tuf_metadata import sign
from signing.digest import sha256
from signing.errors import NotTrustedError
from signing.roles import (
    FileMeta,
    Role,
    check_signatures,
    parse_root,
    parse_targets,
)
from signing.strictjson import load, to_file
from tests.signing.roles.changes import ENVELOPE, MADE, NAME, ROOT, put, refused, root, targets
from tests.sim.tuf import USUAL, key


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
