"""The authority of a site and the certificates that it issues: made here, without a network.

Owns the form of these certificates and the files of the folder `tls` (X.509, RFC 5280). Rules:
- every key is ECDSA on P-256, and every serial number is random;
- the authority issues certificates for servers and persons, and no further authorities (path length 0);
- a private key is written before its certificate, readable for its owner alone;
- a renewed certificate keeps the key unless a new one is asked for. So one rename exchanges it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import PRIVATE, PUBLIC, make_folder
from appliance.host.tls.certificates import TlsFaultError, describe_certificate, public_key, read_certificates
from appliance.host.tls.files import CertificateFacts
from signing.errors import DamagedError, UsageError

AUTHORITY_DAYS, USUAL_DAYS, MAX_DAYS = 3650, 397, 825
MAX_NAMES = 64
_NAME = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?){0,16}\Z")
_PERSON = re.compile(r"[a-z0-9]([a-z0-9._-]{0,60}[a-z0-9])?\Z")
_SKEW = timedelta(hours=1)
"""How far a certificate begins before now: clocks of clients differ."""
_MAX_COMMON_NAME = 64


@dataclass(frozen=True, slots=True)
class AuthorityFolder:
    """Where the authority and its certificates lie: `etc/appliance/tls` of a host."""

    path: Path

    @property
    def authority(self) -> Path:
        """The authority's certificate, which users trust."""
        return self.path / "ca.pem"

    @property
    def authority_key(self) -> Path:
        """Its private key, which root alone reads."""
        return self.path / "ca.key"

    @property
    def certificate(self) -> Path:
        """The gateway's certificate."""
        return self.path / "server.pem"

    @property
    def key(self) -> Path:
        """The gateway's private key."""
        return self.path / "server.key"

    @property
    def clients(self) -> Path:
        """Certificates and keys of persons, for their own machines."""
        return self.path / "clients"


