"""The authority of a site: its certificates are strict, random and last as long as they say; nothing is replaced."""

from __future__ import annotations

import shutil
import stat
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from appliance.host.tls.authority import (
    AuthorityFolder,
    ServerNames,
    create_authority,
    issue_client,
    read_authority,
    renew_certificate,
)
from appliance.host.tls.certificates import read_certificates, tls_faults
from signing.errors import DamagedError, UsageError
from tests.certificates import NOW, files_of, make_folder


@pytest.fixture
def folder(tmp_path: Path) -> AuthorityFolder:
    return make_folder(tmp_path / "tls", ("ai.example", "*.ai.example"))


def modes(folder: AuthorityFolder) -> dict[str, str]:
    paths = (path for path in folder.path.rglob("*") if path.is_file())
    return {str(path.relative_to(folder.path)): f"{stat.S_IMODE(path.stat().st_mode):o}" for path in paths}


def test_private_keys_are_readable_for_their_owner_alone(folder: AuthorityFolder) -> None:
    issue_client(folder, "ada", 30, NOW)
    assert modes(folder) == {
        "ca.pem": "644",
        "ca.key": "600",
        "server.pem": "644",
        "server.key": "600",
        "clients/ada.pem": "644",
        "clients/ada.key": "600",
    }
    assert stat.S_IMODE(folder.clients.stat().st_mode) == 0o700


def test_certificates_pass_the_checks_of_the_site(folder: AuthorityFolder) -> None:
    assert tls_faults(files_of(folder, client_ca=True), NOW) == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")
def test_openssl_accepts_the_chains_for_their_use_and_for_no_other(folder: AuthorityFolder) -> None:
    certificate, _, _ = issue_client(folder, "ada", 30, NOW)

    def verify(path: Path, purpose: str) -> bool:
        words = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(folder.authority), str(path)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    assert verify(folder.certificate, "sslserver")
    assert verify(certificate, "sslclient")
    assert not verify(folder.certificate, "sslclient")
    assert not verify(certificate, "sslserver")


def test_authority_issues_no_other_authority(folder: AuthorityFolder) -> None:
    [authority] = read_certificates(folder.authority)
    basic = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)


def test_names_addresses_and_times_are_those_that_were_asked_for(folder: AuthorityFolder) -> None:
    made = renew_certificate(folder, ServerNames.check(["AI.example."], ["2001:db8:0::7"]), 20, NOW)
    assert (made.names, made.addresses) == (("ai.example",), ("2001:db8::7",))
    assert timedelta(days=20) == made.ends - NOW.replace(microsecond=0)
    assert made.begins < NOW
    assert renew_certificate(folder, None, 20, NOW).names == ("ai.example",)


def test_serial_numbers_are_random(folder: AuthorityFolder) -> None:
    numbers = set()
    for _ in range(4):
        renew_certificate(folder, None, 20, NOW)
        numbers.add(read_certificates(folder.certificate)[0].serial_number)
    assert len(numbers) == 4
    assert min(number.bit_length() for number in numbers) > 100


def test_renewed_certificate_keeps_its_key_unless_a_new_one_is_asked_for(folder: AuthorityFolder) -> None:
    key, authority = folder.key.read_bytes(), folder.authority.read_bytes()
    renew_certificate(folder, None, 20, NOW)
    assert folder.key.read_bytes() == key
    renew_certificate(folder, None, 20, NOW, new_key=True)
    assert folder.key.read_bytes() != key
    assert folder.authority.read_bytes() == authority
    assert tls_faults(files_of(folder), NOW) == []


def test_no_certificate_outlives_its_authority(folder: AuthorityFolder) -> None:
    authority = read_authority(folder)
    assert authority is not None
    late = authority.ends - timedelta(days=10)
    assert renew_certificate(folder, None, 397, late).ends <= authority.ends
    with pytest.raises(UsageError, match="authority"):
        renew_certificate(folder, None, 397, authority.ends - timedelta(hours=1))


def test_authority_that_users_trust_is_not_replaced(folder: AuthorityFolder) -> None:
    before = folder.authority.read_bytes()
    with pytest.raises(UsageError) as caught:
        create_authority(folder, ServerNames.check(["other.example"], []), 30, NOW)
    assert (caught.value.code, caught.value.exit_code) == ("tls.exists", 2)
    assert folder.authority.read_bytes() == before


@pytest.mark.parametrize(
    ("names", "addresses"),
    [
        ([], []),
        (["10.0.0.1"], []),
        (["a b"], []),
        (["*"], []),
        (["a.*.example"], []),
        (["-a.example"], []),
        (["a..example"], []),
        (["\u00fc.example"], []),
        (["a" * 64 + ".example"], []),
        ([], ["ai.example"]),
        ([], ["10.0.0.256"]),
        ([], ["10.0.0.0/8"]),
        ([f"n{number}.example" for number in range(65)], []),
    ],
)
def test_wrong_names_are_refused(names: list[str], addresses: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        ServerNames.check(names, addresses)
    assert (caught.value.code, caught.value.exit_code) == ("tls.refused", 2)


@pytest.mark.parametrize("person", ["", "../ada", "Ada", "a/b", "-", "a" * 63, "a\n"])
def test_wrong_name_of_a_person_writes_nothing(folder: AuthorityFolder, person: str) -> None:
    with pytest.raises(UsageError):
        issue_client(folder, person, 30, NOW)
    assert not folder.clients.exists()


@pytest.mark.parametrize("days", [0, -1, 826])
def test_days_are_bounded(folder: AuthorityFolder, days: int) -> None:
    with pytest.raises(UsageError):
        renew_certificate(folder, None, days, NOW)


@pytest.mark.parametrize("name", ["ca.key", "ca.pem", "server.key"])
def test_file_that_was_changed_is_named(folder: AuthorityFolder, name: str) -> None:
    (folder.path / name).write_text("x")
    with pytest.raises(DamagedError) as caught:
        renew_certificate(folder, None, 30, NOW)
    assert caught.value.subject.endswith(name)


def test_key_of_another_authority_issues_nothing(folder: AuthorityFolder, tmp_path: Path) -> None:
    shutil.copyfile(make_folder(tmp_path / "other").authority_key, folder.authority_key)
    with pytest.raises(DamagedError, match="key of"):
        renew_certificate(folder, None, 30, NOW)


def test_without_an_authority_nothing_is_renewed(tmp_path: Path) -> None:
    empty = AuthorityFolder(tmp_path / "none")
    with pytest.raises(UsageError) as caught:
        renew_certificate(empty, None, 30, NOW)
    assert caught.value.code == "tls.no-authority"
    assert read_authority(empty) is None
