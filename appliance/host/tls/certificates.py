"""Whether the files of TLS can serve: a certificate, its key, and the authorities of users.

Owns the rules for these files. Site, preflight and gateway ask here, so that they agree.

Rules (threat T132):
- the key belongs to the first certificate, and nobody but its owner and group can read it;
- each further certificate has issued the one before it; the first one is for servers, has names, and is valid now;
- authorities of users are certificates of authorities that are valid now;
- a file with a private key beside certificates is as closed as a key;
- a file is a small regular file. Its texts are shown without control characters.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from appliance.host.tls.files import CertificateFacts, TlsFiles
from signing.errors import UsageError

MAX_BYTES, MAX_CERTIFICATES = 256 << 10, 64
MIN_RSA_BITS = 2048
_OPEN_MODE = 0o027
_PRIVATE = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
_WEAK = (hashes.MD5, hashes.SHA1)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
Extension = TypeVar("Extension", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class TlsFault:
    """Something wrong with one of the files.

    Args:
        name: the field of `tls` that names the file.
        expected, found: for people.
    """

    name: str
    expected: str
    found: str


class TlsFaultError(Exception):
    """Carries a fault to the place that lists it."""

    def __init__(self, fault: TlsFault) -> None:
        super().__init__(f"{fault.name}: {fault.found}")
        self.fault = fault


def read_certificates(path: Path, name: str = "certificate") -> list[x509.Certificate]:
    """Read a file of certificates.

    Args:
        path: PEM, untrusted.
        name: the field that names it, for the fault.

    Returns:
        1 to `MAX_CERTIFICATES` certificates in their order.

    Raises:
        TlsFaultError: it cannot be read, or holds something else.
    """
    data, mode = _read(path, name)
    if _PRIVATE.search(data) and mode & _OPEN_MODE:
        expected = "certificates alone, in a file that everybody can read"
        raise TlsFaultError(TlsFault(name, expected, f"{path} with a private key and mode {mode:04o}"))
    try:
        found = x509.load_pem_x509_certificates(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise TlsFaultError(TlsFault(name, "certificates as PEM", f"{path}, which holds none")) from None
    if len(found) > MAX_CERTIFICATES:
        many = f"{path} with {len(found)}"
        raise TlsFaultError(TlsFault(name, f"at most {MAX_CERTIFICATES} certificates", many))
    return found


def describe_certificate(certificate: x509.Certificate) -> CertificateFacts:
    """State what people need to know of a certificate."""
    names = _extension(certificate, x509.SubjectAlternativeName)
    return CertificateFacts(
        tuple(names.get_values_for_type(x509.DNSName)) if names else (),
        tuple(map(str, names.get_values_for_type(x509.IPAddress))) if names else (),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate.fingerprint(hashes.SHA256()).hex(),
    )


def public_key(certificate: x509.Certificate) -> Any:
    """The key in a certificate; None for one of a kind that the library does not know."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def to_der(certificate: x509.Certificate) -> bytes:
    """The bytes of a certificate, as TLS sends them."""
    return certificate.public_bytes(serialization.Encoding.DER)


def tls_faults(files: TlsFiles, now: datetime, bind: str = "") -> list[TlsFault]:
    """List what is wrong with the files of TLS.

    Args:
        files: where they are; their content is untrusted.
        now: the clock, in UTC.
        bind: the address that the gateway listens on; empty where it does not matter.

    Returns:
        One fault for each thing that is wrong; none where the gateway can serve with them.
    """
    faults: list[TlsFault] = []
    chain = _guarded(faults, lambda: read_certificates(Path(files.certificate)))
    key = _guarded(faults, lambda: _read_key(Path(files.key)))
    if chain:
        faults += _leaf_faults(chain[0], now, bind)
        faults += _chain_faults(chain, now)
    public = public_key(chain[0]) if chain else None
    if key is not None and public is not None and _public_bytes(key.public_key()) != _public_bytes(public):
        faults.append(TlsFault("key", f"the key of the first certificate in {files.certificate}", "another key"))
    if files.client_ca:
        authorities = _guarded(faults, lambda: read_certificates(Path(files.client_ca), "client_ca"))
        faults += [fault for one in authorities or () for fault in _authority_faults(one, now)]
    return faults


def require_usable(files: TlsFiles, now: datetime, bind: str = "", where: str = "site.yaml", option: str = "") -> None:
    """Refuse files of TLS that the gateway cannot serve with.

    Args:
        files, now, bind: as `tls_faults`.
        where: the file whose fields name them, for the errors.
        option: that names the host in a command; empty for the whole machine.

    Raises:
        UsageError: naming the field; every further fault is attached.
    """
    hint = f"a new certificate: appliance tls renew{option}; what is there: appliance tls show{option}"
    errors = [
        UsageError("site.refused", f"{where} field tls.{one.name}", expected=one.expected, found=one.found, hint=hint)
        for one in tls_faults(files, now, bind)
    ]
    if errors:
        errors[0].others = tuple(errors[1:])
        raise errors[0]


