"""T13: a key, an algorithm or a kind of file that stands where another was asked for."""

from __future__ import annotations

import base64

import pytest

from appliance.keys.tuf_metadata import sign
from bundles.attestation.dsse import check_signers, pae, parse_envelope
from bundles.attestation.intoto import PAYLOAD_TYPE, STATEMENT_TYPE, parse_statement
from signing import roles
from signing.roles import Envelope
from signing.strictjson import load, to_file
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.tuf import USUAL, Signed

ROW = row(13)
OPEN_ENVELOPE = roles._open_envelope


def with_key(stick: Stick, **fields: object) -> None:
    """State something else about the first targets key, in a root that is signed."""

    def change(root: Signed) -> None:
        root["keys"][stick.repository.people.targets[0].public.key_id].update(fields)

    stick.repository.edit("1.root.json", change)
    stick.save()


def mislabel(stick: Stick) -> None:
    """What people signed as targets claims to be a snapshot."""
    repository = stick.repository
    value = {**repository.signed(repository.targets_name), "_type": "snapshot"}
    repository.put_targets(sign(value, repository.signers()), repository.targets_version)
    stick.save()


def test_unattacked_key_scheme_and_type_are_the_expected_ones(stick: Stick) -> None:
    with_key(stick)
    stick.verify()


@pytest.mark.parametrize(
    "fields",
    [
        {"keytype": "ed25519", "scheme": "ed25519"},
        {"keytype": "rsa", "scheme": "rsassa-pss-sha256"},
        {"scheme": "ecdsa-sha2-nistp384"},
        {"scheme": "none"},
        {"keyval": {"public": "c2VjcmV0", "private": ""}},
        {"keyid_hash_algorithms": ["sha256", "sha512"]},
    ],
    ids=str,
)
def test_attacked_by_a_key_of_another_kind(stick: Stick, fields: dict[str, object]) -> None:
    with_key(stick, **fields)
    refused(ROW, stick.verify, "key.refused", "pinned root")


def test_attacked_by_a_signed_file_of_another_type(stick: Stick) -> None:
    mislabel(stick)
    refused(ROW, stick.verify, "metadata.refused", "2.targets.json")


def test_attacked_by_a_pinned_file_that_is_no_root(stick: Stick) -> None:
    stick.root_file.write_bytes(stick.repository.files[stick.repository.targets_name])
    refused(ROW, stick.verify, "metadata.refused", "pinned root")


def test_attacked_by_an_envelope_with_a_payload_type_that_was_not_asked_for() -> None:
    signer = USUAL.targets[0]
    signature = base64.b64encode(signer.sign(pae("text/plain", b"{}"))).decode()
    value = {"payload": "e30=", "payloadType": "text/plain", "signatures": [{"sig": signature}]}
    assert parse_envelope(value, "text/plain", "x.dsse").payload == b"{}"
    refused(ROW, lambda: parse_envelope(value, PAYLOAD_TYPE, "x.dsse"), "envelope.payload-type", "x.dsse")
    # The type is under the signature: naming another one afterwards does not help.
    lied = parse_envelope({**value, "payloadType": PAYLOAD_TYPE}, PAYLOAD_TYPE, "x.dsse")
    refused(ROW, lambda: check_signers(lied, [signer.public], 1, "x.dsse"), "signature.stranger", "x.dsse")


def test_attacked_by_a_statement_with_a_predicate_that_was_not_asked_for() -> None:
    statement = to_file(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": "x", "digest": {"sha256": "0" * 64}}],
            "predicateType": "https://example.org/other",
            "predicate": {},
        }
    )
    act = lambda: parse_statement(statement, "https://example.org/asked", "x")  # noqa: E731
    refused(ROW, act, "statement.predicate-type", "x")


def test_unguarded_the_wrong_type_is_read_as_the_right_one(stick: Stick) -> None:
    def of_any_type(data: bytes, _kind: str, subject: str) -> Envelope:
        return OPEN_ENVELOPE(data, load(data, subject)["signed"]["_type"], subject)

    mislabel(stick)
    with guard_off(ROW.guard, of_any_type):
        stick.verify()
