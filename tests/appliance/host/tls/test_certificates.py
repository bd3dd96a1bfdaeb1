"""The files of TLS: each that cannot serve is named by its field, and none that can is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from appliance.host.tls.certificates import MAX_BYTES, require_usable, tls_faults
from appliance.host.tls.files import TlsFiles
from signing.errors import UsageError
from tests.certificates import NOW, OTHER_CURVE, write_pair


def files(folder: Path, name: str = "server") -> TlsFiles:
    return TlsFiles(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))


def names(given: TlsFiles, bind: str = "") -> list[str]:
    return [fault.name for fault in tls_faults(given, NOW, bind)]


def test_pair_that_fits_is_right(tmp_path: Path) -> None:
    write_pair(tmp_path)
    assert names(files(tmp_path)) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate,
        lambda: rsa.generate_private_key(65537, 2048),
    ],
    ids=["p384", "ed25519", "rsa"],
)
def test_other_good_keys_are_right(tmp_path: Path, make: Callable[[], object]) -> None:
    key = make()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        signer = write_pair(tmp_path, "root", is_authority=True)
        write_pair(tmp_path, key=key, signer=signer)
    else:
        write_pair(tmp_path, key=key)
    assert names(files(tmp_path)) == []


def test_chain_in_its_order_is_right_and_in_another_is_not(tmp_path: Path) -> None:
    root = write_pair(tmp_path, "root", is_authority=True)
    middle = write_pair(tmp_path, "middle", signer=root, is_authority=True)
    write_pair(tmp_path, signer=middle)
    leaf, between, top = ((tmp_path / f"{name}.pem").read_bytes() for name in ("server", "middle", "root"))
    chain = tmp_path / "chain.pem"
    given = replace(files(tmp_path), certificate=str(chain))
    for right in (leaf, leaf + between, leaf + between + top):
        chain.write_bytes(right)
        assert names(given) == []
    chain.write_bytes(leaf + top)
    assert names(given) == ["certificate"]
    chain.write_bytes(between + leaf)
    assert "key" in names(given), "the first certificate is the gateway's own"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"days": (-60, -1)}, "expired at"),
        ({"days": (1, 30)}, "begins at"),
        ({"names": (), "addresses": ()}, "without any"),
        ({"usage": ExtendedKeyUsageOID.CLIENT_AUTH}, "for other uses"),
        ({"key": ec.generate_private_key(ec.SECP256K1())}, "secp256k1"),
        ({"key": rsa.generate_private_key(65537, 1024)}, "RSA of 1024 bits"),
    ],
    ids=["expired", "early", "no names", "for clients", "curve", "short"],
)
def test_certificate_that_users_would_refuse_is_refused(tmp_path: Path, options: dict[str, object], found: str) -> None:
    write_pair(tmp_path, **options)  # type: ignore[arg-type]
    [fault] = tls_faults(files(tmp_path), NOW)
    assert fault.name == "certificate"
    assert found in fault.found


def test_certificate_between_that_has_expired_is_refused(tmp_path: Path) -> None:
    root = write_pair(tmp_path, "root", is_authority=True, days=(-60, -1))
    write_pair(tmp_path, signer=root)
    chain = tmp_path / "chain.pem"
    chain.write_bytes((tmp_path / "server.pem").read_bytes() + (tmp_path / "root.pem").read_bytes())
    assert names(replace(files(tmp_path), certificate=str(chain))) == ["certificate"]


def test_certificate_with_a_key_that_no_library_knows_is_refused_by_its_field(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (tmp_path / "server.pem").write_text(OTHER_CURVE)
    faults = tls_faults(files(tmp_path), NOW)
    assert ("certificate", "a key of another kind") in [(fault.name, fault.found) for fault in faults]
    assert {fault.name for fault in faults} == {"certificate"}


@pytest.mark.parametrize("name", ["certificate", "client_ca"])
def test_private_key_in_a_file_that_everybody_reads_is_refused(tmp_path: Path, name: str) -> None:
    write_pair(tmp_path, is_authority=True)
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "server.key").read_bytes() + (tmp_path / "server.pem").read_bytes())
    given = replace(files(tmp_path), **{name: str(both)})
    both.chmod(0o644)
    [fault] = tls_faults(given, NOW)
    assert (fault.name, "private key and mode 0644" in fault.found) == (name, True)
    both.chmod(0o640)
    assert names(given) == []


def test_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path)
    write_pair(tmp_path, "other")
    assert names(replace(files(tmp_path), key=str(tmp_path / "other.key"))) == ["key"]


def test_certificate_for_other_addresses_than_the_bound_one_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, names=(), addresses=("192.0.2.7",))
    assert names(files(tmp_path), "192.0.2.7") == []
    for everywhere in ("", "0.0.0.0", "::", "127.0.0.1"):
        assert names(files(tmp_path), everywhere) == []
    assert names(files(tmp_path), "192.0.2.8") == ["certificate"]
    write_pair(tmp_path, addresses=("192.0.2.7",))
    assert names(files(tmp_path), "192.0.2.8") == [], "users may have its name"


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604, 0o602])
def test_key_that_others_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    write_pair(tmp_path)
    (tmp_path / "server.key").chmod(mode)
    [fault] = tls_faults(files(tmp_path), NOW)
    assert (fault.name, f"mode {mode:04o}" in fault.found) == ("key", True)
    for right in (0o600, 0o640, 0o400, 0o440):
        (tmp_path / "server.key").chmod(right)
        assert names(files(tmp_path)) == []


def test_key_that_is_a_link_is_refused_before_its_owner_would_change(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (tmp_path / "server.key").rename(tmp_path / "elsewhere.key")
    (tmp_path / "server.key").symlink_to("elsewhere.key")
    [fault] = tls_faults(files(tmp_path), NOW)
    assert (fault.name, fault.expected) == ("key", "a file, and no link")


@pytest.mark.parametrize("name", ["certificate", "key"])
@pytest.mark.parametrize("kind", ["none", "folder", "pipe", "empty", "text", "binary", "large", "link to itself"])
def test_file_that_holds_nothing_usable_is_named_by_its_field(tmp_path: Path, name: str, kind: str) -> None:
    write_pair(tmp_path)
    given = files(tmp_path)
    path = Path(getattr(given, name))
    path.unlink()
    if kind == "folder":
        path.mkdir(0o700)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind != "none":
        data = {"empty": b"", "text": b"hello\n", "binary": b"\x00\xff" * 99, "large": b"x" * (MAX_BYTES + 1)}
        path.write_bytes(data[kind])
        path.chmod(0o600)
    assert names(given) == [name]


def test_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    _, key = write_pair(tmp_path)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    (tmp_path / "server.key").write_bytes(secret)
    [fault] = tls_faults(files(tmp_path), NOW)
    assert "passphrase" in fault.expected


def test_authorities_of_users_are_authorities_and_valid(tmp_path: Path) -> None:
    write_pair(tmp_path)
    write_pair(tmp_path, "root", is_authority=True)
    write_pair(tmp_path, "old", is_authority=True, days=(-60, -1))
    for name, wrong in (("root", []), ("old", ["client_ca"]), ("server", ["client_ca"]), ("none", ["client_ca"])):
        assert names(replace(files(tmp_path), client_ca=str(tmp_path / f"{name}.pem"))) == wrong


def test_dsa_is_no_key_of_a_gateway(tmp_path: Path) -> None:
    write_pair(tmp_path)
    other = dsa.generate_private_key(1024)
    secret = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "server.key").write_bytes(secret)
    assert names(files(tmp_path)) == ["key"]


def test_every_fault_is_named_at_once_with_the_field_and_exit_2(tmp_path: Path) -> None:
    write_pair(tmp_path, days=(-60, -1))
    write_pair(tmp_path, "other")
    shutil.copyfile(tmp_path / "other.key", tmp_path / "server.key")
    given = replace(files(tmp_path), client_ca="/nonexistent")
    with pytest.raises(UsageError) as caught:
        require_usable(given, NOW, where="/etc/appliance/site.yaml")
    errors = [caught.value, *caught.value.others]
    assert [error.subject for error in errors] == [
        f"/etc/appliance/site.yaml field tls.{name}" for name in ("certificate", "key", "client_ca")
    ]
    assert {(error.code, error.exit_code) for error in errors} == {("site.refused", 2)}


def test_time_is_that_of_the_caller(tmp_path: Path) -> None:
    write_pair(tmp_path, days=(-1, 30))
    assert tls_faults(files(tmp_path), NOW + timedelta(days=31)) != []