def _leaf_faults(leaf: x509.Certificate, now: datetime, bind: str) -> Iterator[TlsFault]:
    facts = describe_certificate(leaf)
    yield from _time_faults("certificate", leaf, now)
    if not facts.names and not facts.addresses:
        yield TlsFault("certificate", "a certificate with names or addresses (subjectAltName)", "one without any")
    usage = _extension(leaf, x509.ExtendedKeyUsage)
    if usage is not None and not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(
        usage
    ):
        yield TlsFault("certificate", "a certificate for servers (serverAuth)", "one for other uses")
    signs = _extension(leaf, x509.KeyUsage)
    if signs is not None and not signs.digital_signature:
        yield TlsFault("certificate", "a key that may sign (digitalSignature)", "one for other uses")
    yield from _key_faults(leaf)
    if bind and not facts.names and facts.addresses and not _is_local_or_any(bind) and bind not in facts.addresses:
        found = f"one for {', '.join(facts.addresses)[:200]}"
        yield TlsFault("certificate", f"a certificate for {bind}, where the gateway listens", found)


def _key_faults(certificate: x509.Certificate) -> Iterator[TlsFault]:
    key = public_key(certificate)
    if isinstance(key, rsa.RSAPublicKey):
        is_right, found = key.key_size >= MIN_RSA_BITS, f"RSA of {key.key_size} bits"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        is_right, found = isinstance(key.curve, _CURVES), f"the curve {key.curve.name}"
    else:
        is_right, found = (
            isinstance(key, ed25519.Ed25519PublicKey),
            type(key).__name__ if key else "a key of another kind",
        )
    if not is_right:
        yield TlsFault("certificate", f"a key of P-256, P-384, P-521, Ed25519, or RSA from {MIN_RSA_BITS} bits", found)


def _chain_faults(chain: list[x509.Certificate], now: datetime) -> Iterator[TlsFault]:
    for number, (one, issuer) in enumerate(pairwise(chain), start=1):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            expected = f"certificate {number + 1} to be the issuer of certificate {number}"
            yield TlsFault(
                "certificate", expected, f"a certificate of {_text(issuer.subject)}, which has not issued it"
            )
        yield from _time_faults("certificate", issuer, now)
    for one in chain:
        is_root = one.issuer == one.subject
        if not is_root and (weak := _weak_signature(one)):
            yield TlsFault("certificate", "a signature of SHA-256 or better", weak)


def _weak_signature(certificate: x509.Certificate) -> str:
    """The name of the digest in a signature that is too weak or not known; empty for others."""
    try:
        used = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return "one of another kind"
    return type(used).__name__ if isinstance(used, _WEAK) else ""


def _authority_faults(certificate: x509.Certificate, now: datetime) -> Iterator[TlsFault]:
    basic = _extension(certificate, x509.BasicConstraints)
    if basic is None or not basic.ca:
        found = f"the certificate of {_text(certificate.subject)}, which is none"
        yield TlsFault("client_ca", "certificates of authorities", found)
    yield from _time_faults("client_ca", certificate, now)


def _time_faults(name: str, certificate: x509.Certificate, now: datetime) -> Iterator[TlsFault]:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begins:
        yield TlsFault(name, f"a certificate that is valid at {_shown(now)}", f"one that begins at {_shown(begins)}")
    if now > ends:
        yield TlsFault(name, f"a certificate that is valid at {_shown(now)}", f"one that expired at {_shown(ends)}")


def _read_key(path: Path) -> Any:
    # The gateway's user becomes its owner, and that is not done through a link.
    data, mode = _read(path, "key", os.O_NOFOLLOW)
    if mode & _OPEN_MODE:
        expected = "a file that its owner and group alone can read, and its owner alone can write"
        raise TlsFaultError(TlsFault("key", expected, f"{path} with mode {mode:04o}"))
    try:
        return serialization.load_pem_private_key(data, None)
    except TypeError:
        raise TlsFaultError(TlsFault("key", "a key without a passphrase", f"{path}, which has one")) from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsFaultError(TlsFault("key", "a private key as PEM", f"{path}, which holds none")) from None


def _read(path: Path, name: str, flags: int = 0) -> tuple[bytes, int]:
    """The content and the mode of a small regular file."""
    expected = "a file that can be read"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise TlsFaultError(TlsFault(name, "a file, and no link", f"{path}, which is a link")) from None
        raise TlsFaultError(TlsFault(name, expected, f"{path}: {error.strerror}")) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise TlsFaultError(TlsFault(name, expected, f"{path}, which is no file"))
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise TlsFaultError(TlsFault(name, f"a file of at most {MAX_BYTES} bytes", f"{path} with more"))
    return data, stat.S_IMODE(mode)


Value = TypeVar("Value")


def _guarded(faults: list[TlsFault], read: Callable[[], Value]) -> Value | None:
    try:
        return read()
    except TlsFaultError as error:
        faults.append(error.fault)
        return None


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return None


def _public_bytes(key: Any) -> bytes:
    return bytes(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _is_local_or_any(address: str) -> bool:
    parsed: IPv4Address | IPv6Address = ip_address(address)
    return parsed.is_loopback or parsed.is_unspecified


def _text(name: x509.Name) -> str:
    text = name.rfc4514_string() or "no name"
    return "".join(character if character.isprintable() else "?" for character in text)[:120]


def _shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