@dataclass(frozen=True, slots=True)
class ServerNames:
    """Whom a server's certificate is for: host names and addresses, at least one."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]

    @classmethod
    def check(cls, names: Sequence[str], addresses: Sequence[str]) -> ServerNames:
        """Check what a person gave.

        Raises:
            UsageError: a name or an address is none, or there is none at all.
        """
        lower = tuple(dict.fromkeys(name.lower().rstrip(".") for name in names))
        for name in lower:
            if not _NAME.match(name) or name.replace(".", "").isdigit():
                raise _refused("--name", "a host name such as ai.example or *.ai.example", name)
        parsed = tuple(dict.fromkeys(map(_address, addresses)))
        if not 1 <= len(lower) + len(parsed) <= MAX_NAMES:
            expected = f"1 to {MAX_NAMES} names and addresses by which users reach this host"
            raise _refused("--name or --address", expected, f"{len(lower) + len(parsed)}")
        return cls(lower, parsed)


def create_authority(folder: AuthorityFolder, names: ServerNames, days: int, now: datetime) -> CertificateFacts:
    """Make an authority and its first certificate for a server.

    Args:
        folder: where; it is made where it is missing.
        names: of the server.
        days: how long the server's certificate is valid, 1 to `MAX_DAYS`.
        now: the clock, in UTC.

    Raises:
        UsageError: an authority is there already; users trust it.
        OSError: the files cannot be written.
    """
    for path in (folder.authority, folder.authority_key):
        if path.exists():
            raise UsageError(
                "tls.exists",
                str(path),
                expected="no authority yet: users would have to trust another one",
                found="one",
                hint="a new certificate of it: appliance tls renew. To begin anew, move the folder away",
            )
    make_folder(folder.path, PUBLIC)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Appliance site CA {_key_name(key)}")])
    builder = _builder(subject, subject, key.public_key(), now, timedelta(days=AUTHORITY_DAYS))
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_file(folder.authority_key, _private_bytes(key), 0o600)
    write_file(folder.authority, _pem(certificate))
    return renew_certificate(folder, names, days, now, new_key=True)


def renew_certificate(
    folder: AuthorityFolder, names: ServerNames | None, days: int, now: datetime, *, new_key: bool = False
) -> CertificateFacts:
    """Issue a certificate for the server anew.

    Args:
        folder: of `create_authority`.
        names: of the server; None for those of the certificate that is there.
        days: how long it is valid, 1 to `MAX_DAYS`, and at most as long as the authority.
        now: the clock, in UTC.
        new_key: whether the server gets a new key, too.

    Raises:
        UsageError: there is no authority here.
        DamagedError: a file of the folder is not what this program wrote.
        OSError: the files cannot be written.
    """
    authority, authority_key = _open_authority(folder)
    if names is None:
        old = describe_certificate(_first(folder.certificate))
        names = ServerNames(old.names, old.addresses)
    if new_key or not folder.key.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_file(folder.key, _private_bytes(key), 0o600)
    else:
        key = _load_key(folder.key)
    common = next((name for name in (*names.names, *names.addresses) if len(name) <= _MAX_COMMON_NAME), "")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])
    general: list[x509.GeneralName] = [x509.DNSName(name) for name in names.names]
    general += [x509.IPAddress(ip_address(address)) for address in names.addresses]
    builder = _issued_builder(authority, subject, key.public_key(), now, days).add_extension(
        x509.SubjectAlternativeName(general), critical=not common
    )
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = builder.add_extension(usage, critical=False).sign(authority_key, hashes.SHA256())
    write_file(folder.certificate, _pem(certificate))
    return describe_certificate(certificate)


def issue_client(folder: AuthorityFolder, person: str, days: int, now: datetime) -> tuple[Path, Path, CertificateFacts]:
    """Issue a certificate by which a person connects.

    Args:
        folder: of `create_authority`.
        person: a name of a-z 0-9 . _ -, which the gateway sees.
        days: how long it is valid, 1 to `MAX_DAYS`, and at most as long as the authority.
        now: the clock, in UTC.

    Returns:
        The paths of the certificate and of its key, and what the certificate states.

    Raises:
        UsageError: the name is none, or there is no authority here.
        DamagedError: a file of the folder is not what this program wrote.
        OSError: the files cannot be written.
    """
    if not _PERSON.match(person):
        raise _refused("NAME", "a name of a-z 0-9 . _ -, at most 62 characters", person)
    authority, authority_key = _open_authority(folder)
    make_folder(folder.clients, PRIVATE)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, person)])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = _issued_builder(authority, subject, key.public_key(), now, days).add_extension(usage, critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())
    paths = folder.clients / f"{person}.pem", folder.clients / f"{person}.key"
    write_file(paths[1], _private_bytes(key), 0o600)
    write_file(paths[0], _pem(certificate))
    return (*paths, describe_certificate(certificate))


def read_authority(folder: AuthorityFolder) -> CertificateFacts | None:
    """What users need to know of the authority; None where there is none.

    Raises:
        DamagedError: its certificate is not what this program wrote.
    """
    return describe_certificate(_first(folder.authority)) if folder.authority.exists() else None


def _open_authority(folder: AuthorityFolder) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if not folder.authority_key.exists():
        raise UsageError(
            "tls.no-authority",
            str(folder.authority_key),
            expected="an authority of this site",
            found="none",
            hint="appliance tls create --name NAME",
        )
    certificate, key = _first(folder.authority), _load_key(folder.authority_key)
    if public_key(certificate) != key.public_key():
        raise _damaged(folder.authority_key, f"the key of {folder.authority}", "another key")
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, length: timedelta
) -> x509.CertificateBuilder:
    begins = now.replace(microsecond=0) - _SKEW
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + _SKEW + length)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _issued_builder(
    authority: x509.Certificate, subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    if not 1 <= days <= MAX_DAYS:
        raise _refused("--days", f"1 to {MAX_DAYS}", str(days))
    length = min(timedelta(days=days), authority.not_valid_after_utc - now.replace(microsecond=0))
    if length < timedelta(days=1):
        ends = authority.not_valid_after_utc
        raise _refused("the authority", "one that is valid for a day or more", f"one that ends at {ends:%Y-%m-%d}")
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    return (
        _builder(subject, authority.subject, key, now, length)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(issuer, critical=False)
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_name(key: ec.EllipticCurvePrivateKey) -> str:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest[:4].hex()


def _private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged(path, "a key of P-256, as `tls create` wrote it", "something else")
    return key


def _first(path: Path) -> x509.Certificate:
    try:
        return read_certificates(path)[0]
    except TlsFaultError as error:
        raise _damaged(path, error.fault.expected, error.fault.found) from None


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise _refused("--address", "an IP address", text) from None


def _refused(subject: str, expected: str, found: str) -> UsageError:
    return UsageError("tls.refused", subject, expected=expected, found=repr(found)[:120], hint="appliance tls --help")


def _damaged(path: Path, expected: str, found: str) -> DamagedError:
    hint = "restore the file, or move the folder away and make a new authority: appliance tls create"
    return DamagedError("tls.damaged", str(path), expected=expected, found=found, hint=hint)
