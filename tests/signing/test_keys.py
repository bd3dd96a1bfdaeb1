"""One scheme, strict signatures, computed key ids; with `cryptography` and without."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from signing import keys, p256
from signing.errors import NotTrustedError
from signing.keys import OURS, PublicKey, Schemes, key_from_json, key_from_spki, key_to_json
from tests.vectors import vectors

TOP = Path(__file__).resolve().parents[2]
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture(params=["cryptography", "plain Python"])
def verifier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who checks signatures in this test."""
    if request.param == "plain Python":
        monkeypatch.setattr(keys, "check_signature", p256.check_signature)
    return str(request.param)


def test_every_wycheproof_p256_outcome_is_ours(verifier: str) -> None:
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


def agree(spki: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the signature holds; both verifiers must say the same."""
    said = []
    for check in (keys.check_signature, p256.check_signature):
        try:
            check(spki, signature, message)
            said.append(True)
        except ValueError:
            said.append(False)
    assert said[0] == said[1], (spki.hex(), signature.hex(), message.hex())
    return said[0]


@settings(max_examples=60, deadline=None)
@given(scalar=st.integers(1, ORDER - 1), message=st.binary(max_size=100), data=st.data())
def test_both_verifiers_agree_on_what_a_key_signed_and_on_every_change_of_it(
    scalar: int, message: bytes, data: st.DataObject
) -> None:
    private = ec.derive_private_key(scalar, ec.SECP256R1())
    spki = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signature = private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    assert agree(spki, signature, message)
    assert not agree(spki, signature, message + b"x")
    at = data.draw(st.integers(0, len(signature) - 1))
    changed = bytearray(signature)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert not agree(spki, bytes(changed), message)
    assert not agree(spki, signature[:at], message)


@settings(max_examples=100, deadline=None)
@given(signature=st.binary(max_size=80), r=st.integers(0, ORDER + 3), s=st.integers(0, ORDER + 3))
def test_no_made_up_signature_is_taken_by_either(signature: bytes, r: int, s: int) -> None:
    generator = ec.derive_private_key(1, ec.SECP256R1()).public_key()
    spki = generator.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert not agree(spki, signature, b"message")
    assert not agree(spki, encode_dss_signature(r, s), b"message")


@pytest.mark.parametrize("scalar", [1, 2, 3, ORDER - 1, ORDER - 2, (ORDER + 1) // 2])
def test_keys_whose_points_meet_the_generator_are_counted_right(scalar: int) -> None:
    """Where the two points of the sum are the same, or one is the other's negative, adding needs care."""
    private = ec.derive_private_key(scalar, ec.SECP256R1())
    spki = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for number in range(20):
        signature = private.sign(bytes([number]), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        assert agree(spki, signature, bytes([number]))
        r, s = decode_dss_signature(signature)
        assert agree(spki, encode_dss_signature(r, ORDER - s), bytes([number]))


def test_without_the_library_the_kernel_uses_plain_python() -> None:
    script = (
        "import sys; sys.modules['cryptography'] = None; sys.path.insert(0, sys.argv[1]);"
        "from signing import keys, p256; raise SystemExit(keys.check_signature is not p256.check_signature)"
    )
    assert subprocess.run([sys.executable, "-I", "-c", script, str(TOP)]).returncode == 0


@pytest.fixture(scope="module")
def key_json() -> dict[str, object]:
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


def test_second_encoding_of_the_same_key_is_refused(key_json: dict[str, object]) -> None:
    keyval = key_json["keyval"]
    assert isinstance(keyval, dict)
    with pytest.raises(NotTrustedError):
        key_from_json({**key_json, "keyval": {"public": keyval["public"] + "\n"}}, "key")


def test_p384_key_is_refused() -> None:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(NotTrustedError):
        key_from_spki(spki, "key")


def test_compressed_point_is_another_encoding_and_refused() -> None:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    spki = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
    serialization.load_der_public_key(spki)  # others take it
    with pytest.raises(NotTrustedError):
        key_from_spki(spki, "key")


def test_coordinate_above_the_field_is_another_encoding_and_refused() -> None:
    field = 2**256 - 2**224 + 2**192 + 2**96 - 1
    x, b = 5, 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    y = pow(x**3 - 3 * x + b, (field + 1) // 4, field)
    head = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
    key_from_spki(head + x.to_bytes(32, "big") + y.to_bytes(32, "big"), "key")
    with pytest.raises(NotTrustedError):
        key_from_spki(head + (x + field).to_bytes(32, "big") + y.to_bytes(32, "big"), "key")


def refused(value: object, expected: str, schemes: Schemes = OURS) -> None:
    with pytest.raises(NotTrustedError) as caught:
        key_from_json(value, "where", schemes)
    assert (caught.value.code, caught.value.subject, caught.value.expected) == ("key.refused", "where", expected)


FIELDS = "fields keytype, scheme, keyval"
TYPE = "ecdsa / ecdsa-sha2-nistp256"
KEYVAL = "keyval with the field public"
SPELLING = "a public key in its one PEM form"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"x-extra": 1}, FIELDS),
        ({"keytype": "rsa"}, TYPE),
        ({"keytype": "ECDSA"}, TYPE),
        ({"keytype": None}, TYPE),
        ({"keytype": ["ecdsa"]}, TYPE),
        ({"scheme": "ecdsa"}, TYPE),
        ({"scheme": None}, TYPE),
        ({"scheme": {}}, TYPE),
        ({"keyval": None}, KEYVAL),
        ({"keyval": []}, KEYVAL),
        ({"keyval": "public"}, KEYVAL),
        ({"keyval": {}}, KEYVAL),
        ({"keyval": {"private": ""}}, KEYVAL),
        ({"keyval": {"public": "", "private": ""}}, KEYVAL),
        ({"keyval": {"public": None}}, KEYVAL),
        ({"keyval": {"public": b""}}, KEYVAL),
        ({"keyval": {"public": ""}}, SPELLING),
        ({"keyval": {"public": "\ud83d\ude00"}}, SPELLING),
    ],
)
def test_refusal_of_a_key_says_what_would_be_one(
    key_json: dict[str, object], change: dict[str, object], expected: str
) -> None:
    refused({**key_json, **change}, expected)


