"""T116: a receipt that carries a text out of a site."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest

from appliance.keys.signers.pem import PemKey
from bundles.attestation.dsse import pae
from bundles.receipt import PAYLOAD_TYPE, Receipt, read_receipt
from signing.strictjson import Json, to_file
from tests.attacks.harness import guard_off, refused, row
from tests.receipts import make_key, receipt_of

ROW = row(116)
BUNDLE = {"manifest": "0" * 64, "name": "toy", "version": "1"}


@pytest.fixture
def key(tmp_path: Path) -> PemKey:
    return make_key(tmp_path)


def read(key: PemKey, **members: Json) -> Receipt:
    """Read a receipt with other members, which the host's own key signed."""
    payload = to_file({**json.loads(receipt_of(key).payload), **members})
    signature = {"keyid": key.public.key_id, "sig": b64encode(key.sign(pae(PAYLOAD_TYPE, payload))).decode()}
    value = {"payload": b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": [signature]}
    return read_receipt(to_file(value), {key.public.fingerprint}, "receipt")


def test_unattacked_receipt_with_the_given_words_is_read(key: PemKey) -> None:
    assert read(key, bundles=[BUNDLE], release="0" * 64, level="E2").level == "E2"


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("note", "the prompt of a user"),
        ("head", "the prompt of a user"),
        ("level", "the prompt of a user"),
        ("level", ["E1"]),
        ("release", "1" * 64),
        ("bundles", [BUNDLE, BUNDLE]),
        ("bundles", [{**BUNDLE, "note": "x"}]),
        ("bundles", {"a": "prompt"}),
        ("bundles", [{**BUNDLE, "manifest": f"{at:064x}"} for at in range(65)]),
    ],
)
def test_attacked_by_a_text_in_it(key: PemKey, member: str, value: Json) -> None:
    refused(ROW, lambda: read(key, **{member: value}), "receipt.refused", "receipt")


@pytest.mark.parametrize("name", ["two words", "a/b", "\u202e", "", "x" * 201])
def test_attacked_by_a_bundle_with_such_a_name(key: PemKey, name: str) -> None:
    refused(ROW, lambda: read(key, bundles=[{**BUNDLE, "name": name}]), "path.refused", repr(name)[:120])


def test_attacked_by_a_long_one(key: PemKey) -> None:
    refused(ROW, lambda: read(key, note="x" * (16 << 10)), "json.refused", "receipt")


def test_unguarded_the_text_leaves_with_it(key: PemKey) -> None:
    with guard_off(ROW.guard, lambda *_: None):
        assert read(key, note="the prompt of a user").counter == 1
