"""T30: keys and signatures that only a careless library would take."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from appliance.keys.signers.pem import PemKey
from signing import p256
from signing.digest import sha256
from signing.keys import KEY_TYPE, SCHEME, PublicKey
from signing.strictjson import load, to_file, to_signing
from tests.attacks.harness import AGREES, Stick, guard_off, refused, row
from tests.sim.tuf import Signed

ROW = row(30)
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def to_json(spki: bytes) -> Signed:
    public = serialization.load_der_public_key(spki)
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return {"keytype": KEY_TYPE, "scheme": SCHEME, "keyval": {"public": pem.decode()}}


def weak_key() -> PemKey:
    """A key on a smaller curve, under the name of ours."""
    private = ec.generate_private_key(ec.SECP224R1())
    spki = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PemKey(private, PublicKey(sha256(to_signing(to_json(spki))), sha256(spki), spki))


def check_on_any_curve(spki: bytes, signature: bytes, message: bytes) -> None:
    """What a careless check does: the key decides which curve counts."""
    key = serialization.load_der_public_key(spki)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(signature, message, ec.ECDSA(hashes.SHA256()))


def use_weak_key(stick: Stick) -> None:
    weak, people = weak_key(), stick.repository.people

    def add(root: Signed) -> None:
        root["keys"][weak.public.key_id] = to_json(weak.public.spki)
        root["roles"]["targets"] = {"keyids": [weak.public.key_id], "threshold": 1}

    # Signers check what they have signed; this one's program is not ours.
    with guard_off("signing.keys.check_signature", check_on_any_curve):
        stick.repository.edit("1.root.json", add)
        stick.repository.people = replace(people, targets=(weak,), targets_threshold=1)
        stick.repository.edit(stick.repository.targets_name, lambda _: None)
    stick.save()


def use_point(stick: Stick, change: Callable[[bytes], bytes]) -> None:
    """Change the public point of the first root key; the root is signed by the others."""
    repository = stick.repository
    victim = repository.people.root[2].public
    spki = change(victim.spki)
    body = base64.b64encode(spki).decode()
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    pem = f"-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n"
    value = {"keytype": KEY_TYPE, "scheme": SCHEME, "keyval": {"public": pem}}
    key_id = sha256(to_signing(value))

    def put(root: Signed) -> None:
        del root["keys"][victim.key_id]
        root["keys"][key_id] = value
        ids = [key_id if one == victim.key_id else one for one in root["roles"]["root"]["keyids"]]
        root["roles"]["root"]["keyids"] = sorted(ids)

    repository.edit("1.root.json", put)
    stick.save()


def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signing.keys.check_signature", p256.check_signature)


def respell(stick: Stick, change: Callable[[bytes], bytes]) -> None:
    """Write the signatures on targets in another form."""
    repository = stick.repository
    value = load(repository.files[repository.targets_name], "targets")
    for signature in value["signatures"]:
        signature["sig"] = change(bytes.fromhex(signature["sig"])).hex()
    repository.put_targets(to_file(value), repository.targets_version)
    stick.save()


def long_length(sig: bytes) -> bytes:
    return sig[:1] + b"\x81" + sig[1:]


def padded_integer(sig: bytes) -> bytes:
    return bytes([sig[0], sig[1] + 1, sig[2], sig[3] + 1, 0]) + sig[4:]


def tail(sig: bytes) -> bytes:
    return sig + b"\0"


def raw(sig: bytes) -> bytes:
    r, s = decode_dss_signature(sig)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def zero(_sig: bytes) -> bytes:
    return bytes.fromhex("3006020100020100")


def order(_sig: bytes) -> bytes:
    number = b"\0" + ORDER.to_bytes(32, "big")
    return b"\x30\x46\x02\x21" + number + b"\x02\x21" + number


def test_unattacked_keys_and_signatures_pass(stick: Stick) -> None:
    respell(stick, lambda sig: sig)
    use_point(stick, lambda spki: spki)
    stick.verify()


def test_unattacked_keys_and_signatures_pass_on_a_bare_host(stick: Stick, monkeypatch: pytest.MonkeyPatch) -> None:
    without_library(monkeypatch)
    stick.verify()


@pytest.mark.parametrize("is_bare", [False, True], ids=["with cryptography", "on a bare host"])
@pytest.mark.parametrize("change", [long_length, padded_integer, tail, raw, zero, order])
def test_attacked_by_a_signature_that_is_not_strict(
    stick: Stick, change: Callable[[bytes], bytes], is_bare: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_bare:
        without_library(monkeypatch)
    respell(stick, change)
    refused(ROW, stick.verify, "signature.invalid", "2.targets.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda spki: spki[:-1] + bytes([spki[-1] ^ 1]),
        lambda spki: spki[:-64] + bytes(64),
        lambda spki: spki[:-65] + b"\x00" + spki[-64:],
        lambda spki: spki[:-1],
        lambda spki: spki + b"\0",
    ],
    ids=["a point beside the curve", "the point 0, 0", "infinity", "a cut point", "a byte more"],
)
def test_attacked_by_an_invalid_key(stick: Stick, change: Callable[[bytes], bytes]) -> None:
    use_point(stick, change)
    refused(ROW, stick.verify, "key.refused", "pinned root")


def test_attacked_by_a_key_on_a_smaller_curve(stick: Stick) -> None:
    use_weak_key(stick)
    refused(ROW, stick.verify, "key.refused", "pinned root")


def test_attacked_by_the_other_half_of_a_signature_nobody_counts_twice(stick: Stick) -> None:
    """(r, n - s) verifies too, as for every ECDSA: it is the same key, so it adds nobody."""
    one = stick.repository.people.targets[0]
    stick.repository.edit(stick.repository.targets_name, lambda _: None, by=[one])
    repository = stick.repository
    value = load(repository.files[repository.targets_name], "targets")
    r, s = decode_dss_signature(bytes.fromhex(value["signatures"][0]["sig"]))
    value["signatures"].append({"keyid": one.public.key_id, "sig": encode_dss_signature(r, ORDER - s).hex()})
    repository.put_targets(to_file(value), repository.targets_version)
    stick.save()
    refused(ROW, stick.verify, "metadata.refused", "2.targets.json")


def any_curve(spki: bytes, _subject: str) -> PublicKey:
    return PublicKey(sha256(to_signing(to_json(spki))), sha256(spki), spki)


def test_unguarded_the_smaller_curve_is_taken(stick: Stick) -> None:
    use_weak_key(stick)
    with guard_off(ROW.guard, any_curve), guard_off("signing.keys.check_signature", check_on_any_curve):
        stick.verify()


def test_unguarded_the_check_of_a_signature_still_reads_points_of_our_curve_only(stick: Stick) -> None:
    use_weak_key(stick)
    with guard_off(ROW.guard, any_curve):
        refused(ROW, stick.verify, "signature.invalid", "2.targets.json")


@pytest.mark.parametrize("change", [long_length, padded_integer, tail])
def test_unguarded_the_library_still_refuses_what_is_not_strict(stick: Stick, change: Callable[[bytes], bytes]) -> None:
    respell(stick, change)
    with guard_off("cryptography.hazmat.primitives.asymmetric.utils.encode_dss_signature", lambda *_: AGREES):
        refused(ROW, stick.verify, "signature.invalid", "2.targets.json")
