"""One scheme, strict signatures, computed key ids."""

from __future__ import annotations

import json

import pytest

from signing.errors import NotTrustedError
from signing.keys import key_from_json, key_from_spki, key_to_json
from tests.vectors import vectors


def test_every_wycheproof_p256_outcome_is_ours() -> None:
    [path] = [path for path in vectors("wycheproof").iterdir() if "secp256r1" in path.name or "p256" in path.name]
    count, wrong = 0, []
    for group in json.loads(path.read_text())["testGroups"]:
        key = key_from_spki(bytes.fromhex(group["publicKeyDer"]), "key")
        for case in group["tests"]:
            count += 1
            try:
                key.verify(bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]), "x")
                outcome = "valid"
            except NotTrustedError:
                outcome = "invalid"
            if outcome != case["result"]:
                wrong.append(case["tcId"])
    assert (count, wrong) == (484, [])


@pytest.fixture(scope="module")
def key_json() -> dict[str, object]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    value = key_to_json(key_from_spki(spki, "key"))
    assert isinstance(value, dict)
    return value


def test_key_reads_back_with_the_same_id(key_json: dict[str, object]) -> None:
    key = key_from_json(key_json, "key")
    assert key_to_json(key) == key_json


@pytest.mark.parametrize(
    "change",
    [
        {"keytype": "ed25519"},
        {"scheme": "ecdsa-sha2-nistp384"},
        {"keyval": {"public": "no key"}},
        {"keyval": {"public": "x", "private": "y"}},
        {"x-extra": 1},
    ],
)
def test_key_of_another_kind_is_refused(key_json: dict[str, object], change: dict[str, object]) -> None:
    with pytest.raises(NotTrustedError):
        key_from_json({**key_json, **change}, "key")


def test_second_spelling_of_the_same_key_is_refused(key_json: dict[str, object]) -> None:
    keyval = key_json["keyval"]
    assert isinstance(keyval, dict)
    with pytest.raises(NotTrustedError):
        key_from_json({**key_json, "keyval": {"public": keyval["public"] + "\n"}}, "key")


def test_p384_key_is_refused() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(NotTrustedError):
        key_from_spki(spki, "key")