def test_key_object_has_all_its_fields(key_json: dict[str, object]) -> None:
    for name in key_json:
        refused({other: value for other, value in key_json.items() if other != name}, FIELDS)
    for value in (None, [], "ecdsa", 1, list(key_json)):
        refused(value, FIELDS)


def test_well_spelled_pem_of_something_else_is_refused(key_json: dict[str, object]) -> None:
    refused({**key_json, "keyval": {"public": p256.pem_of(b"x" * 91)}}, "a P-256 public key in its one encoding")
    for spki in (b"", b"x" * 91):
        with pytest.raises(NotTrustedError) as caught:
            key_from_spki(spki, "where")
        assert (caught.value.code, caught.value.subject) == ("key.refused", "where")


def test_further_schemes_come_from_the_caller_alone(key_json: dict[str, object]) -> None:
    mine = key_from_json(key_json, "key")
    asked: list[tuple[object, str]] = []

    def reader(value: object, subject: str) -> PublicKey:
        asked.append((value, subject))
        return mine

    other = {**key_json, "keytype": "ed25519", "scheme": "ed25519"}
    assert key_from_json(other, "where", {("ed25519", "ed25519"): reader}) is mine
    assert asked == [(other, "where")]
    refused({**other, "scheme": "ed448"}, TYPE, {("ed25519", "ed25519"): reader})
    refused(other, TYPE)
    assert dict(OURS) == {}


def test_names_of_a_key_are_digests_of_what_the_standard_says(key_json: dict[str, object]) -> None:
    key = key_from_json(key_json, "key")
    spelled = json.dumps(key_json, sort_keys=True, separators=(",", ":")).encode().replace(b"\\n", b"\n")
    assert key.key_id == hashlib.sha256(spelled).hexdigest()
    assert key.fingerprint == hashlib.sha256(key.spki).hexdigest()
    assert key_to_json(key) == {
        "keytype": "ecdsa",
        "scheme": "ecdsa-sha2-nistp256",
        "keyval": {"public": p256.pem_of(key.spki)},
    }


def test_signature_that_is_none_is_refused_by_both_verifiers_and_named(verifier: str) -> None:
    private = ec.derive_private_key(7, ec.SECP256R1())
    spki = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    key = key_from_spki(spki, "key")
    made = private.sign(b"message", ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    key.verify(made, b"message", "file")
    for signature, message in (
        (b"", b"message"),
        (made + b"\0", b"message"),
        (made[:-1], b"message"),
        (made, b"other"),
    ):
        with pytest.raises(NotTrustedError) as caught:
            key.verify(signature, message, "file")
        assert (caught.value.code, caught.value.subject) == ("signature.invalid", "file")
        assert key.fingerprint[:16] in caught.value.expected


def test_the_longest_signature_is_taken_and_a_longer_one_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = encode_dss_signature(ORDER - 1, ORDER - 2)
    assert len(longest) == 72
    spki = (
        ec.derive_private_key(7, ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(ValueError, match="did not sign"):
        keys.check_signature(spki, longest, b"message")
    longer = encode_dss_signature(1 << 264, 1)
    assert encode_dss_signature(*decode_dss_signature(longer)) == longer
    for signature in (encode_dss_signature(1 << 520, 1), b"\x30" + b"\0" * 72):
        monkeypatch.setattr(keys, "decode_dss_signature", None)
        with pytest.raises(ValueError, match="not strict DER"):
            keys.check_signature(spki, signature, b"message")


def test_kernel_without_the_library_is_the_same_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for name in [name for name in sys.modules if name.startswith("cryptography.")]:
        monkeypatch.delitem(sys.modules, name)
    alone = ModuleType(keys.__name__)
    monkeypatch.setitem(sys.modules, keys.__name__, alone)
    assert keys.__spec__ is not None
    assert keys.__spec__.loader is not None
    alone.__file__ = keys.__file__
    keys.__spec__.loader.exec_module(alone)
    assert alone.check_signature is p256.check_signature
    assert keys.check_signature is not p256.check_signature


@pytest.mark.parametrize("check", [keys.check_signature, p256.check_signature])
def test_neither_verifier_takes_a_key_in_another_encoding(check: Callable[[bytes, bytes, bytes], None]) -> None:
    private = ec.derive_private_key(7, ec.SECP256R1())
    spki = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    made = private.sign(b"message", ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    check(spki, made, b"message")
    for other in (b"x" + spki[1:], spki[-65:], spki + b"\0", b"\0" + spki, spki[:26] + b"\2" + spki[27:]):
        with pytest.raises(ValueError, match="encoding"):
            check(other, made, b"message")


def test_algorithm_has_both_names_that_releases_of_cryptography_read() -> None:
    algorithm = keys._EcdsaSha256()
    assert algorithm.algorithm is algorithm._algorithm
