"""Certificates for tests: a site's authority in a folder, and others that are wrong in one way each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.host.tls.authority import AuthorityFolder, ServerNames, create_authority
from appliance.host.tls.files import TlsFiles

NOW = datetime.now(timezone.utc)
OTHER_CURVE = """
-----BEGIN CERTIFICATE-----
MIIBjDCCATegAwIBAgIUNhCy7c4akwkLDB+aFYFQ0sqoFkUwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEzMDIwMTExM1oYDzIxMjYxMTA2
MjAxMTEzWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwVTATBgcqhkjOPQIBBggqhkjO
PQMBBAM+AAQgMaLlLkjMy0aH0IzMVjBr61GGiNSk0o1m/2MvaYcbdk/UMl+HDYk9
gxQyEFoysM5OgxoYDorLRjs363ajaTBnMB0GA1UdDgQWBBSHgXZV2kBQ32OnqGX1
ShGPWZehDDAfBgNVHSMEGDAWgBSHgXZV2kBQ32OnqGX1ShGPWZehDDAPBgNVHRMB
Af8EBTADAQH/MBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAKBggqhkjOPQQDAgNDADBA
Ah5oMxhCYoFwsSV/7P/aQfTVFwknV/OXJy0ThhbfarsCHjN6zpej7uHUDeblIUdC
fFOInAcHGvLEG87rqo8WGg==
-----END CERTIFICATE-----
"""
"""Of a key on prime239v1, which the library for X.509 does not know."""


def make_folder(path: Path, names: Sequence[str] = ("localhost",), days: int = 397) -> AuthorityFolder:
    """A folder with an authority and a certificate for this machine."""
    folder = AuthorityFolder(path)
    create_authority(folder, ServerNames.check(names, ["127.0.0.1", "::1"]), days, NOW)
    return folder


def files_of(folder: AuthorityFolder, *, client_ca: bool = False) -> TlsFiles:
    return TlsFiles(str(folder.certificate), str(folder.key), str(folder.authority) if client_ca else "")


def write_pair(
    path: Path,
    name: str = "server",
    *,
    key: Any = None,
    signer: tuple[x509.Certificate, Any] | None = None,
    days: tuple[int, int] = (-1, 30),
    names: Sequence[str] = ("localhost",),
    addresses: Sequence[str] = ("127.0.0.1",),
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH,
    is_authority: bool = False,
) -> tuple[x509.Certificate, Any]:
    """Write NAME.pem and NAME.key, and return both; issued by itself where there is no signer."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer[0].subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    general: list[x509.GeneralName] = [x509.DNSName(one) for one in names]
    general += [x509.IPAddress(ip_address(one)) for one in addresses]
    if general:
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    if usage is not None and not is_authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    certificate = builder.sign(signer[1] if signer else key, hashes.SHA256())
    (path / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = path / f"{name}.key"
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    secret.chmod(0o600)
    return certificate, key
