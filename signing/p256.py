"""ECDSA P-256 with SHA-256 in plain Python, for a host that has nothing else.

Owns the one encoding of a public key (DER and PEM), the check of its point, and a verifier that needs no package. It
never signs and holds no secret, so nothing here needs constant time.

Rules (threat T30):
- a key is the 91 bytes of an uncompressed P-256 SubjectPublicKeyInfo; its point lies on the curve and is not infinity;
- a signature is strict DER: two integers from 1 to n - 1 that encode to the same bytes again;
- what does not hold raises ValueError; `signing.keys` turns that into an error for people.

Source: SEC 1 version 2, sections 2.3.4, 3.2.2.1 and 4.1.4; RFC 5480 for the SubjectPublicKeyInfo; RFC 7468 for the PEM.
Cost: some milliseconds a signature.
"""

from __future__ import annotations

import binascii
import hashlib

_P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    1,
)
_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_SPKI_BYTES = 91
_PEM_HEAD, _PEM_TAIL = "-----BEGIN PUBLIC KEY-----\n", "-----END PUBLIC KEY-----\n"
_INFINITY = (1, 1, 0)
_Point = tuple[int, int, int]  # Jacobian coordinates: x / z², y / z³; z is 0 at infinity


def check_key(spki: bytes) -> tuple[int, int]:
    """The point of a public key.

    Raises:
        ValueError: not the one encoding of a P-256 SubjectPublicKeyInfo, or its point is not on the curve.
    """
    if len(spki) != _SPKI_BYTES or not spki.startswith(_SPKI):
        raise ValueError("no P-256 public key in its one encoding")
    x, y = int.from_bytes(spki[-64:-32], "big"), int.from_bytes(spki[-32:], "big")
    if x >= _P or y >= _P or (y * y - x * x * x + 3 * x - _B) % _P:
        raise ValueError("a point beside the curve")
    return x, y


def pem_of(spki: bytes) -> str:
    """The one PEM form of a key: lines of 64 characters, a newline after each."""
    body = binascii.b2a_base64(spki, newline=False).decode("ascii")
    lines = [f"{body[at : at + 64]}\n" for at in range(0, len(body), 64)]
    return f"{_PEM_HEAD}{''.join(lines)}{_PEM_TAIL}"


def spki_of(pem: str) -> bytes:
    """The DER that a PEM text in its one encoding holds; `check_key` has yet to look at it.

    Raises:
        ValueError: another encoding, or something else.
    """
    spki = binascii.a2b_base64(pem[len(_PEM_HEAD) : -len(_PEM_TAIL)].encode("ascii"))
    if pem_of(spki) != pem:
        raise ValueError("not the one PEM form of a public key")
    return spki


def check_signature(spki: bytes, signature: bytes, message: bytes) -> None:
    """Check one signature over a message.

    Raises:
        ValueError: the key is none, the signature is not strict DER, or this key did not make it over this message.
    """
    x, y = check_key(spki)
    r, s = _numbers(signature)
    inverse = pow(s, -1, _N)
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    found = _sum(digest * inverse % _N, _G, r * inverse % _N, (x, y, 1))
    if not found[2] or found[0] * pow(found[2], -2, _P) % _P % _N != r:
        raise ValueError("this key did not sign this message")


def _numbers(signature: bytes) -> tuple[int, int]:
    try:
        end = 4 + signature[3]
        numbers = signature[4:end], signature[end + 2 :]
    except IndexError:
        raise ValueError("a signature that is cut") from None
    r, s = (int.from_bytes(number, "big") for number in numbers)
    # Whatever was skipped over or encoded in another way shows here.
    if not (0 < r < _N and 0 < s < _N) or _der(r, s) != signature:
        raise ValueError("not two numbers in strict DER")
    return r, s


def _der(r: int, s: int) -> bytes:
    parts = b"".join(bytes([2, n.bit_length() // 8 + 1]) + n.to_bytes(n.bit_length() // 8 + 1, "big") for n in (r, s))
    return bytes([0x30, len(parts)]) + parts


def _sum(u: int, p: _Point, v: int, q: _Point) -> _Point:
    """u · p + v · q, both numbers bit by bit together."""
    both, total = _add(p, q), _INFINITY
    for at in range(max(u.bit_length(), v.bit_length()) - 1, -1, -1):
        total = _double(total)
        chosen = ((None, q), (p, both))[u >> at & 1][v >> at & 1]
        if chosen is not None:
            total = _add(total, chosen)
    return total


def _double(p: _Point) -> _Point:
    x, y, z = p
    yy, zz = y * y % _P, z * z % _P
    s, m = 4 * x * yy % _P, 3 * (x - zz) * (x + zz) % _P
    x3 = (m * m - 2 * s) % _P
    return x3, (m * (s - x3) - 8 * yy * yy) % _P, 2 * y * z % _P


def _add(p: _Point, q: _Point) -> _Point:
    if not p[2] or not q[2]:
        return q if not p[2] else p
    pz, qz = p[2] * p[2] % _P, q[2] * q[2] % _P
    u, h = p[0] * qz % _P, (q[0] * pz - p[0] * qz) % _P
    s, r = p[1] * qz * q[2] % _P, (q[1] * pz * p[2] - p[1] * qz * q[2]) % _P
    if not h:
        return _INFINITY if r else _double(p)
    hh = h * h % _P
    hhh, uhh = h * hh % _P, u * hh % _P
    x = (r * r - hhh - 2 * uhh) % _P
    return x, (r * (uhh - x) - s * hhh) % _P, h * p[2] * q[2] % _P
