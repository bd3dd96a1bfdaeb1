"""The plain verifier, part by part: the group against a slow and simple one, and every byte of a spelling."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from signing import p256

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def add(p: tuple[int, int] | None, q: tuple[int, int] | None) -> tuple[int, int] | None:
    """The group law as a textbook has it; None is infinity."""
    if p is None or q is None:
        return q if p is None else p
    if p[0] == q[0]:
        if (p[1] + q[1]) % P == 0:
            return None
        slope = (3 * p[0] * p[0] - 3) * pow(2 * p[1], -1, P)
    else:
        slope = (q[1] - p[1]) * pow(q[0] - p[0], -1, P)
    x = (slope * slope - p[0] - q[0]) % P
    return x, (slope * (p[0] - x) - p[1]) % P


def times(u: int, p: tuple[int, int] | None = G) -> tuple[int, int] | None:
    total = None
    for bit in bin(u)[2:]:
        total = add(total, total)
        total = add(total, p) if bit == "1" else total
    return total


def jacobian(point: tuple[int, int] | None, z: int) -> tuple[int, int, int]:
    if point is None:
        return z * z % P, z**3 % P, 0
    return point[0] * z * z % P, point[1] * z**3 % P, z


def affine(point: tuple[int, int, int]) -> tuple[int, int] | None:
    x, y, z = point
    assert all(0 <= number < P for number in point)
    return None if not z else (x * pow(z, -2, P) % P, y * pow(z, -3, P) % P)


POINTS = [None, *(times(u) for u in (1, 2, 3, N - 1, N - 2, 0xDEADBEEF, N // 2))]


def test_constants_are_those_of_the_standard() -> None:
    assert (P, N, B, (*G, 1)) == (p256._P, p256._N, p256._B, p256._G)
    assert p256._INFINITY[2] == 0
    assert times(N) is None


@pytest.mark.parametrize("z", [(1, 1), (1, 7), (7, 1), (5, P - 2)])
def test_sums_and_doubles_are_those_of_the_textbook(z: tuple[int, int]) -> None:
    for p in POINTS:
        assert affine(p256._double(jacobian(p, z[0]))) == add(p, p)
        for q in POINTS:
            assert affine(p256._add(jacobian(p, z[0]), jacobian(q, z[1]))) == add(p, q)


@pytest.mark.parametrize(
    ("u", "v"), [(0, 0), (1, 0), (0, 1), (1, 1), (2, 3), (3, 2), (5, 1), (1, 6), (255, 257), (N - 1, 1), (N, 9)]
)
def test_two_multiples_are_added(u: int, v: int) -> None:
    other = times(0xC0FFEE)
    assert other is not None
    found = p256._sum(u, (*G, 1), v, (*other, 1))
    assert affine(found) == add(times(u), times(v, other))


@pytest.fixture(scope="module")
def private() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(0xA11CE, ec.SECP256R1())


def der(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def signature(private: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    return private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def test_key_is_read_to_its_point(private: ec.EllipticCurvePrivateKey) -> None:
    numbers = private.public_key().public_numbers()
    assert p256.check_key(der(private)) == (numbers.x, numbers.y)


def changes(data: bytes) -> Iterator[bytes]:
    """Every byte of something flipped in one bit, taken away, and doubled; one more at either end."""
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
        yield data[:at] + data[at + 1 :]
        yield data[:at] + data[at : at + 1] + data[at:]
    yield data + b"\0"
    yield b"\0" + data


def test_every_changed_byte_of_a_key_is_refused(private: ec.EllipticCurvePrivateKey) -> None:
    for changed in changes(der(private)):
        if changed != der(private):
            with pytest.raises(ValueError, match=r"in its one encoding|beside the curve"):
                p256.check_key(changed)


HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")


def spelled(x: int, y: int) -> bytes:
    return HEAD + x.to_bytes(32, "big") + y.to_bytes(32, "big")


def test_coordinates_lie_below_the_field() -> None:
    """Points whose coordinates are so small that adding the field still fits in 32 bytes."""
    y = pow(5**3 - 15 + B, (P + 1) // 4, P)
    assert p256.check_key(spelled(5, y)) == (5, y)
    small = 0x6916FAC45E568B6B9E2E2ECD611B282E5FCC40A3067D601057F879CE5A8A73CC  # x³ - 3x + b = 1
    assert p256.check_key(spelled(small, 1)) == (small, 1)
    root = pow(B, (P + 1) // 4, P)
    assert p256.check_key(spelled(0, root)) == (0, root)
    for x, other in ((5 + P, y), (small, 1 + P), (P, root), (0, 0), (5, 0), (5, y + 1)):
        with pytest.raises(ValueError, match="beside the curve"):
            p256.check_key(spelled(x, other))


def test_pem_has_one_spelling(private: ec.EllipticCurvePrivateKey) -> None:
    text = (
        private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    assert p256.pem_of(der(private)) == text
    assert p256.spki_of(text) == der(private)
    body = base64.b64encode(der(private)).decode()
    others = [
        text[:-1],
        text + "\n",
        text.replace("\n", "\r\n"),
        text.replace("PUBLIC", "EC PUBLIC"),
        text.lower(),
        body,
        f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n",
        text.replace(body[:8], body[:4] + "\n" + body[4:8]),
        text.replace("-----END", " -----END"),
        text.replace("=", "") if "=" in text else text + " ",
        "",
        "é",
        text.replace("\n", "é", 1),
    ]
    for other in others:
        with pytest.raises(ValueError):  # noqa: PT011 - base64 and ascii have words of their own
            p256.spki_of(other)


@pytest.mark.parametrize("size", [1, 47, 48, 49, 96, 97])
def test_pem_of_any_length_is_that_of_the_standard(size: int) -> None:
    data = bytes(range(size))
    lines = base64.encodebytes(data).decode().replace("\n", "")
    expected = "".join(f"{lines[at : at + 64]}\n" for at in range(0, len(lines), 64))
    text = f"-----BEGIN PUBLIC KEY-----\n{expected}-----END PUBLIC KEY-----\n"
    assert (p256.pem_of(data), p256.spki_of(text)) == (text, data)


def test_signature_holds_for_its_key_and_message_alone(private: ec.EllipticCurvePrivateKey) -> None:
    made = signature(private, b"message")
    p256.check_signature(der(private), made, b"message")
    other = ec.derive_private_key(0xB0B, ec.SECP256R1())
    for spki, message in ((der(private), b"messagf"), (der(other), b"message"), (der(private), b"")):
        with pytest.raises(ValueError, match="did not sign"):
            p256.check_signature(spki, made, message)


def test_every_changed_byte_of_a_signature_is_refused(private: ec.EllipticCurvePrivateKey) -> None:
    made = signature(private, b"message")
    for changed in {*changes(made), *(made[:at] for at in range(len(made)))} - {made}:
        with pytest.raises(ValueError, match=r"strict DER|did not sign|that is cut"):
            p256.check_signature(der(private), changed, b"message")


def test_both_numbers_lie_from_one_to_the_order(private: ec.EllipticCurvePrivateKey) -> None:
    r, s = decode_dss_signature(signature(private, b"message"))
    assert p256._numbers(encode_dss_signature(1, N - 1)) == (1, N - 1)
    assert p256._numbers(encode_dss_signature(N - 1, 1)) == (N - 1, 1)
    p256.check_signature(der(private), encode_dss_signature(r, N - s), b"message")
    for bad in ((0, s), (r, 0), (N, s), (r, N), (r + N, s), (r, s + N), (0, 0)):
        with pytest.raises(ValueError, match="strict DER"):
            p256._numbers(encode_dss_signature(*bad))
    for negative in ("3006020101 0201ff", "3006 0201ff 020101"):
        with pytest.raises(ValueError, match="strict DER"):
            p256._numbers(bytes.fromhex(negative))


@pytest.mark.parametrize("number", [1, 127, 128, 255, 256, 0x7FFF, 0x8000, N - 1])
def test_strict_der_is_the_librarys(number: int) -> None:
    for pair in ((number, 1), (1, number), (number, number)):
        assert p256._der(*pair) == encode_dss_signature(*pair)
        assert p256._numbers(encode_dss_signature(*pair)) == pair


def test_digest_above_the_order_is_taken_modulo_it(private: ec.EllipticCurvePrivateKey) -> None:
    """The sum is made with the whole digest, and r compared with x modulo the order."""
    for number in range(8):
        message = bytes([number])
        made = signature(private, message)
        p256.check_signature(der(private), made, message)
        r, s = decode_dss_signature(made)
        digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
        point = add(times(digest * pow(s, -1, N) % N), times(r * pow(s, -1, N) % N, p256.check_key(der(private))))
        assert point is not None
        assert point[0] % N == r


def test_sum_at_infinity_is_no_signature() -> None:
    """u·G + v·Q = infinity with Q = -G·(u / v): choose r and s so that it comes out."""
    message = b"message"
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big") % N
    r = 7
    scalar = (-digest * pow(r, -1, N)) % N
    spki = der(ec.derive_private_key(scalar, ec.SECP256R1()))
    with pytest.raises(ValueError, match="did not sign"):
        p256.check_signature(spki, encode_dss_signature(r, 5), message)


def test_x_between_the_order_and_the_field_is_reduced() -> None:
    """The curve has points with x >= n: r is then x - n, and the signature holds all the same."""
    x = N
    while pow(y2 := (x**3 - 3 * x + B) % P, (P - 1) // 2, P) != 1:
        x += 1
    point = (x, pow(y2, (P + 1) // 4, P))
    r, s, message = x - N, 3, b"message"
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    # Q = (s·R - digest·G) / r makes R the sum.
    minus = times(digest % N)
    assert minus is not None
    key = times(pow(r, -1, N), add(times(s, point), (minus[0], P - minus[1])))
    assert key is not None
    p256.check_signature(spelled(*key), encode_dss_signature(r, s), message)
